//! An entry point of a PTX text, compiled into a context.

use super::driver::{self, driver};
use crate::error::{Error, Result};
use cust::sys::{self, CUfunction, CUfunction_attribute, CUjit_option, CUmodule, CUstream};
use std::ffi::{CString, c_void};
use std::ptr;

/// Bytes for what the driver's compiler has to say about a text that it refuses.
const LOG_BYTES: usize = 16 << 10;

/// An entry point in a module of its own. Whoever compiled it unloads it, and keeps its context current around every
/// call.
#[derive(Clone, Copy)]
pub(super) struct Function {
    module: CUmodule,
    handle: CUfunction,
}

/// The blocks of a launch.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Blocks along x, y and z.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub(super) shared_bytes: u32,
}

// SAFETY: the driver's handles may be used from any thread, and from several at once.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    /// Compiles `ptx`, which holds `entry`, into the current context.
    pub(super) fn compile(ptx: String, entry: &str) -> Result<Self> {
        let module = load_module(entry, ptx)?;
        let handle = module_function(module, entry).inspect_err(|_| unload(module))?;
        Ok(Self { module, handle })
    }

    /// What the driver says about it.
    pub(super) fn attribute(self, attribute: CUfunction_attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the function is one of a loaded module; the driver writes one integer.
        unsafe { driver!(cuFuncGetAttribute(&mut value, attribute, self.handle)) }?;
        Ok(value.max(0) as u32)
    }

    /// Lets a launch ask for up to `bytes` of dynamic shared memory.
    pub(super) fn allow_shared(self, bytes: u32) -> Result<()> {
        let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is one of a loaded module; the driver checks the value, which is below 2^31.
        unsafe { driver!(cuFuncSetAttribute(self.handle, limit, bytes as i32)) }
    }

    /// Blocks of `threads` with `shared_bytes` of dynamic shared memory that one multiprocessor holds at a time.
    pub(super) fn resident_blocks(self, threads: u32, shared_bytes: u32) -> Result<u32> {
        let mut blocks = 0;
        // SAFETY: the function is one of a loaded module; the driver writes one integer.
        unsafe {
            driver!(cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut blocks,
                self.handle,
                threads as i32,
                shared_bytes as usize
            ))
        }?;
        Ok(blocks.max(0) as u32)
    }

    /// Puts a launch on `stream`. The driver copies the arguments before it returns.
    ///
    /// # Safety
    /// `stream` belongs to the function's context. `arguments` point at one value for each parameter of the entry
    /// point, of its type, and with these values and this shape it is sound to run.
    pub(super) unsafe fn launch(self, shape: Shape, arguments: &mut [*mut c_void], stream: CUstream) -> Result<()> {
        let Shape { grid: [x, y, z], block, shared_bytes } = shape;
        let arguments = arguments.as_mut_ptr();
        // SAFETY: the function is one of a loaded module, and the caller vouches for the rest.
        unsafe {
            driver!(cuLaunchKernel(self.handle, x, y, z, block, 1, 1, shared_bytes, stream, arguments, ptr::null_mut()))
        }
    }

    /// The driver's handle.
    pub(super) fn handle(self) -> CUfunction {
        self.handle
    }

    /// Unloads it from the current context; no copy of the value is used again.
    pub(super) fn unload(self) {
        unload(self.module);
    }
}

/// Compiles the PTX text of one entry point into the current context.
fn load_module(name: &str, ptx: String) -> Result<CUmodule> {
    let refused = |message| Error::Driver { call: "cuModuleLoadDataEx", message };
    let image = CString::new(ptx).map_err(|_| refused("nothing, as the PTX text holds a zero byte".into()))?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // A number that fits a pointer is passed as one.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
    let mut module = ptr::null_mut();
    // SAFETY: the image ends with a zero; options and values have the same length; the log has the length that is said.
    let result = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match result as i32 {
        0 => Ok(module),
        driver::UNSUPPORTED_PTX_VERSION => {
            Err(Error::DriverTooOld { found: driver::version()?, needed: driver::needed_cuda(name) })
        }
        _ => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            Err(refused(format!("{} for {name}: {}", driver::message(result), log.trim())))
        }
    }
}

fn module_function(module: CUmodule, name: &str) -> Result<CUfunction> {
    // The names of entry points have no zero byte.
    let symbol = CString::new(name).unwrap_or_default();
    let mut function = ptr::null_mut();
    // SAFETY: the module is loaded, the name ends with a zero, the driver writes one handle.
    unsafe { driver!(cuModuleGetFunction(&mut function, module, symbol.as_ptr())) }?;
    Ok(function)
}

/// Unloads a module of the current context. A failure has nobody to go to.
fn unload(module: CUmodule) {
    // SAFETY: the module was loaded, and nobody keeps a function of it.
    let _ = unsafe { driver!(cuModuleUnload(module)) };
}
