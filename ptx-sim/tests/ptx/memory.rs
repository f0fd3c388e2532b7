//! Loads and stores of every width in every space.

use crate::common::{HEADER, kernel, refused, words};
use ptx_sim::{Device, Launch, MemoryError, Module, Options};

const INPUT: [u32; 8] = [0x8123_4567, 0xf89a_bcde, 0x0bad_cafe, 0x7fff_8000, 1, 2, 3, 4];

/// What the first lane gets in four words from `code` that leaves results in `%r0` to `%r3`.
#[track_caller]
fn first(code: &str) -> [u32; 4] {
    let zero = "mov.u32 %r0, 0; mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u32 %r3, 0;";
    let body = format!("{zero}\n{code}\nst.global.v4.u32 [%out], {{%r0, %r1, %r2, %r3}};");
    kernel(&body).input(&INPUT).threads(1).shared(64).clean().of(0)
}

#[test]
fn narrow_loads_are_extended_by_their_sign() {
    assert_eq!(
        first("ld.global.u8 %r0, [%in+3]; ld.global.s8 %r1, [%in+3]; ld.global.b8 %r2, [%in];"),
        [0x81, 0xffff_ff81, 0x67, 0]
    );
    assert_eq!(first("ld.global.u16 %r0, [%in+2]; ld.global.s16 %r1, [%in+2];"), [0x8123, 0xffff_8123, 0, 0]);
    let wide = "ld.global.s32 %d0, [%in]; mov.b64 {%r0, %r1}, %d0; ld.global.u32 %d0, [%in]; mov.b64 {%r2, %r3}, %d0;";
    assert_eq!(first(wide), [0x8123_4567, 0xffff_ffff, 0x8123_4567, 0]);
}

#[test]
fn wide_loads_are_whole() {
    assert_eq!(first("ld.global.u64 %d0, [%in+8]; mov.b64 {%r0, %r1}, %d0;"), [0x0bad_cafe, 0x7fff_8000, 0, 0]);
    assert_eq!(first("ld.global.f64 %d0, [%in+8]; mov.b64 {%r0, %r1}, %d0;")[..2], [0x0bad_cafe, 0x7fff_8000]);
    assert_eq!(first("ld.global.f32 %f0, [%in+4]; mov.b32 %r0, %f0;")[0], 0xf89a_bcde);
    assert_eq!(first("ld.global.b16 %h0, [%in]; cvt.u32.u16 %r0, %h0;")[0], 0x4567);
}

#[test]
fn vectors_are_neighbours() {
    assert_eq!(first("ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%in];"), [INPUT[0], INPUT[1], INPUT[2], INPUT[3]]);
    assert_eq!(first("ld.global.v2.b32 {%r0, %r1}, [%in+16];"), [1, 2, 0, 0]);
    assert_eq!(first("ld.global.v4.u8 {%r0, %r1, %r2, %r3}, [%in];"), [0x67, 0x45, 0x23, 0x81]);
    assert_eq!(first("ld.global.v2.s16 {%r0, %r1}, [%in];"), [0x4567, 0xffff_8123, 0, 0]);
    assert_eq!(first("ld.global.v2.u64 {%d0, %d1}, [%in]; mov.b64 {%r0, %r1}, %d1;")[..2], INPUT[2..4]);
    assert_eq!(first("ld.global.v4.u32 {_, %r1, _, %r3}, [%in];"), [0, INPUT[1], 0, INPUT[3]]);
}

#[test]
fn stores_write_their_width_and_no_more() {
    let shared = |code: &str| {
        first(&format!(
            "st.shared.v2.u32 [dynamic], {{-1, -1}}; mov.u32 %r4, 0x12345678; mov.b64 %d4, {{%r4, %r4}}; \
             cvt.u16.u32 %h4, %r4; {code} ld.shared.v2.u32 {{%r0, %r1}}, [dynamic];"
        ))
    };
    assert_eq!(shared("st.shared.u8 [dynamic+1], %r4;")[..2], [0xffff_78ff, u32::MAX]);
    assert_eq!(shared("st.shared.u16 [dynamic+2], %h4;")[..2], [0x5678_ffff, u32::MAX]);
    assert_eq!(shared("st.shared.u16 [dynamic+6], %r4;")[..2], [u32::MAX, 0x5678_ffff]);
    assert_eq!(shared("st.shared.u32 [dynamic+4], %r4;")[..2], [u32::MAX, 0x1234_5678]);
    assert_eq!(shared("st.shared.u32 [dynamic+4], %d4;")[..2], [u32::MAX, 0x1234_5678]);
    assert_eq!(shared("st.shared.u64 [dynamic], %d4;")[..2], [0x1234_5678, 0x1234_5678]);
    assert_eq!(shared("st.shared.v2.u8 [dynamic+2], {%r4, 1};")[..2], [0x0178_ffff, u32::MAX]);
    assert_eq!(shared("st.shared.f32 [dynamic], 0f3F800000;")[0], 0x3f80_0000);
    assert_eq!(shared("st.shared.u64 [dynamic], -2;")[..2], [0xffff_fffe, 0xffff_ffff]);
}

