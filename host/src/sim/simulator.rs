//! The kernels of PTX texts on a simulated device.

use super::tensor_map;
use super::work::work;
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::parameters::{Parameters, bytes};
use crate::plan::{DevicePointers, Plan};
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::params::FwdParams;
use ptx_sim::{Counters, Device, Launch, LaunchError, Module, Options, ParseError, Report};
use std::fmt;

/// How far below [`Options::max_instructions`] the estimate for a launch must lie, so that only an endless kernel, and
/// no large problem, gets there.
const MARGIN: u64 = 10;

/// A simulated GPU with the kernels of PTX texts. It holds no memory of its own: every call begins with a fresh device,
/// and the same call gives the same answer and the same report.
pub struct Simulator {
    modules: Vec<Module>,
    spec: DeviceSpec,
    options: Options,
}

impl Simulator {
    /// The kernels of the PTX texts `ptx` on an L4, simulated by default options.
    ///
    /// # Errors
    /// [`Error::Ptx`] with the line that cannot be read, or holds an instruction that is not simulated.
    pub fn new(ptx: &[&str]) -> Result<Self> {
        let modules = ptx.iter().map(|text| Module::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { modules, spec: DeviceSpec::L4, options: Options::default() })
    }

    /// Plans for a device with these figures; see [`DeviceSpec::typical`].
    pub fn with_spec(self, spec: DeviceSpec) -> Self {
        Self { spec, ..self }
    }

    /// Simulates by these options. Problems whose [`work`] is above a tenth of `max_instructions` are refused.
    pub fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The figures that plans for this device need.
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    /// How launches are simulated.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The most [`work`] of a plan that is taken.
    pub fn max_work(&self) -> u64 {
        self.options.max_instructions / MARGIN
    }

    /// Refuses a plan that would be simulated for too long.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when its [`work`] is above [`Simulator::max_work`].
    pub fn check_work(&self, plan: &Plan) -> Result<()> {
        self.check_instructions(work(plan))
    }

    /// Refuses a launch of about `work` instructions of warps, if that is too much.
    pub(super) fn check_instructions(&self, work: u64) -> Result<()> {
        if work <= self.max_work() {
            return Ok(());
        }
        Err(Error::Unsupported {
            field: "problem",
            value: format!("about {work} instructions of warps in the simulator"),
            allowed: format!("at most {}", self.max_work()),
        })
    }

    /// Runs a plan to its end, and reports on its attention kernel, with the defects of the kernel before it. Nothing is
    /// launched where [`Plan::is_empty`].
    pub(super) fn launch(&self, device: &mut Device, plan: &Plan, pointers: &DevicePointers) -> Result<Report> {
        let (entry, fwd) = (Entry::Forward(plan.kernel), plan.bind(pointers)?);
        if plan.is_empty() {
            return Ok(nothing(entry.to_string(), plan.grid, [entry.threads(), 1, 1], self.options.seed));
        }
        let before = match plan.transposition(&fwd) {
            Some((grid, params)) => self.launch_entry(device, Entry::Transpose, grid, bytes(&params))?.findings,
            None => vec![],
        };
        let params = parameters(plan, fwd, pointers)?;
        let mut report = self.launch_entry(device, entry, plan.grid, params.bytes())?;
        report.findings.splice(0..0, before);
        report.findings.sort_by_key(|finding| finding.kind);
        Ok(report)
    }

    /// Runs a grid of an entry point to its end; an empty one takes no launch.
    pub(super) fn launch_entry(
        &self,
        device: &mut Device,
        entry: Entry,
        grid: [u32; 3],
        params: &[u8],
    ) -> Result<Report> {
        let (name, block) = (entry.to_string(), [entry.threads(), 1, 1]);
        if grid.contains(&0) {
            return Ok(nothing(name, grid, block, self.options.seed));
        }
        let Some(module) = self.modules.iter().find(|module| module.entries().any(|entry| entry == name)) else {
            return Err(Error::missing_kernel(&name, self.modules.iter().flat_map(Module::entries).count()));
        };
        let shared_bytes = entry.shared_bytes();
        let launch = Launch { entry: &name, grid, block, cluster: None, shared_bytes, params, options: self.options };
        Ok(device.launch(module, &launch)?)
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, options, .. } = self;
        f.debug_struct("Simulator").field("spec", spec).field("options", options).finish_non_exhaustive()
    }
}

