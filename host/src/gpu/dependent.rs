//! Launches that may start before the one ahead of them on the stream has ended (programmatic dependent launch).
//!
//! cust's bindings are older than the driver function for it, which is asked for when it is first used.

use super::driver;
use super::function::{Function, Shape};
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use cust::sys::{CUfunction, CUresult, CUstream};
use std::ffi::c_void;
use std::mem::transmute;
use std::ptr;
use std::sync::OnceLock;

/// How a kernel is launched; the default is like any other launch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LaunchOptions {
    /// The launch need not wait for the one ahead of it on the stream: blocks start as soon as the device has room and
    /// the kernel ahead has let them, and each of them waits, before it touches memory, until all launches ahead have
    /// ended and what they wrote is visible. That hides the start of one launch behind the end of another.
    ///
    /// Whatever is ahead on the stream may have written the inputs, with one exception: a dependent launch of somebody
    /// else's whose kernel does not wait itself (`griddepcontrol.wait`) may end before what is ahead of *it*, and only
    /// its own end is waited for then.
    ///
    /// It needs compute capability 9.0 and a driver since CUDA 11.8; in a captured graph, where it becomes a
    /// programmatic edge, one since CUDA 12.3.
    pub dependent: bool,
}

/// The least compute capability with dependent launches, major * 10 + minor.
const NEEDED_CAPABILITY: u32 = 90;
/// The CUDA version that brought `cuLaunchKernelEx`, as the driver counts and as users know it.
const NEEDED_CUDA: (i32, &str) = (11_080, "11.8");
/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC_STREAM_SERIALIZATION: u32 = 6;

/// `CUlaunchConfig` of cuda.h.
#[repr(C)]
struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: CUstream,
    attributes: *const LaunchAttribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute` of cuda.h, whose value is a union of 64 bytes.
#[repr(C, align(8))]
struct LaunchAttribute {
    id: u32,
    padding: u32,
    value: [i32; 16],
}

type LaunchKernelEx =
    unsafe extern "C" fn(*const LaunchConfig, CUfunction, *mut *mut c_void, *mut *mut c_void) -> CUresult;

/// Whether a device and its driver know dependent launches.
///
/// # Errors
/// [`Error::Unsupported`] and [`Error::DriverTooOld`] when they do not.
pub(super) fn check(device: &DeviceSpec) -> Result<()> {
    if device.compute_capability < NEEDED_CAPABILITY {
        return Err(Error::Unsupported {
            field: "dependent",
            value: format!("true on compute capability {}", device.compute_capability),
            allowed: format!("true from compute capability {NEEDED_CAPABILITY} on, false"),
        });
    }
    launch_kernel_ex().map(drop)
}

/// Puts a dependent launch on `stream`. The driver copies the arguments before it returns.
///
/// # Safety
/// That of [`Function::launch`]. The function waits for launches ahead of it before it touches memory.
pub(super) unsafe fn launch(
    function: Function,
    shape: Shape,
    arguments: &mut [*mut c_void],
    stream: CUstream,
) -> Result<()> {
    let launch_kernel_ex = launch_kernel_ex()?;
    let mut value = [0; 16];
    value[0] = 1;
    let attribute = LaunchAttribute { id: PROGRAMMATIC_STREAM_SERIALIZATION, padding: 0, value };
    let config = LaunchConfig {
        grid: shape.grid,
        block: [shape.block, 1, 1],
        shared_bytes: shape.shared_bytes,
        stream,
        attributes: &attribute,
        attribute_count: 1,
    };
    // SAFETY: both structs are those of cuda.h and live through the call; the caller vouches for the rest.
    let result = unsafe { launch_kernel_ex(&config, function.handle(), arguments.as_mut_ptr(), ptr::null_mut()) };
    driver::check("cuLaunchKernelEx", result)
}

/// The driver's function. There is one driver in a process.
fn launch_kernel_ex() -> Result<LaunchKernelEx> {
    static FUNCTION: OnceLock<Result<LaunchKernelEx>> = OnceLock::new();
    let find = || {
        let address = driver::newer_function(c"cuLaunchKernelEx", NEEDED_CUDA)?;
        // SAFETY: the function of this name, whose type cuda.h gives.
        Ok(unsafe { transmute::<*mut c_void, LaunchKernelEx>(address) })
    };
    FUNCTION.get_or_init(find).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_structs_lie_as_in_the_c_header() {
        assert_eq!((size_of::<LaunchConfig>(), size_of::<LaunchAttribute>()), (56, 72));
        assert_eq!((offset_of!(LaunchConfig, stream), offset_of!(LaunchConfig, attribute_count)), (32, 48));
        assert_eq!(offset_of!(LaunchAttribute, value), 8);
    }

    #[test]
    fn a_device_before_hopper_is_refused_by_its_capability() {
        let error = check(&DeviceSpec::L4).unwrap_err().to_string();
        assert!(error.starts_with("dependent: true on compute capability 89 is not supported"), "{error}");
    }
}
