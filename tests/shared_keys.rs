//! The `fwd_sm80` kernels whose blocks share keys, in the simulator: parts of the keys, their merge, the workspace.

use evo_sdpa::sim::ptx_sim::{Options as SimOptions, WarpOrder};
use evo_sdpa::verify::{Case, Inputs, Storage};
use evo_sdpa::{
    Causal, DType, DeviceSpec, Element, Error, KERNELS, Kernel, Options, PTX_SM80, Plan, Problem, Simulator,
    with_element,
};
use splits::{assert_launches_share_a_workspace, assert_no_faults};
use std::sync::OnceLock;

mod launch;
mod splits;

/// Every number of parts, up to more than some case has steps.
const PARTS: [u32; 5] = [1, 2, 3, 4, 5];

fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap().with_spec(DeviceSpec::L4))
}

/// The kernels, each with the keys of its step.
fn kernels() -> impl Iterator<Item = (Kernel, usize)> {
    KERNELS.iter().filter_map(|&kernel| match kernel {
        Kernel::FwdSm80(config) => Some((kernel, kernel.split_step().filter(|_| config.shares_keys)? as usize)),
        _ => None,
    })
}

/// A kernel's own type and head dim.
fn case(kernel: Kernel, [batch, heads_q, heads_kv, q_len, kv_len]: [usize; 5]) -> Case {
    let shape = [batch, heads_q, heads_kv, q_len, kv_len, kernel.head_dim() as usize];
    Case { dtype: kernel.dtype(), ..Case::new(shape) }
}

/// What is wrong with the answers of a kernel to `case`, with the keys in so many parts.
fn faults(kernel: Kernel, case: Case, parts: &[u32]) -> Vec<String> {
    splits::faults(simulator(), kernel, &case, parts)
}

#[test]
fn every_type_and_head_dim_of_the_kernels_has_one() {
    let found: Vec<_> = kernels().map(|(kernel, _)| (kernel.dtype(), kernel.head_dim())).collect();
    assert_eq!(found, [(DType::F16, 64), (DType::F16, 128), (DType::Bf16, 64), (DType::Bf16, 128)]);
    assert!(kernels().all(|(kernel, _)| kernel.shared_bytes() <= 99 << 10));
}

#[test]
fn ragged_lengths_and_groups_of_heads_are_right_in_any_number_of_parts() {
    assert_no_faults(kernels().flat_map(|(kernel, step)| {
        let ragged = case(kernel, [1, 4, 2, 77, 5 * step - 7]);
        let strided = Case { storage: Storage::Bshd, ..case(kernel, [2, 2, 1, 130, 3 * step + 1]) };
        [ragged, strided].into_iter().flat_map(move |case| faults(kernel, case, &PARTS))
    }));
}

#[test]
fn parts_that_a_mask_hides_still_take_part_in_the_merge() {
    assert_no_faults(kernels().flat_map(|(kernel, step)| {
        let far = Causal::Offset(-2 * step as i64 - 3);
        let masks = [Causal::BottomRight, Causal::TopLeft, Causal::Offset(step as i64 - 3), far];
        let of_mask = move |causal| Case { causal: Some(causal), ..case(kernel, [1, 2, 1, 150, 5 * step - 7]) };
        masks.into_iter().flat_map(move |causal| faults(kernel, of_mask(causal), &PARTS))
    }));
}

#[test]
fn sequences_of_their_own_lengths_may_leave_parts_without_a_key() {
    assert_no_faults(kernels().flat_map(|(kernel, step)| {
        [None, Some(Causal::BottomRight)].into_iter().flat_map(move |causal| {
            let lens = Case { kv_lens: true, causal, ..case(kernel, [4, 2, 2, 70, 4 * step + 9]) };
            faults(kernel, lens, &PARTS)
        })
    }));
}

#[test]
fn few_keys_no_keys_few_rows_and_no_rows_are_right() {
    assert_no_faults(kernels().flat_map(|(kernel, step)| {
        let shapes = [[1, 2, 1, 3, 0], [1, 2, 1, 3, 1], [2, 2, 2, 1, 2 * step], [1, 1, 1, 0, 2 * step]];
        shapes.into_iter().flat_map(move |shape| faults(kernel, case(kernel, shape), &PARTS))
    }));
}

