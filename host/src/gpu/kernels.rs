//! The kernels in a context of the caller's.

use super::context::{Current, current_device_spec};
use super::dependent::{self, LaunchOptions};
use super::function::{Function, Shape};
use super::tensor_map::{self, LatestMaps};
use crate::device::DeviceSpec;
use crate::error::{Error, Result};
use crate::limits;
use crate::nvtx::Range;
use crate::parameters::bytes;
use crate::plan::{DevicePointers, Plan};
use crate::ptx_text;
use cust::sys::{CUcontext, CUfunction_attribute, CUstream};
use evo_sdpa_kernels::config::{FwdSm90, Kernel};
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::instances::ENTRIES;
use evo_sdpa_kernels::transpose::Transpose;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The kernels of PTX texts in a CUDA context that is borrowed: it belongs to the caller and is never destroyed.
///
/// The driver compiles a kernel when it is first used, which takes some tenths of a second unless the driver's own
/// cache has it; [`Kernels::prepare`] does it beforehand. Kernels stay loaded until the value is dropped. All methods may be
/// called from any thread, whatever context is current there.
pub struct Kernels {
    context: CUcontext,
    device: DeviceSpec,
    ptx: Box<[Box<str>]>,
    /// For each of [`ENTRIES`] the plain and the dependent variant.
    loaded: Box<[[OnceLock<Function>; 2]]>,
    /// Held while a kernel is compiled, so that no two threads compile the same one.
    loading: Mutex<()>,
    latest_maps: LatestMaps,
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
// SAFETY: as above.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// The kernels of the PTX texts `ptx` in `context`. Nothing is compiled yet. A kernel whose name is in several
    /// texts is that of the first.
    ///
    /// # Safety
    /// `context` is a CUDA context, and outlives the value.
    ///
    /// # Errors
    /// [`Error::Driver`] when the context is null or its device cannot be asked.
    pub unsafe fn in_context(context: CUcontext, ptx: &[&str]) -> Result<Self> {
        if context.is_null() {
            return Err(Error::Driver {
                call: "cuCtxPushCurrent_v2",
                message: "nothing, as the context is null".into(),
            });
        }
        // SAFETY: the caller vouches for the context.
        let _current = unsafe { Current::enter(context) }?;
        let device = current_device_spec()?;
        let loaded = ENTRIES.iter().map(|_| Default::default()).collect();
        let ptx = ptx.iter().map(|&text| text.into()).collect();
        let (loading, latest_maps) = (Mutex::default(), LatestMaps::default());
        Ok(Self { context, device, ptx, loaded, loading, latest_maps })
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
    /// [`Error::SharedMemory`] when the device has too little for it, [`Error::Unsupported`] when it is none of
    /// [`KERNELS`](crate::KERNELS), no PTX text holds it or its code is for other devices, [`Error::DriverTooOld`] when
    /// the driver does not know its PTX version, [`Error::Driver`] with the compiler's log when it does not compile.
    pub fn prepare(&self, kernel: Kernel) -> Result<()> {
        self.prepare_with(kernel, LaunchOptions::default())
    }

    /// [`Kernels::prepare`] for [`Kernels::launch_with`]: a dependent launch runs a variant of the kernel, which is
    /// compiled and loaded apart.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`], and [`Error::Unsupported`] and [`Error::DriverTooOld`] when the device or the
    /// driver does not know dependent launches.
    pub fn prepare_with(&self, kernel: Kernel, options: LaunchOptions) -> Result<()> {
        let _current = self.enter()?;
        self.load(Entry::Forward(kernel), limits::index(kernel), options)?;
        match kernel {
            Kernel::FwdSm90(FwdSm90 { e4m3: true, .. }) => self.load_entry(Entry::Transpose).map(drop),
            _ => Ok(()),
        }
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
        // SAFETY: the caller vouches for the same.
        unsafe { self.launch_with(plan, pointers, stream, LaunchOptions::default()) }
    }

    /// [`Kernels::launch`] in a way of the caller's choice, for which [`Kernels::prepare_with`] loads the kernel.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare_with`] and [`Kernels::launch`].
    ///
    /// # Safety
    /// That of [`Kernels::launch`]; what [`LaunchOptions::dependent`] says of the launch ahead on the stream holds.
    pub unsafe fn launch_with(
        &self,
        plan: &Plan,
        pointers: &DevicePointers,
        stream: CUstream,
        options: LaunchOptions,
    ) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        let _range = Range::new(c"launch");
        let fwd = plan.bind(pointers)?;
        let _current = self.enter()?;
        let function = self.load(Entry::Forward(plan.kernel), plan.index(), options)?;
        let params = plan.parameters(fwd, pointers, |tensors| self.latest_maps.of(tensors))?;
        if let Some((grid, params)) = plan.transposition(&fwd) {
            let shape = Shape { grid, block: Transpose::THREADS, shared_bytes: 0 };
            let mut arguments = [bytes(&params).as_ptr().cast_mut().cast()];
            // SAFETY: the function takes one TransposeParams by value; the caller vouches for the stream and for what
            // the addresses point at.
            unsafe { self.load_entry(Entry::Transpose)?.launch(shape, &mut arguments, stream) }?;
        }
        let shape = Shape { grid: plan.grid, block: plan.block, shared_bytes: plan.shared_bytes };
        // The driver copies the block, and writes nothing.
        let mut arguments = [params.bytes().as_ptr().cast_mut().cast()];
        // SAFETY: the function takes one block of the plan's parameters by value; the caller vouches for the stream and
        // for what the addresses point at; the dependent variant waits for launches ahead of it.
        unsafe {
            if options.dependent {
                dependent::launch(function, shape, &mut arguments, stream)
            } else {
                function.launch(shape, &mut arguments, stream)
            }
        }
    }

