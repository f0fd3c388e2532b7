//! Launches of plans on a simulated device, for what no whole call shows.

use evo_sdpa::half::bf16;
use evo_sdpa::sim::ptx_sim::{Device, Launch, Module, Options};
use evo_sdpa::verify::Inputs;
use evo_sdpa::{DevicePointers, Plan, cpu};

/// The answer of a plan for `inputs`, with a workspace at this address, or at 0 where the plan needs none.
pub fn launch(
    device: &mut Device,
    module: &Module,
    plan: &Plan,
    inputs: &Inputs<bf16>,
    workspace: u64,
) -> cpu::Output<bf16> {
    let raw = |data: &[bf16]| data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|data| device.upload_read_only(&raw(data)).address());
    let rows = inputs.q.len() / plan.params.head_dim as usize;
    let (out, lse) = (device.alloc(inputs.q.len() * 2), device.alloc(rows * 4));
    let addresses = DevicePointers { q, k, v, out: out.address(), lse: lse.address(), ..DevicePointers::default() };
    let pointers = DevicePointers { workspace, ..addresses };
    // SAFETY: the parameter block has no padding.
    let params: [u8; 176] = unsafe { std::mem::transmute(plan.bind(&pointers).unwrap()) };
    let launch = Launch {
        entry: &plan.kernel.to_string(),
        grid: plan.grid,
        block: [plan.block, 1, 1],
        cluster: None,
        shared_bytes: plan.shared_bytes,
        params: &params,
        options: Options::default(),
    };
    let report = device.launch(module, &launch).unwrap();
    assert!(report.is_clean(), "{report}");
    let words = |buffer| device.download(buffer).unwrap();
    cpu::Output {
        out: words(out).chunks(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap())).collect(),
        lse: words(lse).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
    }
}