#[test]
fn addresses_take_offsets_of_either_sign() {
    let code =
        "add.u64 %d0, %in, 12; ld.global.u32 %r0, [%d0+-8]; ld.global.u32 %r1, [%d0+-12]; ld.global.u32 %r2, [%d0+4];";
    assert_eq!(first(code), [INPUT[1], INPUT[0], 1, 0]);
    assert_eq!(first("st.shared.u32 [dynamic+60], 5; mov.u32 %r1, dynamic+56; ld.shared.u32 %r0, [%r1+4];")[0], 5);
    assert_eq!(first("st.shared.u32 [dynamic], 5; mov.u64 %d0, dynamic; ld.shared.u32 %r0, [%d0];")[0], 5);
}

#[test]
fn hints_change_nothing() {
    let loads = [
        "ld.global.nc.u32",
        "ld.volatile.global.u32",
        "ld.relaxed.gpu.global.u32",
        "ld.acquire.sys.global.u32",
        "ld.global.L1::evict_last.u32",
        "ld.global.L2::128B.u32",
        "ld.weak.global.u32",
    ];
    for load in loads {
        assert_eq!(first(&format!("{load} %r0, [%in];"))[0], INPUT[0], "{load}");
    }
    for store in ["st.volatile.shared.u32", "st.relaxed.cta.shared.u32", "st.release.cta.shared::cta.u32"] {
        assert_eq!(first(&format!("{store} [dynamic], 9; ld.volatile.shared.u32 %r0, [dynamic];"))[0], 9, "{store}");
    }
}

#[test]
fn generic_addresses_lead_to_every_space() {
    let shared = "cvta.shared.u64 %d0, dynamic; st.u32 [%d0+4], 7; ld.shared.u32 %r0, [dynamic+4]; \
        mov.u32 %r5, dynamic; cvt.u64.u32 %d1, %r5; cvta.shared.u64 %d1, %d1; ld.u32 %r1, [%d1+4];";
    assert_eq!(first(shared)[..2], [7, 7]);
    assert_eq!(
        first("cvta.to.global.u64 %d0, %in; ld.global.u32 %r0, [%d0]; cvta.global.u64 %d0, %d0; ld.u32 %r1, [%d0];")
            [..2],
        [INPUT[0]; 2]
    );
    assert_eq!(
        first("cvta.shared.u64 %d0, dynamic; cvta.to.shared.u64 %d1, %d0; st.shared.u32 [%d1], 3; ld.u32 %r0, [%d0];")
            [0],
        3
    );
    let local = ".local .b32 here[2]; cvta.local.u64 %d0, here; st.u32 [%d0+4], 8; ld.local.u32 %r0, [here+4];";
    assert_eq!(first(local)[0], 8);
}

#[test]
fn isspacep_tells_spaces_apart() {
    let code = |address: &str| {
        format!(
            ".local .b32 here; {address} isspacep.global %p0, %d0; isspacep.shared %p1, %d0; isspacep.local %p2, %d0; \
             selp.u32 %r0, 1, 0, %p0; selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 1, 0, %p2;"
        )
    };
    assert_eq!(first(&code("mov.u64 %d0, %in;")), [1, 0, 0, 0]);
    assert_eq!(first(&code("cvta.shared.u64 %d0, dynamic;")), [0, 1, 0, 0]);
    assert_eq!(first(&code("cvta.local.u64 %d0, here;")), [0, 0, 1, 0]);
}

#[test]
fn each_thread_has_local_memory_of_its_own() {
    let run = kernel(
        ".local .align 8 .b8 mine[16]; mov.u64 %d0, mine; st.local.u32 [%d0+8], %t; bar.sync 0; \
         ld.local.u32 %r0, [mine+8]; st.global.u32 [%out], %r0;",
    )
    .threads(64)
    .clean();
    assert_eq!(run.results(), (0..64).collect::<Vec<_>>());
}

