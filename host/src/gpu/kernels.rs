//! The kernels in a context of the caller's.

use super::context::{Current, current_device_spec};
use super::driver::{self, driver};
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::nvtx::Range;
use crate::plan::{DevicePointers, Plan};
use crate::ptx_text;
use cust::sys::{self, CUcontext, CUfunction, CUfunction_attribute, CUjit_option, CUmodule, CUstream};
use evo_sdpa_kernels::config::Kernel;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr;
use std::sync::{Mutex, PoisonError, RwLock};

/// Bytes for what the driver's compiler has to say about a kernel that it refuses.
const LOG_BYTES: usize = 16 << 10;

/// The kernels of a PTX text in a CUDA context that is borrowed: it belongs to the caller and is never destroyed.
///
/// The driver compiles a kernel when it is first used, which takes a second or two unless the driver's own cache has
/// it; [`Kernels::prepare`] does it beforehand. Kernels stay loaded until the value is dropped. All methods may be
/// called from any thread, whatever context is current there.
pub struct Kernels {
    context: CUcontext,
    device: DeviceSpec,
    ptx: Box<str>,
    loaded: RwLock<HashMap<Kernel, Loaded>>,
    /// Held while a kernel is compiled, so that no two threads compile the same one.
    loading: Mutex<()>,
}

/// What the driver made of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a thread, bytes: spills and stack. 0 for every kernel that ships.
    pub local_bytes: u32,
    /// Shared memory of a block that is part of the kernel, bytes.
    pub static_shared_bytes: u32,
    /// Shared memory of a block that the launch asks for, bytes.
    pub dynamic_shared_bytes: u32,
    /// Threads that a block may have at most.
    pub max_threads: u32,
    /// PTX instruction set that the text was made for, major * 10 + minor of the compute capability.
    pub ptx_version: u32,
    /// Compute capability of the machine code, major * 10 + minor.
    pub binary_version: u32,
}

#[derive(Clone, Copy)]
struct Loaded {
    module: CUmodule,
    function: CUfunction,
}