impl From<ParseError> for Error {
    fn from(ParseError { line, message }: ParseError) -> Self {
        Self::Ptx { line, message }
    }
}

impl From<LaunchError> for Error {
    fn from(LaunchError { field, value, allowed }: LaunchError) -> Self {
        Self::Unsupported { field, value, allowed }
    }
}

/// What the attention kernel of a plan gets.
fn parameters(plan: &Plan, fwd: FwdParams, pointers: &DevicePointers) -> Result<Parameters> {
    plan.parameters(fwd, pointers, |[q, k, v, out]| {
        Ok([tensor_map::encode(q)?, tensor_map::encode(k)?, tensor_map::encode(v)?, tensor_map::encode(out)?])
    })
}

/// The report on a launch that did not have to be.
fn nothing(kernel: String, grid: [u32; 3], block: [u32; 3], seed: u64) -> Report {
    let total = Counters::default();
    Report { kernel, grid, block, seed, findings: vec![], total, lines: vec![], peak_shared: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Causal, Problem};
    use evo_sdpa_kernels::config::{DType, Kernel};
    use std::mem::offset_of;

    #[test]
    fn parameter_bytes_lie_where_the_kernel_reads_them() {
        let problem = Problem::contiguous(DType::F16, [2, 8, 2, 100, 300, 64]).with_causal(Some(Causal::BottomRight));
        let plan = Plan::new(&problem, &DeviceSpec::L4).unwrap();
        let pointers = DevicePointers { q: 16, k: 32, v: 48, out: 0x7_0000_0000, ..DevicePointers::default() };
        let params = plan.bind(&pointers).unwrap();
        let bytes = bytes(&params);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([offset_of!(FwdParams, k), offset_of!(FwdParams, v)].map(u64_at), [32, 48]);
        assert_eq!(u64_at(offset_of!(FwdParams, out)), 0x7_0000_0000);
        assert_eq!(u64_at(offset_of!(FwdParams, kv_head_reciprocal)), 1 << 30);
        assert_eq!([offset_of!(FwdParams, q_len), offset_of!(FwdParams, kv_len)].map(u32_at), [100, 300]);
        assert_eq!(u32_at(offset_of!(FwdParams, causal_offset)), 200);
        assert_eq!(u32_at(offset_of!(FwdParams, k_stride)), 2 * 300 * 64 * 2 / 16);
    }

    #[test]
    fn tensor_maps_come_first_and_the_order_of_tiles_last() {
        let problem = Problem::contiguous(DType::F16, [2, 80, 20, 100, 300, 64]);
        let kernel = Kernel::parse("fwd_sm90_f16_d64_q128_kv128_s3").unwrap();
        let plan = Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap();
        let pointers = DevicePointers { q: 1 << 20, k: 2 << 20, v: 3 << 20, out: 4 << 20, ..DevicePointers::default() };
        let fwd = plan.bind(&pointers).unwrap();
        let params = parameters(&plan, fwd, &pointers).unwrap();
        let bytes = params.bytes();
        let map = |address, rows, heads, tile_rows| {
            let (dims, strides) = ([64, rows, heads, 2], [128, 128 * rows, 128 * rows * heads]);
            ptx_sim::TensorMap::new(address, 2, &dims, &strides, &[64, tile_rows, 1, 1], ptx_sim::Swizzle::Bytes128)
        };
        let maps = [map(1 << 20, 100, 80, 128), map(2 << 20, 300, 20, 128), map(3 << 20, 300, 20, 128)];
        for (at, map) in maps.into_iter().chain([map(4 << 20, 100, 80, 64)]).enumerate() {
            assert_eq!(bytes[128 * at..128 * (at + 1)], map.unwrap().encode(), "map {at}");
        }
        assert_eq!(&bytes[512..688], super::bytes(&fwd));
        let tiles: Vec<_> = bytes[688..].chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(
            tiles,
            [160, 1, 1, 159, 1, 1],
            "all, of a slice, of a group, the last one and its slices, heads of a slice"
        );
    }
}
