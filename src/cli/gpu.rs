//! The GPU, where the program is built with it.

#[cfg(feature = "gpu")]
pub use evo_sdpa::gpu::Gpu;
#[cfg(not(feature = "gpu"))]
pub use stand_in::Gpu;

use anyhow::Result;

/// The first GPU, with the kernels of `ptx` or the built-in ones, and the tuned table in force.
#[cfg(feature = "gpu")]
pub fn open(ptx: Option<&str>) -> Result<Gpu> {
    Ok(Gpu::open(0, ptx.as_ref().map_or(evo_sdpa::PTX, std::slice::from_ref))?.with_tuned(&evo_sdpa::tuned()?))
}

/// Says why there is none.
#[cfg(not(feature = "gpu"))]
pub fn open(_ptx: Option<&str>) -> Result<Gpu> {
    anyhow::bail!("no GPU can be used: built without the feature `gpu`")
}

/// A GPU that cannot exist, so that nothing else depends on the feature.
#[cfg(not(feature = "gpu"))]
mod stand_in {
    use evo_sdpa::{DeviceSpec, Element, Fp8, Kernel, Options, Plan, Problem, Result, TensorView, cpu};

    /// Has no values.
    pub enum Gpu {}

    /// Has none either.
    pub enum TimedCall {}

    impl Gpu {
        pub fn name(&self) -> &str {
            match *self {}
        }

        pub fn spec(&self) -> &DeviceSpec {
            match *self {}
        }

        pub fn plan(&self, _: &Problem, _: Option<Kernel>) -> Result<Plan> {
            match *self {}
        }

        pub fn attention_host<T: Element>(
            &self,
            _: TensorView<T>,
            _: TensorView<T>,
            _: TensorView<T>,
            _: &Options,
            _: Option<Kernel>,
        ) -> Result<(cpu::Output<T>, Plan)> {
            match *self {}
        }

        pub fn quantized_attention_host<T: Element, O: Element>(
            &self,
            _: [TensorView<T>; 3],
            _: Fp8,
            _: bool,
            _: &Options,
            _: Option<Kernel>,
        ) -> Result<(cpu::Output<O>, Plan)> {
            match *self {}
        }

        pub fn timed<T: Element>(
            &self,
            _: [TensorView<T>; 3],
            _: &Options,
            _: Option<Kernel>,
            _: bool,
        ) -> Result<TimedCall> {
            match *self {}
        }
    }

    impl TimedCall {
        pub fn device_us(&self, _: u32) -> Result<Vec<f64>> {
            match *self {}
        }
    }
}
