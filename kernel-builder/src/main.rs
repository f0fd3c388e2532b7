//! `kernel-builder build` writes `ptx/`, `kernel-builder check` compares it with a fresh build.

use evo_sdpa_kernel_builder::{
    Error, Manifest, Output, Ptxas, Toolchain, Verdict, build, check, measure, measure_as_driver, refuse_growth,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Compiles the kernels of evo-sdpa to PTX and checks the result. Run it inside the workspace.

usage: kernel-builder build [--accept]    compile kernels-gpu and write ptx/; with --accept also where main loops grew
       kernel-builder check               compile kernels-gpu and compare with ptx/

EVO_SDPA_DEVICE_RUSTC   the compiler to use; else Debian's, else rustup's 1.96
PTXAS                   the ptxas to use; else the one in target/cuda-tools, else that of PATH
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let command: fn(&Places) -> Result<(), Error> = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["build"] => |places| build_ptx(places, false),
        ["build", "--accept"] => |places| build_ptx(places, true),
        ["check"] => check_ptx,
        ["-h" | "--help" | "help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let Some(root) = workspace_root() else {
        eprintln!("error: no folder above this one holds kernels-gpu/src; run kernel-builder inside the workspace");
        return ExitCode::FAILURE;
    };
    match command(&Places::of(&root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The nearest folder, from the current one upwards, that holds the kernels.
fn workspace_root() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().find(|folder| folder.join("kernels-gpu/src").is_dir()).map(Path::to_owned)
}

/// The folders of the workspace that matter here.
struct Places {
    kernels: PathBuf,
    ptx: PathBuf,
    scratch: PathBuf,
    tools: PathBuf,
    driver_tools: PathBuf,
}

impl Places {
    fn of(root: &Path) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self {
            kernels: root.join("kernels-gpu/src"),
            ptx: root.join("ptx"),
            scratch: target.join("device"),
            tools: root.join("target/cuda-tools"),
            driver_tools: root.join("target/cuda-tools-13.0"),
        }
    }

    /// A fresh build, measured where there is a ptxas.
    fn fresh(&self) -> Result<Output, Error> {
        let toolchain = Toolchain::find()?;
        println!("compiler: {} ({})", toolchain.rustc.display(), toolchain.version);
        let mut output = build(&toolchain, &self.kernels, &self.scratch)?;
        for (name, file) in &output.manifest.files {
            println!("{name}: {} bytes", file.bytes);
        }
        match Ptxas::find(&self.tools) {
            Some(ptxas) => {
                println!("ptxas: {}", ptxas.version);
                if ptxas.nvdisasm.is_none() {
                    println!("nvdisasm: none beside it (PyPI: nvidia-cuda-nvdisasm), so main loops are not checked");
                }
                measure(&mut output, &ptxas, &self.scratch)?;
            }
            None => println!("ptxas: none found (PyPI: nvidia-cuda-nvcc), so registers and spills are not checked"),
        }
        match Ptxas::packaged(&self.driver_tools) {
            Some(ptxas) => {
                println!("ptxas as in drivers: {}", ptxas.version);
                measure_as_driver(&output, &ptxas, &self.scratch)?;
            }
            None => println!("ptxas as in drivers: none in {}, so it is not asked", self.driver_tools.display()),
        }
        Ok(output)
    }
}

/// With `accept`, main loops may have grown.
fn build_ptx(places: &Places, accept: bool) -> Result<(), Error> {
    let mut output = places.fresh()?;
    if output.manifest.ptxas.is_none() {
        if let Ok(old) = Output::read(&places.ptx) {
            output = output.with_resources_of(&old);
        }
        let kept = output.manifest.ptxas.is_some();
        println!("resources in the manifest: {}", if kept { "kept, as the text is the same" } else { "left out" });
    }
    if !accept && places.ptx.join(Manifest::FILE).exists() {
        let old = Manifest::read(&places.ptx).map_err(|error| Error::Uncompared { why: error.to_string() })?;
        refuse_growth(&old, &output.manifest)?;
    }
    output.write(&places.ptx)?;
    println!("wrote {} entry points to {}", output.manifest.entries.len(), places.ptx.display());
    Ok(())
}

fn check_ptx(places: &Places) -> Result<(), Error> {
    let shipped = Output::read(&places.ptx)?;
    if !shipped.is_built_from(&places.kernels)? {
        return Err(Error::Stale(places.ptx.join("manifest.json")));
    }
    shipped.pass_gates()?;
    let fresh = places.fresh()?;
    match check(&shipped, &fresh)? {
        Verdict::Identical => println!("ptx/ is what this compiler makes of the kernels, byte for byte"),
        Verdict::OtherCompiler => println!(
            "ptx/ was made by {}; what this compiler makes of the kernels passes every gate",
            shipped.manifest.compiler
        ),
    }
    Ok(())
}