    /// The loaded entry point, which is no attention kernel. The context is current.
    pub(super) fn load_entry(&self, entry: Entry) -> Result<Function> {
        let row = ENTRIES.iter().position(|known| *known == entry);
        self.load(entry, row, LaunchOptions::default())
    }

    /// What the driver made of `kernel`, which is loaded if it has not been.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare`].
    pub fn resources(&self, kernel: Kernel) -> Result<Resources> {
        self.resources_with(kernel, LaunchOptions::default())
    }

    /// [`Kernels::resources`] of the variant that [`Kernels::launch_with`] runs.
    ///
    /// # Errors
    /// Those of [`Kernels::prepare_with`].
    pub fn resources_with(&self, kernel: Kernel, options: LaunchOptions) -> Result<Resources> {
        use CUfunction_attribute::*;
        let _current = self.enter()?;
        let function = self.load(Entry::Forward(kernel), limits::index(kernel), options)?;
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
    /// [`Error::Unsupported`] when no PTX text holds the kernel.
    pub fn source(&self, kernel: Kernel) -> Result<String> {
        self.source_with(kernel, LaunchOptions::default())
    }

    /// [`Kernels::source`] of the variant that [`Kernels::launch_with`] runs.
    ///
    /// # Errors
    /// Those of [`Kernels::source`], and [`Error::Unsupported`] when the text cannot be made dependent.
    pub fn source_with(&self, kernel: Kernel, options: LaunchOptions) -> Result<String> {
        self.entry_source(Entry::Forward(kernel), options)
    }

    fn entry_source(&self, entry: Entry, options: LaunchOptions) -> Result<String> {
        let text = self.text(&entry.to_string())?;
        if options.dependent { ptx_text::dependent(&text) } else { Ok(text) }
    }

    pub(super) fn enter(&self) -> Result<Current> {
        // SAFETY: the context outlives `self`, says `in_context`.
        unsafe { Current::enter(self.context) }
    }

    /// The loaded entry point, which is in this row of [`ENTRIES`]; those of attention kernels are in the same row of
    /// [`KERNELS`](crate::KERNELS). The context is current.
    pub(super) fn load(&self, entry: Entry, row: Option<usize>, options: LaunchOptions) -> Result<Function> {
        let slot = row.map(|row| &self.loaded[row][usize::from(options.dependent)]);
        match slot.and_then(OnceLock::get) {
            Some(&function) => Ok(function),
            None => self.load_first(entry, slot, options),
        }
    }

    #[cold]
    fn load_first(&self, entry: Entry, slot: Option<&OnceLock<Function>>, options: LaunchOptions) -> Result<Function> {
        if let Entry::Forward(kernel) = entry
            && !self.device.runs(kernel)
        {
            return Err(limits::other_device(&kernel, &self.device));
        }
        self.check_shared(entry, entry.shared_bytes())?;
        let slot = slot.ok_or_else(|| limits::not_among_kernels(entry))?;
        if options.dependent {
            dependent::check(&self.device)?;
        }
        if let Entry::Forward(Kernel::FwdSm90(_)) = entry {
            tensor_map::check()?;
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = slot.get() {
            return Ok(function);
        }
        let function = self.compile_entry(entry, options)?;
        Ok(*slot.get_or_init(|| function))
    }

    fn compile_entry(&self, entry: Entry, options: LaunchOptions) -> Result<Function> {
        let _range = Range::new(c"compile");
        let dynamic = entry.shared_bytes();
        let function = Function::compile(self.entry_source(entry, options)?, &entry.to_string())?;
        let prepare = || {
            let fixed = function.attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
            self.check_shared(entry, fixed.saturating_add(dynamic))?;
            function.allow_shared(dynamic)
        };
        prepare().inspect_err(|_| function.unload())?;
        Ok(function)
    }

    /// The text with `entry` alone of all entry points.
    fn text(&self, entry: &str) -> Result<String> {
        let missing = || Error::missing_kernel(entry, self.ptx.iter().flat_map(|text| ptx_text::entries(text)).count());
        self.ptx.iter().find_map(|text| ptx_text::single_entry(text, entry)).ok_or_else(missing)
    }

    /// Compiles an entry point of the PTX texts. The context is current; the caller unloads what it gets.
    pub(super) fn compile(&self, entry: &str) -> Result<Function> {
        Function::compile(self.text(entry)?, entry)
    }

    fn check_shared(&self, entry: Entry, needed: u32) -> Result<()> {
        let available = self.device.shared_per_block;
        if needed <= available {
            return Ok(());
        }
        Err(Error::SharedMemory { kernel: entry.to_string(), needed, available })
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        // SAFETY: the context outlives `self`, says `in_context`.
        if let Ok(_current) = unsafe { Current::enter(self.context) } {
            self.loaded.iter().flatten().filter_map(OnceLock::get).for_each(|function| function.unload());
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_loaded = |(_, variants): &(_, &[OnceLock<_>; 2])| variants.iter().any(|slot| slot.get().is_some());
        let loaded = ENTRIES.iter().zip(&self.loaded).filter(is_loaded);
        let names: Vec<_> = loaded.map(|(entry, _)| entry.to_string()).collect();
        f.debug_struct("Kernels").field("device", &self.device).field("loaded", &names).finish_non_exhaustive()
    }
}
