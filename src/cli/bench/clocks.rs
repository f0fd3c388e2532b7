//! Clocks and power of the GPU, through the management library that comes with the driver.

use crate::cli::record;
use evo_sdpa::gpu::Gpu;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

/// Reads the state of one GPU, or nothing where the library is missing.
pub struct Clocks {
    library: Option<(Nvml, String)>,
}

impl Clocks {
    /// The reader for this GPU.
    pub fn of(gpu: &Gpu) -> Self {
        let library = Nvml::init().ok().zip(gpu.pci_bus_id().ok());
        Self { library }
    }

    /// Version of the driver.
    pub fn driver(&self) -> Option<String> {
        self.library.as_ref()?.0.sys_driver_version().ok()
    }

    /// The state at this moment.
    pub fn read(&self) -> Option<record::Clocks> {
        let (nvml, bus) = self.library.as_ref()?;
        Self::read_from(nvml, bus).ok()
    }

    fn read_from(nvml: &Nvml, bus: &str) -> Result<record::Clocks, NvmlError> {
        let device = nvml.device_by_pci_bus_id(bus)?;
        Ok(record::Clocks {
            sm_mhz: device.clock_info(Clock::SM)?,
            memory_mhz: device.clock_info(Clock::Memory)?,
            power_w: f64::from(device.power_usage()?) / 1e3,
            temperature_c: device.temperature(TemperatureSensor::Gpu)?,
        })
    }
}