#[test]
fn smaller_head_dims_are_padded() {
    assert_no_faults(kernels().flat_map(|(kernel, step)| {
        let shape = [1, 2, 1, 66, 3 * step - 1, kernel.least_head_dim() as usize];
        faults(kernel, Case { dtype: kernel.dtype(), ..Case::new(shape) }, &[1, 3])
    }));
}

#[test]
fn no_order_of_blocks_and_warps_changes_a_bit() {
    for (kernel, step) in kernels() {
        let case = Case { causal: Some(Causal::BottomRight), ..case(kernel, [1, 2, 2, 100, 4 * step - 3]) };
        with_element!(case.dtype, T => same_bits_in_any_order::<T>(kernel, &case));
    }
}

fn same_bits_in_any_order<T: Element>(kernel: Kernel, case: &Case) {
    let inputs = Inputs::<T>::generate(case);
    let [q, k, v] = inputs.views().unwrap();
    let options = Options { splits: Some(3), ..inputs.options() };
    let run = |ptx: &str, options_of_simulator| {
        let simulator = Simulator::new(&[ptx]).unwrap().with_spec(DeviceSpec::L4).with_options(options_of_simulator);
        let answer = simulator.attention(q, k, v, &options, Some(kernel)).unwrap();
        assert!(answer.report.is_clean(), "{}", answer.report);
        answer.output
    };
    let first = run(PTX_SM80, SimOptions::default());
    let random = |seed| SimOptions { warp_order: WarpOrder::Random, seed, ..SimOptions::default() };
    for options in [random(3), random(7), SimOptions { warp_order: WarpOrder::Reverse, ..SimOptions::default() }] {
        assert_eq!(run(PTX_SM80, options), first);
    }
    assert_eq!(run(&last_block_first(PTX_SM80), SimOptions::default()), first);
}

/// The text with the blocks along x in the opposite order: the simulator runs them by number.
fn last_block_first(ptx: &str) -> String {
    let lines = ptx.lines().map(|line| match line.trim().strip_suffix(", %ctaid.x;") {
        None => format!("{line}\n"),
        Some(read) => {
            let x = read.strip_prefix("mov.u32 ").expect("special registers are read by a move");
            format!("mov.u32 {x}, %ctaid.x;\nnot.b32 {x}, {x};\n{{.reg .b32 %n;\nmov.u32 %n, %nctaid.x;\nadd.s32 {x}, {x}, %n;}}\n")
        }
    });
    lines.collect()
}

#[test]
fn every_launch_leaves_the_workspace_fit_for_the_next_one() {
    let (kernel, step) = kernels().find(|(kernel, _)| kernel.dtype() == DType::Bf16).unwrap();
    let call = |(batch, parts)| (case(kernel, [batch, 2, 1, 67, 6 * step]), parts);
    let calls = [(3, 2), (1, 3), (2, 6), (3, 2)].map(call);
    assert_launches_share_a_workspace(&DeviceSpec::L4, kernel, calls);
}

#[test]
fn splits_that_a_launch_cannot_have_are_refused_by_name() {
    let (kernel, step) = kernels().find(|(kernel, _)| kernel.dtype() == DType::Bf16).unwrap();
    let plan = |heads, q_len| {
        let problem = Problem::contiguous(DType::Bf16, [1, heads, heads, q_len, 10 * step, 64]);
        Plan::with_kernel(&problem, &DeviceSpec::L4, kernel).unwrap()
    };
    let small = plan(2, 100).with_splits(3).unwrap();
    assert_eq!(small.axes(), ["query tiles x splits", "heads", "batch"]);
    // Parts of four steps.
    assert_eq!((small.grid, small.params.splits, small.params.keys_per_split as usize), ([6, 2, 1], 3, 4 * step));
    assert_eq!(small.with_splits(1).unwrap().workspace_bytes(), 0);
    // 16384 counters, and partial results of 64 rows with 64 columns and two statistics.
    assert_eq!(small.workspace_bytes(), 65536 + 3 * 4 * 64 * 66 * 4);
    let refused = |plan: Plan, splits| match plan.with_splits(splits) {
        Err(Error::Unsupported { field: "splits", allowed, .. }) => allowed,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(small, 0), "1 or more");
    assert_eq!(refused(plan(8, 64 * 2049), 2), "1 for 16392 tiles of rows, above 16384");
    assert!(plan(8, 64 * 2049).with_splits(1).is_ok());
}