// SAFETY: the driver's handles may be used from any thread, and from several at once.
unsafe impl Send for Kernels {}
// SAFETY: as above; the maps are behind locks.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// The kernels of `ptx` in `context`. Nothing is compiled yet.
    ///
    /// # Safety
    /// `context` is a CUDA context, and outlives the value.
    ///
    /// # Errors
    /// [`Error::Driver`] when the context is null or its device cannot be asked.
    pub unsafe fn in_context(context: CUcontext, ptx: &str) -> Result<Self> {
        if context.is_null() {
            return Err(Error::Driver {
                call: "cuCtxPushCurrent_v2",
                message: "nothing, as the context is null".into(),
            });
        }
        // SAFETY: the caller vouches for the context.
        let _current = unsafe { Current::enter(context) }?;
        let device = current_device_spec()?;
        Ok(Self { context, device, ptx: ptx.into(), loaded: RwLock::default(), loading: Mutex::default() })
    }

    /// The figures of the context's device.
    pub fn device(&self) -> &DeviceSpec {
        &self.device
    }

    /// Compiles and loads `kernel`, unless that has been done.
    ///
    /// Loading may synchronise and allocate, so it must come before the kernel's first launch into a CUDA graph that
    /// is being captured.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when the device has too little for it, [`Error::Unsupported`] when the PTX text does not
    /// hold the kernel, [`Error::DriverTooOld`] when the driver does not know its PTX version, [`Error::Driver`] with
    /// the compiler's log when it does not compile.
    pub fn prepare(&self, kernel: Kernel) -> Result<()> {
        self.enter().and_then(|_current| self.load(kernel)).map(drop)
    }

    /// Puts the launch of `plan` on `stream` (null for the default stream) and returns.
    ///
    /// It allocates nothing on the device, does not synchronise and can be captured in a CUDA graph, provided that
    /// [`Kernels::prepare`] has loaded the kernel. Nothing is launched where [`Plan::is_empty`].
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`] and [`Plan::bind`], and [`Error::Driver`] when the driver refuses the launch. An
    /// earlier failure on the device, somebody else's too, can show here.
    ///
    /// # Safety
    /// `stream` belongs to the borrowed context. `pointers` are addresses in device memory that the context can
    /// reach; behind them lie tensors of the plan's shapes, strides and type, which stay there until the launch has
    /// run; nothing else writes them, or reads `out` and `lse`, in that time.
    pub unsafe fn launch(&self, plan: &Plan, pointers: &DevicePointers, stream: CUstream) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        let _range = Range::new(c"launch");
        let mut params = plan.bind(pointers)?;
        let _current = self.enter()?;
        let Loaded { function, .. } = self.load(plan.kernel)?;
        let mut arguments = [(&raw mut params).cast::<c_void>()];
        let [x, y, z] = plan.grid;
        // SAFETY: the function takes one FwdParams by value, which the driver copies before it returns; the caller
        // vouches for the stream and for what the addresses point at.
        unsafe {
            driver!(cuLaunchKernel(
                function,
                x,
                y,
                z,
                plan.block,
                1,
                1,
                plan.shared_bytes,
                stream,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            ))
        }
    }

    /// What the driver made of `kernel`, which is loaded if it has not been.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`].
    pub fn resources(&self, kernel: Kernel) -> Result<Resources> {
        use CUfunction_attribute::*;
        let _current = self.enter()?;
        let Loaded { function, .. } = self.load(kernel)?;
        let attribute = |which| function_attribute(function, which);
        Ok(Resources {
            registers: attribute(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            static_shared_bytes: attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            dynamic_shared_bytes: kernel.shared_bytes(),
            max_threads: attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            ptx_version: attribute(CU_FUNC_ATTRIBUTE_PTX_VERSION)?,
            binary_version: attribute(CU_FUNC_ATTRIBUTE_BINARY_VERSION)?,
        })
    }

    fn enter(&self) -> Result<Current> {
        // SAFETY: the context outlives `self`, says `in_context`.
        unsafe { Current::enter(self.context) }
    }

    fn find(&self, kernel: Kernel) -> Option<Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(&kernel).copied()
    }

    /// The loaded kernel. The context is current.
    fn load(&self, kernel: Kernel) -> Result<Loaded> {
        if let Some(loaded) = self.find(kernel) {
            return Ok(loaded);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.find(kernel) {
            return Ok(loaded);
        }
        let loaded = self.compile(kernel)?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(kernel, loaded);
        Ok(loaded)
    }

    fn compile(&self, kernel: Kernel) -> Result<Loaded> {
        let _range = Range::new(c"compile");
        let dynamic = kernel.shared_bytes();
        self.check_shared(kernel, dynamic)?;
        let name = kernel.to_string();
        let missing = || Error::missing_kernel(kernel, ptx_text::entries(&self.ptx).count());
        let text = ptx_text::single_entry(&self.ptx, &name).ok_or_else(missing)?;
        let module = load_module(&name, text)?;
        let prepare = || {
            let function = module_function(module, &name)?;
            let fixed = function_attribute(function, CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
            self.check_shared(kernel, fixed.saturating_add(dynamic))?;
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is one of a loaded module; the driver checks the value, which is below 2^31.
            unsafe { driver!(cuFuncSetAttribute(function, limit, dynamic as i32)) }?;
            Ok(Loaded { module, function })
        };
        prepare().inspect_err(|_| unload(module))
    }

    fn check_shared(&self, kernel: Kernel, needed: u32) -> Result<()> {
        let available = self.device.shared_per_block;
        if needed <= available {
            return Ok(());
        }
        Err(Error::SharedMemory { kernel: kernel.to_string(), needed, available })
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the context outlives `self`, says `in_context`.
        if let Ok(_current) = unsafe { Current::enter(self.context) } {
            loaded.values().for_each(|kernel| unload(kernel.module));
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<_> = loaded.keys().map(Kernel::to_string).collect();
        f.debug_struct("Kernels").field("device", &self.device).field("loaded", &names).finish_non_exhaustive()
    }
}

/// Compiles the PTX text of one kernel into the current context.
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
            Err(Error::DriverTooOld { found: driver::version()?, needed: driver::NEEDED_CUDA })
        }
        _ => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]);
            Err(refused(format!("{} for {name}: {}", driver::message(result), log.trim())))
        }
    }
}

fn module_function(module: CUmodule, name: &str) -> Result<CUfunction> {
    // The names of kernels have no zero byte.
    let symbol = CString::new(name).unwrap_or_default();
    let mut function = ptr::null_mut();
    // SAFETY: the module is loaded, the name ends with a zero, the driver writes one handle.
    unsafe { driver!(cuModuleGetFunction(&mut function, module, symbol.as_ptr())) }?;
    Ok(function)
}

fn function_attribute(function: CUfunction, attribute: CUfunction_attribute) -> Result<u32> {
    let mut value = 0;
    // SAFETY: the function is one of a loaded module; the driver writes one integer.
    unsafe { driver!(cuFuncGetAttribute(&mut value, attribute, function)) }?;
    Ok(value.max(0) as u32)
}

/// Unloads a module of the current context. A failure has nobody to go to.
fn unload(module: CUmodule) {
    // SAFETY: the module was loaded, and nobody keeps a function of it.
    let _ = unsafe { driver!(cuModuleUnload(module)) };
}
