//! What a text or a launch is refused for.

use crate::common::{HEADER, kernel, line, refused};
use ptx_sim::{Device, Launch, LaunchError, Module, Options};

#[test]
fn what_is_unknown_is_refused_with_its_line() {
    assert!(refused("frobnicate.u32 %r0, %r1;").contains("frobnicate.u32"));
    assert!(refused("add.frob.u32 %r0, %r1, %r2;").contains(".frob"));
    assert!(refused("add.u32 %r0, %r1, %unknown;").contains("%unknown"));
    assert!(refused("add.u32 %r99, %r1, %r2;").contains("%r99"));
    assert!(refused("add.u32 %r0, %r1;").contains("add.u32"));
    assert!(refused("add.u32 %r0, %d1, %r2;").contains("%d1"));
    assert!(refused("add.u32 7, %r1, %r2;").contains("add.u32"));
    assert!(refused("@%r1 add.u32 %r0, %r1, %r2;").contains("%r1"));
    assert!(refused("mov.u32 %r0, %tid.w;").contains("%tid.w"));
    assert!(refused(".reg .b128 %wide;").contains("b128"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    for (wrong, mark) in [("add.u32 %r0, %r1, %r2", "ret;"), ("add.u32 (%r0;", "add.u32 (")] {
        let text = kernel(wrong).text();
        let error = Module::parse(&text).expect_err("it is wrong");
        assert_eq!(error.line, line(&text, mark), "{error}");
        assert!(error.to_string().starts_with(&format!("line {}: ", error.line)));
    }
    assert!(Module::parse(&format!("{HEADER}.visible .entry kernel() {{ ret;")).is_err());
    assert!(Module::parse(HEADER).is_ok_and(|module| module.entries().count() == 0));
}

#[test]
fn a_module_tells_what_its_kernels_need() {
    let text = format!(
        "{HEADER}.shared .b8 outer[100];\n.entry a(.param .u32 x, .param .u64 y) .maxntid 64, 2, 1 {{ .local .b8 l[24]; ret; }}
        .entry b() .reqntid 32, 1, 1 {{ .shared .align 8 .b8 s[8]; ret; }}"
    );
    let module = Module::parse(&text).expect("valid");
    assert_eq!(module.entries().collect::<Vec<_>>(), ["a", "b"]);
    let (a, b) = (module.entry("a").expect("a"), module.entry("b").expect("b"));
    assert_eq!((a.param_bytes, a.static_shared, a.local_bytes), (16, 100, 24));
    assert_eq!((a.max_threads, a.required_threads), (Some([64, 2, 1]), None));
    assert_eq!((b.param_bytes, b.static_shared, b.required_threads), (0, 112, Some([32, 1, 1])));
    assert_eq!(module.entry("c"), None);
}

fn launch(entry: &str, grid: [u32; 3], block: [u32; 3], shared_bytes: u32, params: &[u8]) -> Result<(), LaunchError> {
    let text = format!(
        "{HEADER}.entry plain(.param .u32 x) {{ ret; }}\n.entry few() .maxntid 64, 1, 1 {{ ret; }}
        .entry exact() .reqntid 32, 2, 1 {{ ret; }}\n.entry shared() {{ .shared .b8 s[200000]; ret; }}"
    );
    let module = Module::parse(&text).expect("valid");
    let launch = Launch { entry, grid, block, cluster: None, shared_bytes, params, options: Options::default() };
    Device::new().launch(&module, &launch).map(|report| assert!(report.is_clean()))
}

#[test]
fn a_launch_that_a_driver_would_refuse_is_refused() {
    let (one, warp) = ([1; 3], [32, 1, 1]);
    let x = [0; 4];
    assert_eq!(launch("plain", one, warp, 0, &x), Ok(()));
    let field = |result: Result<(), LaunchError>| result.expect_err("it is refused").field;
    assert_eq!(field(launch("nobody", one, warp, 0, &x)), "entry");
    assert_eq!(field(launch("plain", [0, 1, 1], warp, 0, &x)), "grid");
    assert_eq!(field(launch("plain", [1, 65536, 1], warp, 0, &x)), "grid");
    assert_eq!(field(launch("plain", one, [0, 1, 1], 0, &x)), "block");
    assert_eq!(field(launch("plain", one, [1025, 1, 1], 0, &x)), "block");
    assert_eq!(field(launch("plain", one, [32, 32, 2], 0, &x)), "block");
    assert_eq!(field(launch("few", one, [65, 1, 1], 0, &[])), "block");
    assert_eq!(launch("few", one, [64, 1, 1], 0, &[]), Ok(()));
    assert_eq!(field(launch("exact", one, [64, 1, 1], 0, &[])), "block");
    assert_eq!(launch("exact", one, [32, 2, 1], 0, &[]), Ok(()));
    assert_eq!(field(launch("plain", one, warp, 227 * 1024 + 1, &x)), "shared_bytes");
    assert_eq!(launch("plain", one, warp, 227 * 1024, &x), Ok(()));
    assert_eq!(field(launch("shared", one, warp, 40000, &[])), "shared_bytes");
    assert_eq!(field(launch("plain", one, warp, 0, &[0; 8])), "params");
    let error = launch("nobody", one, warp, 0, &x).expect_err("it is refused");
    assert_eq!(error.to_string(), "entry: nobody, allowed: plain, few, exact, shared");
}
