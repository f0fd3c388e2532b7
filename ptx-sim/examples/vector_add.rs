//! Adds two vectors with a kernel in PTX, and shows what the simulator finds when the kernel forgets its bounds.

use ptx_sim::{Device, Launch, Module, Options};

const PTX: &str = "
.version 7.5
.target sm_80
.address_size 64

.visible .entry add(
    .param .u64 out, .param .u64 a, .param .u64 b, .param .u32 n
)
{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<5>;

    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r1, %r1, %r2, %r3;
    ld.param.u32 %r4, [n];
    setp.ge.u32 %p, %r1, %r4;
    @%p bra done;
    mul.wide.u32 %rd4, %r1, 4;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd3, [out];
    add.u64 %rd1, %rd1, %rd4;
    add.u64 %rd2, %rd2, %rd4;
    add.u64 %rd3, %rd3, %rd4;
    ld.global.f32 %f1, [%rd1];
    ld.global.f32 %f2, [%rd2];
    add.rn.f32 %f3, %f1, %f2;
    st.global.f32 [%rd3], %f3;
done:
    ret;
}
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = 1000u32;
    let a: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let b: Vec<u8> = (0..n).flat_map(|i| (0.5 * i as f32).to_le_bytes()).collect();

    let mut device = Device::new();
    let (a, b) = (device.upload_read_only(&a), device.upload_read_only(&b));
    let out = device.alloc(4 * n as usize);
    let mut params = Vec::new();
    for buffer in [out, a, b] {
        params.extend(buffer.address().to_le_bytes());
    }
    params.extend(n.to_le_bytes());
    let launch = Launch {
        entry: "add",
        grid: [n.div_ceil(256), 1, 1],
        block: [256, 1, 1],
        cluster: None,
        shared_bytes: 0,
        params: &params,
        options: Options::default(),
    };

    let report = device.launch(&Module::parse(PTX)?, &launch)?;
    println!("{report}");
    let sums = device.download(out)?;
    let last = f32::from_le_bytes(sums[sums.len() - 4..].try_into()?);
    println!("{} + {} = {last}", n - 1, 0.5 * (n - 1) as f32);

    // Without its guard the kernel runs over the end of the buffers.
    let report = device.launch(&Module::parse(&PTX.replace("@%p bra done;", ""))?, &launch)?;
    println!("\n{report}");
    Ok(())
}
