//! A GPU of one's own.

use super::context::{device_attribute, device_spec};
use super::driver::{self, driver};
use super::kernels::Kernels;
use super::session::{Memory, Session};
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::problem::Problem;
use crate::tuned::{Tuned, TunedKernels};
use cust::sys::{self, CUdevice, CUdevice_attribute, CUstream};
use evo_sdpa_kernels::config::Kernel;
use std::ffi::CStr;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The least compute capability that the kernels run on, major * 10 + minor.
const NEEDED_CAPABILITY: u32 = 80;
/// Bytes for a device's name; names are well below.
const NAME_BYTES: usize = 256;

/// A device's primary context, a stream in it and the kernels: all that is needed where nobody else has set up CUDA.
///
/// Calls put their work on one stream; tensors keep the context alive when they outlive the value.
pub struct Gpu {
    // Dropped first: the kernels need the context.
    kernels: Kernels,
    pub(super) session: Arc<Session>,
    /// The workspace of whole calls.
    pub(super) workspace: Mutex<Option<Arc<Memory>>>,
    name: String,
    driver_version: String,
    pub(super) tuned: TunedKernels,
}

impl Gpu {
    /// The device with this ordinal, as the driver counts, and the kernels of the PTX texts `ptx`. None is compiled
    /// yet.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is no driver, no such device, or one below compute capability 8.0;
    /// [`Error::Driver`] when the driver refuses a context.
    pub fn open(ordinal: u32, ptx: &[&str]) -> Result<Self> {
        let device = find_device(ordinal)?;
        let name = device_name(device)?;
        let spec = device_spec(device)?;
        if spec.compute_capability < NEEDED_CAPABILITY {
            let capability = |value: u32| format!("{}.{}", value / 10, value % 10);
            return Err(no_device(format!(
                "device {ordinal}, {name}, has compute capability {}, the kernels need {} or later",
                capability(spec.compute_capability),
                capability(NEEDED_CAPABILITY)
            )));
        }
        let driver_version = driver::version()?;
        let session = Arc::new(Session::new(device)?);
        // SAFETY: the session retains the context, and is dropped after the kernels.
        let kernels = unsafe { Kernels::in_context(session.context(), ptx) }?;
        let tuned = TunedKernels::default();
        Ok(Self { kernels, session, workspace: Mutex::default(), name, driver_version, tuned })
    }

    /// The same, which plans by what `tuned` has for this device.
    #[must_use]
    pub fn with_tuned(self, tuned: &Tuned) -> Self {
        Self { tuned: tuned.kernels(&self.name), ..self }
    }

    /// The plan for a problem: [`Plan::choose`] with the table of [`Gpu::with_tuned`].
    ///
    /// # Errors
    /// Those of [`Plan::choose`].
    pub fn plan(&self, problem: &Problem, kernel: Option<Kernel>) -> Result<Plan> {
        Plan::choose(problem, self.spec(), &self.tuned, kernel)
    }

    /// The device's name, such as "NVIDIA L4".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The figures that plans for this device need.
    pub fn spec(&self) -> &DeviceSpec {
        self.kernels.device()
    }

    /// CUDA version that the driver supports, such as "12.4".
    pub fn driver_version(&self) -> &str {
        &self.driver_version
    }

    /// Where the device sits, such as "0000:17:00.0": what tells it apart for other libraries.
    ///
    /// # Errors
    /// [`Error::Driver`] when the driver does not say.
    pub fn pci_bus_id(&self) -> Result<String> {
        let mut text = [0u8; NAME_BYTES];
        // SAFETY: the driver writes at most that many bytes, a zero at the end.
        unsafe { driver!(cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), NAME_BYTES as i32, self.session.device())) }?;
        Ok(text_until_zero(&text))
    }

    /// Second-level cache of the device, bytes.
    ///
    /// # Errors
    /// [`Error::Driver`] when the driver does not say.
    pub fn l2_bytes(&self) -> Result<u64> {
        let bytes = device_attribute(self.session.device(), CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        Ok(bytes.into())
    }

    /// The kernels, in the device's primary context.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The stream that all calls use. It does not wait for the default stream, and lives as long as the value.
    pub fn stream(&self) -> CUstream {
        self.session.stream()
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// [`Error::Driver`], also for a failure of an earlier launch.
    pub fn synchronize(&self) -> Result<()> {
        self.session.synchronize()
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernels, name, driver_version, .. } = self;
        f.debug_struct("Gpu")
            .field("name", name)
            .field("driver_version", driver_version)
            .field("kernels", kernels)
            .finish_non_exhaustive()
    }
}

fn no_device(reason: String) -> Error {
    Error::NoDevice { reason }
}

fn find_device(ordinal: u32) -> Result<CUdevice> {
    // SAFETY: takes a number that has to be 0.
    let result = unsafe { sys::cuInit(0) };
    match result as i32 {
        0 => {}
        driver::STUB_LIBRARY => {
            return Err(no_device("a stand-in was loaded as libcuda.so.1, so there is no NVIDIA driver here".into()));
        }
        driver::NO_DEVICE => return Err(no_device("the driver finds none".into())),
        _ => return Err(no_device(format!("the driver does not start, it answers {}", driver::message(result)))),
    }
    let mut count = 0;
    // SAFETY: the driver writes one integer.
    unsafe { driver!(cuDeviceGetCount(&mut count)) }?;
    match i32::try_from(ordinal) {
        Ok(ordinal) if ordinal < count => {
            let mut device = 0;
            // SAFETY: the driver writes one integer.
            unsafe { driver!(cuDeviceGet(&mut device, ordinal)) }?;
            Ok(device)
        }
        _ => Err(no_device(format!("device {ordinal} was asked for, the driver counts {count} from 0"))),
    }
}

fn device_name(device: CUdevice) -> Result<String> {
    let mut name = [0u8; NAME_BYTES];
    // SAFETY: the driver writes at most that many bytes, a zero at the end.
    unsafe { driver!(cuDeviceGetName(name.as_mut_ptr().cast(), NAME_BYTES as i32, device)) }?;
    Ok(text_until_zero(&name))
}

fn text_until_zero(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
}
