//! The simulator, as the command line asks for it.

use super::parse_arch;
use anyhow::Result;
use clap::Args;
use evo_sdpa::sim::ptx_sim::{Arch, Mma, Options, WarpOrder};
use evo_sdpa::{DeviceSpec, PTX, Simulator};

/// Options of the simulator.
#[derive(Args)]
pub struct SimArgs {
    /// Architecture to simulate: sm_80 (as an A100), sm_89 (as an L4, the default) or sm_90 (as an H200)
    #[arg(long, value_parser = parse_arch)]
    arch: Option<DeviceSpec>,
    /// Simulate the rounding of the architecture's tensor cores, which takes longer
    #[arg(long)]
    exact: bool,
    /// Simulate warps in an order drawn from this seed, in place of their own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SimArgs {
    /// The first option that is given.
    pub fn given(&self) -> Option<&'static str> {
        let options = [("arch", self.arch.is_some()), ("exact", self.exact), ("seed", self.seed.is_some())];
        options.into_iter().find(|&(_, given)| given).map(|(name, _)| name)
    }

    /// A simulator of the kernels of `ptx`, or of the built-in ones.
    pub fn open(&self, ptx: Option<&str>) -> Result<Simulator> {
        let spec = self.arch.unwrap_or(DeviceSpec::L4);
        let mut options = Options::default();
        if self.exact {
            options.mma = Mma::Exact(match spec.compute_capability {
                80 => Arch::Sm80,
                89 => Arch::Sm89,
                _ => Arch::Sm90,
            });
        }
        if let Some(seed) = self.seed {
            options.warp_order = WarpOrder::Random;
            options.seed = seed;
        }
        Ok(Simulator::new(ptx.as_ref().map_or(PTX, std::slice::from_ref))?.with_spec(spec).with_options(options))
    }
}
