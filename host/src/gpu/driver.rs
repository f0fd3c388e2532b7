//! What the driver answers, as an [`Error`].

use crate::error::{Error, Result};
use cust::sys::{self, CUresult};
use evo_sdpa_kernels::config::Kernel;
use evo_sdpa_kernels::entry::Entry;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

/// The first CUDA version whose driver loads the PTX version of an entry point, by its name.
pub(super) fn needed_cuda(entry: &str) -> &'static str {
    match Entry::parse(entry) {
        Some(Entry::Forward(Kernel::FwdSm90(_)) | Entry::Transpose) => "12.1",
        Some(Entry::Forward(Kernel::FwdFp8(_))) => "12.4",
        Some(Entry::TokenSums(_) | Entry::TokenMean | Entry::Amax(_) | Entry::Quantize(_)) => "12.4",
        _ => "11.5",
    }
}

/// `CUDA_ERROR_STUB_LIBRARY`.
pub(super) const STUB_LIBRARY: i32 = CUresult::CUDA_ERROR_STUB_LIBRARY as i32;
/// `CUDA_ERROR_NO_DEVICE`.
pub(super) const NO_DEVICE: i32 = CUresult::CUDA_ERROR_NO_DEVICE as i32;
/// `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
pub(super) const UNSUPPORTED_PTX_VERSION: i32 = CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION as i32;

/// Calls a driver function: `driver!(cuInit(0))?`. A failure is an [`Error::Driver`] that names the function.
macro_rules! driver {
    ($function:ident($($argument:expr),* $(,)?)) => {
        $crate::gpu::driver::check(stringify!($function), cust::sys::$function($($argument),*))
    };
}
pub(super) use driver;

/// The result of the driver function `call`.
pub(super) fn check(call: &'static str, result: CUresult) -> Result<()> {
    // As a number: newer drivers have codes that the enum does not name.
    match result as i32 {
        0 => Ok(()),
        _ => Err(Error::Driver { call, message: message(result) }),
    }
}

/// The name of an error code and what the driver says about it.
pub(super) fn message(result: CUresult) -> String {
    type Lookup = unsafe extern "C" fn(CUresult, *mut *const c_char) -> CUresult;
    let ask = |lookup: Lookup| {
        let mut text: *const c_char = ptr::null();
        // SAFETY: the driver writes the address of a static string, or null for a code that it does not know.
        let answer = unsafe { lookup(result, &mut text) };
        if answer as i32 != 0 || text.is_null() {
            return None;
        }
        // SAFETY: not null, so a static string that ends with a zero.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (ask(sys::cuGetErrorName), ask(sys::cuGetErrorString)) {
        (Some(name), Some(text)) => format!("{name} ({text})"),
        (Some(name), None) => name,
        _ if result as i32 == STUB_LIBRARY => "CUDA_ERROR_STUB_LIBRARY".into(),
        _ => format!("error code {}", result as i32),
    }
}

/// CUDA version that the driver supports, such as "12.4".
pub(super) fn version() -> Result<String> {
    version_number().map(version_text)
}

/// CUDA version that the driver supports, such as 12040 for 12.4.
pub(super) fn version_number() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { driver!(cuDriverGetVersion(&mut version)) }?;
    Ok(version)
}

/// The address of a driver function that cust's bindings are too old for, which the CUDA version `needed` brought, as the
/// driver counts and as users know it.
pub(super) fn newer_function(name: &CStr, (needed, needed_text): (i32, &'static str)) -> Result<*mut c_void> {
    let version = version_number()?;
    let mut address = ptr::null_mut();
    if version >= needed {
        // SAFETY: the name ends with a zero, and the driver writes one address.
        unsafe { driver!(cuGetProcAddress(name.as_ptr(), &mut address, needed, 0)) }?;
    }
    if address.is_null() {
        return Err(Error::DriverTooOld { found: version_text(version), needed: needed_text });
    }
    Ok(address)
}

/// A version as users know it.
pub(super) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_users_know_them() {
        assert_eq!(version_text(12040), "12.4");
        assert_eq!(version_text(13000), "13.0");
    }

    #[test]
    fn kernels_for_fp8_and_hopper_need_a_later_driver() {
        assert_eq!(needed_cuda("fwd_sm90_bf16_d128_q128_kv128_s2"), "12.1");
        assert_eq!(needed_cuda("fwd_fp8_bf16_d64_q64_kv64_w4_s2"), "12.4");
        assert_eq!(needed_cuda("fwd_sm80_bf16_d64_q128_kv64_w4_s2"), "11.5");
    }

    #[test]
    fn an_error_names_the_call_and_the_code() {
        let error = check("cuInit", CUresult::CUDA_ERROR_STUB_LIBRARY).unwrap_err().to_string();
        assert!(error.starts_with("cuInit: the driver answered CUDA_ERROR_STUB_LIBRARY"), "{error}");
    }
}
