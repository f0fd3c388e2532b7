//! Making a context current for a few driver calls, and the figures of its device.

use super::driver::driver;
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use cust::sys::{CUcontext, CUdevice, CUdevice_attribute};
use std::ptr;

/// While it lives, a context is current on this thread; then the one before it is again.
pub(super) struct Current {
    pushed: bool,
}

impl Current {
    /// Costs one look-up where `context` is current already.
    ///
    /// # Safety
    /// `context` is a context that exists, and goes on existing while the value lives.
    pub(super) unsafe fn enter(context: CUcontext) -> Result<Self> {
        let mut current = ptr::null_mut();
        // SAFETY: the driver writes one handle, null when there is none.
        unsafe { driver!(cuCtxGetCurrent(&mut current)) }?;
        let pushed = current != context;
        if pushed {
            // SAFETY: the caller vouches for the context.
            unsafe { driver!(cuCtxPushCurrent_v2(context)) }?;
        }
        Ok(Self { pushed })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = ptr::null_mut();
            // SAFETY: takes back the push of `enter`. A failure has nobody to go to.
            let _ = unsafe { driver!(cuCtxPopCurrent_v2(&mut popped)) };
        }
    }
}

/// The figures of the device of the current context.
pub(super) fn current_device_spec() -> Result<DeviceSpec> {
    let mut device = 0;
    // SAFETY: the driver writes one integer.
    unsafe { driver!(cuCtxGetDevice(&mut device)) }?;
    device_spec(device)
}

/// One figure of a device.
pub(super) fn device_attribute(device: CUdevice, attribute: CUdevice_attribute) -> Result<u32> {
    let mut value = 0;
    // SAFETY: the driver writes one integer, and refuses a device that is none.
    unsafe { driver!(cuDeviceGetAttribute(&mut value, attribute, device)) }?;
    u32::try_from(value)
        .map_err(|_| Error::Driver { call: "cuDeviceGetAttribute", message: format!("{value} for {attribute:?}") })
}

/// The figures of a device.
pub(super) fn device_spec(device: CUdevice) -> Result<DeviceSpec> {
    use CUdevice_attribute::*;
    let attribute = |attribute| device_attribute(device, attribute);
    Ok(DeviceSpec {
        compute_capability: attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? * 10
            + attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        sm_count: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_per_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_per_sm: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
    })
}
