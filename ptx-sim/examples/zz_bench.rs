use ptx_sim::*;
fn main() {
    let text = std::fs::read_to_string("ptx/sm_80.ptx").unwrap();
    let t = std::time::Instant::now();
    let module = Module::parse(&text).unwrap();
    println!("parse {:?}", t.elapsed());
    let kernel = std::env::args().nth(1).unwrap_or("fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1".into());
    let (q, threads, shared): (u32, u32, u32) = if kernel.contains("q32_kv64_w8") { (32, 256, 69632) } else { (64, 128, 24576) };
    let s = 512u32;
    let bytes: Vec<u8> = (0..s * 64).flat_map(|i| { let x = ((i.wrapping_mul(2654435761) >> 8) as f32 / 16777216.0 - 0.5) * 2.0; ((x.to_bits() >> 16) as u16).to_le_bytes() }).collect();
    for rep in 0..std::env::args().nth(2).map_or(25, |x| x.parse().unwrap()) {
        let mut d = Device::new();
        let (a, b, c) = (d.upload_read_only(&bytes), d.upload_read_only(&bytes), d.upload_read_only(&bytes));
        let o = d.alloc(bytes.len()); let l = d.alloc(s as usize * 4);
        let mut p = vec![];
        for x in [a.address(), b.address(), c.address(), 0, 1u64 << 32] { p.extend(x.to_le_bytes()); }
        for x in [s, s] { p.extend(x.to_le_bytes()); }
        for _ in 0..4 { for x in [s * 8, s * 8, 8u32] { p.extend(x.to_le_bytes()); } }
        p.extend(64u32.to_le_bytes()); p.extend((s as i32).to_le_bytes()); p.extend((0.125f32 * 1.442695).to_le_bytes()); p.extend(1u32.to_le_bytes());
        p.extend(o.address().to_le_bytes()); p.extend(l.address().to_le_bytes());
        let t = std::time::Instant::now();
        let options = Options { checks: true, ..Options::default() };
        let r = d.launch(&module, &Launch { entry: &kernel, grid: [s / q, 1, 1], block: [threads, 1, 1], shared_bytes: shared, params: &p, options }).unwrap();
        println!("checks {} {:?} {} instr clean {}", options.checks, t.elapsed(), r.total.instructions, r.is_clean());
    }
}