#[test]
fn static_shared_variables_do_not_overlap() {
    let body = ".shared .b32 first; .shared .align 16 .b8 second[16]; st.shared.u32 [first], 1; \
        st.shared.v4.u32 [second], {2, 3, 4, 5}; st.shared.u32 [dynamic], 6; st.shared.u32 [outer], 7; \
        ld.shared.u32 %r0, [first]; ld.shared.u32 %r1, [second+12]; ld.shared.u32 %r2, [dynamic]; \
        ld.shared.u32 %r3, [outer]; st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};";
    let run = kernel(body).module(".shared .b32 outer;").threads(1).shared(16).clean();
    assert_eq!(run.of(0), [1, 5, 6, 7]);
}

const VARIABLES: &str = ".global .align 4 .b32 numbers[4] = {10, -1, 0x20};
    .const .align 8 .f64 half[2] = {0.5, 0d4000000000000000};
    .global .align 4 .b8 bytes[4] = {1, 2, 3, 4};
    .const .f32 one = 0f3F800000;
    .global .u32 counter;";

#[test]
fn variables_begin_with_their_initial_values() {
    let run = |code: &str| {
        let body = format!("{code}\nst.global.v4.u32 [%out], {{%r0, %r1, %r2, %r3}};");
        kernel(&body).module(VARIABLES).threads(1).clean().of(0)
    };
    let numbers = "ld.global.u32 %r0, [numbers]; ld.global.u32 %r1, [numbers+4]; ld.global.u32 %r2, [numbers+8]; \
        mov.u64 %d0, numbers; ld.global.u32 %r3, [%d0+12];";
    assert_eq!(run(numbers), [10, u32::MAX, 0x20, 0]);
    let constants = "ld.const.f64 %d0, [half]; mov.b64 {_, %r0}, %d0; ld.const.f64 %d0, [half+8]; mov.b64 {_, %r1}, %d0; \
        ld.const.f32 %f0, [one]; mov.b32 %r2, %f0; ld.global.u32 %r3, [bytes];";
    assert_eq!(run(constants), [0x3fe0_0000, 0x4000_0000, 0x3f80_0000, 0x0403_0201]);
    let generic = "mov.u64 %d0, numbers; cvta.global.u64 %d0, %d0; ld.u32 %r0, [%d0]; cvta.const.u64 %d1, one; \
        ld.u32 %r1, [%d1]; mov.u32 %r2, 0; mov.u32 %r3, 0;";
    assert_eq!(run(generic)[..2], [10, 0x3f80_0000]);
}

#[track_caller]
fn launch_one_thread(device: &mut Device, module: &Module, params: &[u8]) {
    let (one, options) = ([1; 3], Options::default());
    let launch = Launch { entry: "kernel", grid: one, block: one, cluster: None, shared_bytes: 0, params, options };
    assert!(device.launch(module, &launch).expect("a good launch").is_clean());
}

/// As on a GPU, the variables of a module live as long as the module: a second launch sees what the first one left.
#[test]
fn variables_last_from_launch_to_launch_on_one_device() {
    let text = format!(
        "{HEADER}{VARIABLES}\n.visible .entry kernel(.param .u64 out) {{ .reg .b32 %r<2>; .reg .b64 %d;
         atom.global.add.u32 %r0, [counter], 1; ld.param.u64 %d, [out]; st.global.u32 [%d], %r0; ret; }}"
    );
    let module = Module::parse(&text).expect("valid");
    let launch = |device: &mut Device| {
        let out = device.alloc(4);
        let params = out.address().to_le_bytes();
        launch_one_thread(device, &module, &params);
        words(device, out)[0]
    };
    let mut device = Device::new();
    assert_eq!([launch(&mut device), launch(&mut device), launch(&mut device)], [0, 1, 2]);
    assert_eq!(launch(&mut Device::new()), 0);
}

#[test]
fn parameters_lie_at_their_alignment() {
    let text = format!(
        "{HEADER}.visible .entry kernel(.param .u8 a, .param .u16 b, .param .u32 c, .param .align 16 .b8 d[20], .param .u64 out)
        {{ .reg .b32 %r<4>; .reg .b64 %d;
        ld.param.u8 %r0, [a]; ld.param.s16 %r1, [b]; ld.param.u32 %r2, [c]; ld.param.u32 %r3, [d+16];
        ld.param.u64 %d, [out]; st.global.v4.u32 [%d], {{%r0, %r1, %r2, %r3}}; ret; }}"
    );
    let module = Module::parse(&text).expect("valid");
    let entry = module.entry("kernel").expect("it is there");
    assert_eq!(entry.param_bytes, 48);
    let mut device = Device::new();
    let out = device.alloc(16);
    let mut params = [0u8; 48];
    params[0] = 200;
    params[2..4].copy_from_slice(&(-5i16).to_le_bytes());
    params[4..8].copy_from_slice(&77u32.to_le_bytes());
    params[32..36].copy_from_slice(&88u32.to_le_bytes());
    params[40..].copy_from_slice(&out.address().to_le_bytes());
    launch_one_thread(&mut device, &module, &params);
    assert_eq!(words(&device, out), [200, -5i32 as u32, 77, 88]);
}

