//! The device compiler at work, on crates of a few lines. Skipped, in words, where there is none.

use evo_sdpa_kernel_builder::{Error, Target, Toolchain, compile};
use std::fs;
use std::path::Path;

const KERNEL: &str = r#"
#![no_std]
#![feature(abi_ptx, stdarch_nvptx)]

#[unsafe(no_mangle)]
unsafe extern "ptx-kernel" fn number(out: *mut u32) {
    // SAFETY: a test only reads what this compiles to.
    unsafe { out.write_volatile(core::arch::nvptx::_thread_idx_x()) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
"#;

/// Compiles `source` in the folder `place` for `target`; `None` without a device toolchain.
fn compile_for(target: Target, place: &str, source: &str) -> Option<Result<String, Error>> {
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(error) => {
            eprintln!("skipped: {error}");
            return None;
        }
    };
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target_dir.join(place);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lib.rs"), source).unwrap();
    // Where `kernel-builder check` keeps the compiled `core` too.
    Some(compile(&toolchain, &folder, &target_dir.join("../device"), target))
}

fn compile_in(place: &str, source: &str) -> Option<Result<String, Error>> {
    compile_for(Target::Sm80, place, source)
}

#[test]
fn every_target_has_its_own_entry_points() {
    // Without the other one, unused features are a warning.
    let other = "#[cfg(ampere)]\n#[unsafe(no_mangle)]\nunsafe extern \"ptx-kernel\" fn other";
    let start = "#[unsafe(no_mangle)]\nunsafe extern \"ptx-kernel\" fn number";
    let body = &KERNEL[KERNEL.find("(out").unwrap()..KERNEL.find("#[panic_handler]").unwrap()];
    let of_hopper = KERNEL.replace(start, &format!("{other}{body}#[cfg(hopper)]\n{start}"));
    for (target, place) in [(Target::Sm80, "ampere"), (Target::Sm90a, "hopper")] {
        let Some(text) = compile_for(target, place, &of_hopper) else { return };
        let text = text.unwrap();
        assert!(text.contains(&format!(".target {}\n", target.name())), "{text}");
        assert_eq!(text.contains(".entry number("), target == Target::Sm90a, "{text}");
        assert_eq!(text.contains(".entry other("), target == Target::Sm80, "{text}");
    }
}

#[test]
fn the_same_source_gives_the_same_text_wherever_it_lies() {
    let Some(here) = compile_in("here", KERNEL) else { return };
    let there = compile_in("there/and deeper", KERNEL).unwrap();
    let text = here.unwrap();
    assert_eq!(text, there.unwrap());
    assert!(text.contains(".target sm_80") && text.contains(".entry number("), "{text}");
    for line in text.lines().filter(|line| line.contains(".file")) {
        assert!(line.contains("\"kernels-gpu/src/") || line.contains("\"library/"), "{line}");
    }
}

#[test]
fn a_warning_stops_the_build_and_is_quoted() {
    let Some(result) = compile_in("warned", &format!("{KERNEL}\nfn forgotten() {{}}\n")) else { return };
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Compile { .. }));
    assert!(error.to_string().contains("function `forgotten` is never used"), "{error}");
}
