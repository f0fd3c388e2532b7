//! The kernels in a context of the caller's.

use super::context::{Current, current_device_spec};
use super::function::Function;
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::nvtx::Range;
use crate::plan::{DevicePointers, Plan};
use crate::ptx_text;
use cust::sys::{CUcontext, CUfunction_attribute, CUstream};
use evo_sdpa_kernels::config::Kernel;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};

/// The kernels of a PTX text in a CUDA context that is borrowed: it belongs to the caller and is never destroyed.
///
/// The driver compiles a kernel when it is first used, which takes a second or two unless the driver's own cache has
/// it; [`Kernels::prepare`] does it beforehand. Kernels stay loaded until the value is dropped. All methods may be
/// called from any thread, whatever context is current there.
pub struct Kernels {
    context: CUcontext,
    device: DeviceSpec,
    ptx: Box<str>,
    loaded: RwLock<HashMap<Kernel, Function>>,
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
    /// Blocks that one multiprocessor holds at a time.
    pub blocks_per_sm: u32,
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
    /// run; nothing else writes them, or reads `out`, `lse` and the workspace, in that time. Entries of the block table
    /// are pages of `k` for every key below the sequence's length; others are not looked at. The workspace is as
    /// [`DevicePointers::workspace`] says.
    pub unsafe fn launch(&self, plan: &Plan, pointers: &DevicePointers, stream: CUstream) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        let _range = Range::new(c"launch");
        let mut params = plan.bind(pointers)?;
        let _current = self.enter()?;
        let function = self.load(plan.kernel)?;
        let mut arguments = [(&raw mut params).cast()];
        // SAFETY: the function takes one FwdParams by value; the caller vouches for the stream and for what the
        // addresses point at.
        unsafe { function.launch(plan.grid, plan.block, plan.shared_bytes, &mut arguments, stream) }
    }

    /// What the driver made of `kernel`, which is loaded if it has not been.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`].
    pub fn resources(&self, kernel: Kernel) -> Result<Resources> {
        use CUfunction_attribute::*;
        let _current = self.enter()?;
        let function = self.load(kernel)?;
        let attribute = |which| function.attribute(which);
        Ok(Resources {
            registers: attribute(CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            local_bytes: attribute(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            static_shared_bytes: attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            dynamic_shared_bytes: kernel.shared_bytes(),
            max_threads: attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            ptx_version: attribute(CU_FUNC_ATTRIBUTE_PTX_VERSION)?,
            binary_version: attribute(CU_FUNC_ATTRIBUTE_BINARY_VERSION)?,
            blocks_per_sm: function.resident_blocks(kernel.threads(), kernel.shared_bytes())?,
        })
    }

    /// The text that the driver compiles for `kernel`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the PTX text does not hold the kernel.
    pub fn source(&self, kernel: Kernel) -> Result<String> {
        self.text(&kernel.to_string())
    }

    fn enter(&self) -> Result<Current> {
        // SAFETY: the context outlives `self`, says `in_context`.
        unsafe { Current::enter(self.context) }
    }

    fn find(&self, kernel: Kernel) -> Option<Function> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).get(&kernel).copied()
    }

    /// The loaded kernel. The context is current.
    fn load(&self, kernel: Kernel) -> Result<Function> {
        if let Some(function) = self.find(kernel) {
            return Ok(function);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = self.find(kernel) {
            return Ok(function);
        }
        let function = self.compile_kernel(kernel)?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).insert(kernel, function);
        Ok(function)
    }

    fn compile_kernel(&self, kernel: Kernel) -> Result<Function> {
        let _range = Range::new(c"compile");
        let dynamic = kernel.shared_bytes();
        self.check_shared(kernel, dynamic)?;
        let function = self.compile(&kernel.to_string())?;
        let prepare = || {
            let fixed = function.attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
            self.check_shared(kernel, fixed.saturating_add(dynamic))?;
            function.allow_shared(dynamic)
        };
        prepare().inspect_err(|_| function.unload())?;
        Ok(function)
    }

    /// The text with `entry` alone of all entry points.
    fn text(&self, entry: &str) -> Result<String> {
        let missing = || Error::missing_kernel(entry, ptx_text::entries(&self.ptx).count());
        ptx_text::single_entry(&self.ptx, entry).ok_or_else(missing)
    }

    /// Compiles an entry point of the PTX text. The context is current; the caller unloads what it gets.
    pub(super) fn compile(&self, entry: &str) -> Result<Function> {
        Function::compile(self.text(entry)?, entry)
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
            loaded.values().for_each(|function| function.unload());
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