#[test]
fn threads_know_where_they_are() {
    let run = kernel(
        "mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ctaid.x; \
         mad.lo.u32 %r4, %r2, 3, %r1; mad.lo.u32 %r4, %r4, 5, %r0; mad.lo.u32 %r4, %r3, 30, %r4; \
         ld.param.u64 %out, [out]; mad.wide.u32 %out, %r4, 16, %out; st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};",
    )
    .block([5, 3, 2])
    .blocks(2)
    .clean();
    for thread in 0..60u32 {
        assert_eq!(run.of(thread as usize), [thread % 5, thread / 5 % 3, thread / 15 % 2, thread / 30]);
    }
    let sizes = "mov.u32 %r0, %ntid.y; mov.u32 %r1, %nctaid.x; mov.u32 %r2, %nwarpid; mov.u32 %r3, %dynamic_smem_size;";
    let run = kernel(&format!("{sizes} st.global.v4.u32 [%out], {{%r0, %r1, %r2, %r3}};"));
    assert_eq!(run.block([8, 9, 1]).blocks(3).shared(48).clean().of(0), [9, 3, 3, 48]);
}

#[test]
fn the_host_writes_reads_and_frees() {
    let mut device = Device::new();
    let buffer = device.upload(&[1, 2, 3]);
    assert_eq!((buffer.len(), device.download(buffer)), (3, Ok(vec![1, 2, 3])));
    assert_eq!(device.write(buffer, &[4, 5, 6]), Ok(()));
    assert_eq!(device.write(buffer, &[4]), Err(MemoryError::Length { bytes: 1, len: 3 }));
    assert_eq!(device.write_start(buffer, &[7]), Ok(()));
    assert_eq!(device.download(buffer), Ok(vec![7, 5, 6]));
    assert_eq!(device.write_start(buffer, &[0; 4]), Err(MemoryError::Length { bytes: 4, len: 3 }));
    assert_eq!(device.free(buffer), Ok(()));
    let gone = MemoryError::Gone { address: buffer.address() };
    assert_eq!((device.free(buffer), device.download(buffer)), (Err(gone.clone()), Err(gone.clone())));
    assert_eq!(device.write(buffer, &[4, 5, 6]), Err(gone));
    assert!(device.alloc(0).is_empty());
}

#[test]
fn sectors_and_wavefronts_are_counted() {
    let total = |body: &str| kernel(body).input(&[1; 1024]).shared(4096).clean().report.total;
    let row = total("mad.wide.u32 %in, %lane, 4, %in; ld.global.u32 %r0, [%in];");
    assert_eq!((row.sectors_ideal, row.sectors), (4, 4));
    let column = total("mad.wide.u32 %in, %lane, 128, %in; ld.global.u32 %r0, [%in];");
    assert_eq!((column.sectors_ideal, column.sectors), (4, 32));
    let store = |stride: u32| {
        total(&format!("mov.u32 %r0, dynamic; mad.lo.u32 %r0, %lane, {stride}, %r0; st.shared.u32 [%r0], %lane;"))
    };
    assert_eq!((store(4).wavefronts_ideal, store(4).wavefronts), (1, 1));
    assert_eq!((store(8).wavefronts_ideal, store(8).wavefronts), (1, 2));
    assert_eq!((store(128).wavefronts_ideal, store(128).wavefronts), (1, 32));
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "ld.global.v3.u32 {%r0, %r1, %r2}, [%in];",
        "ld.global.v2.u32 {%r0, %r1, %r2}, [%in];",
        "ld.global.v4.u64 {%d0, %d1, %d2, %d3}, [%in];",
        "ld.global.u64 %r0, [%in];",
        "ld.texture.u32 %r0, [%in];",
        "ld.global.u32 %r0, [nothing];",
        "ld.global.u32 %r0, %r1;",
        "st.global.pred [%in], %p0;",
        "ld.shared.u32 %r0, [in];",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
