//! The profiler that listens to ranges, by the protocol of NVTX version 3.
//!
//! It is that of NVIDIA's C headers (github.com/NVIDIA/NVTX, `nvToolsExt.h`, `nvtxDetail/nvtxTypes.h` and `nvtxInit.h`):
//! a profiler names its library in the environment; the library's entry point gets a function that hands out tables, and
//! writes its own functions where the tables point to. NVIDIA's crate would do the same, and needs libclang to build.

use libloading::Library;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::mem::{self, transmute_copy};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The variable in which a profiler names its library.
const LIBRARY: &str = if size_of::<usize>() == 4 { "NVTX_INJECTION32_PATH" } else { "NVTX_INJECTION64_PATH" };
/// Its entry point.
const ENTRY: &[u8] = b"InitializeInjectionNvtx2\0";
/// `NVTX_VERSION`.
const VERSION: u16 = 3;
/// What the ranges belong to.
const DOMAIN: &CStr = c"evo-sdpa";

/// `NVTX_CBID_*_SIZE` of each `NvtxCallbackModule`: the callbacks that a module has, with an invalid one in front.
const SIZES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];
const MOST: usize = 16;
/// `NVTX_CB_MODULE_CORE2`, and the three of its callbacks that are called.
const CORE2: usize = 5;
const DOMAIN_RANGE_PUSH: usize = 4;
const DOMAIN_RANGE_POP: usize = 5;
const DOMAIN_CREATE: usize = 12;
/// `NVTX_ETID_CALLBACKS` and `NVTX_ETID_VERSIONINFO`.
const CALLBACKS_TABLE: u32 = 1;
const VERSION_TABLE: u32 = 3;
/// `NVTX_MESSAGE_TYPE_ASCII`.
const ASCII: i32 = 1;

/// `NvtxGetExportTableFunc_t`.
type GetExportTable = extern "system" fn(u32) -> *const c_void;
/// `NvtxInitializeInjectionNvtxFunc_t`.
type Initialize = unsafe extern "system" fn(GetExportTable) -> c_int;
/// `nvtxDomainHandle_t`.
type Domain = *mut c_void;
type CreateDomain = unsafe extern "system" fn(*const c_char) -> Domain;
type Push = unsafe extern "system" fn(Domain, *const EventAttributes) -> c_int;
type Pop = unsafe extern "system" fn(Domain) -> c_int;
/// A function of the profiler's, null for one that it does not have.
type Slot = AtomicPtr<c_void>;

/// `nvtxEventAttributes_v2`.
#[repr(C)]
struct EventAttributes {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: *const c_char,
}

/// `NvtxExportTableCallbacks`.
#[repr(C)]
struct Callbacks {
    struct_size: usize,
    get_module_function_table: unsafe extern "system" fn(u32, *mut *const *const Slot, *mut c_uint) -> c_int,
}

/// `NvtxExportTableVersionInfo`.
#[repr(C)]
struct VersionInfo {
    struct_size: usize,
    version: u32,
    reserved: u32,
    set_injection_version: extern "system" fn(u32),
}

/// Where a profiler writes its functions.
static SLOTS: [[Slot; MOST]; SIZES.len()] = [const { [const { Slot::new(ptr::null_mut()) }; MOST] }; SIZES.len()];
/// Their addresses, as a profiler gets to see them.
static TABLES: Tables = Tables::new();
static CALLBACKS: Callbacks =
    Callbacks { struct_size: size_of::<Callbacks>(), get_module_function_table: module_function_table };
static VERSION_INFO: VersionInfo =
    VersionInfo { struct_size: size_of::<VersionInfo>(), version: VERSION as u32, reserved: 0, set_injection_version };

/// A table for each module: the addresses of its slots, with null in front and behind.
struct Tables([[*const Slot; MOST + 1]; SIZES.len()]);

// SAFETY: constant addresses of statics that may be used from any thread.
unsafe impl Sync for Tables {}

impl Tables {
    const fn new() -> Self {
        let mut tables = [[ptr::null(); MOST + 1]; SIZES.len()];
        let mut module = 0;
        while module < SIZES.len() {
            let mut callback = 1;
            while callback < SIZES[module] {
                tables[module][callback] = &raw const SLOTS[module][callback];
                callback += 1;
            }
            module += 1;
        }
        Self(tables)
    }
}

extern "system" fn export_table(id: u32) -> *const c_void {
    match id {
        CALLBACKS_TABLE => (&raw const CALLBACKS).cast(),
        VERSION_TABLE => (&raw const VERSION_INFO).cast(),
        _ => ptr::null(),
    }
}

/// Answers 1 when there is such a module.
///
/// # Safety
/// The pointers may be written to or are null.
unsafe extern "system" fn module_function_table(
    module: u32,
    out_table: *mut *const *const Slot,
    out_size: *mut c_uint,
) -> c_int {
    let Some((table, &size @ 1..)) = TABLES.0.get(module as usize).zip(SIZES.get(module as usize)) else { return 0 };
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        if !out_table.is_null() {
            *out_table = table.as_ptr();
        }
        if !out_size.is_null() {
            *out_size = size as c_uint;
        }
    }
    1
}

/// A profiler tells its own version, of which nothing follows.
extern "system" fn set_injection_version(_: u32) {}

/// A profiler that has taken its place. Its functions may come and go while the program runs.
pub struct Tool {
    domain: Domain,
}

// SAFETY: NVTX's functions and handles may be used from any thread.
unsafe impl Send for Tool {}
// SAFETY: as above.
unsafe impl Sync for Tool {}

impl Tool {
    /// The profiler under which the program was started, if there is one.
    pub fn get() -> Option<&'static Self> {
        static TOOL: OnceLock<Option<Tool>> = OnceLock::new();
        TOOL.get_or_init(|| Self::load(&std::env::var_os(LIBRARY)?)).as_ref()
    }

    /// Enters a range of this thread.
    pub fn push(&self, name: &CStr) {
        let attributes = EventAttributes {
            version: VERSION,
            size: size_of::<EventAttributes>() as u16,
            category: 0,
            color_type: 0,
            color: 0,
            payload_type: 0,
            reserved: 0,
            payload: 0,
            message_type: ASCII,
            message: name.as_ptr(),
        };
        // SAFETY: NVTX gives this type to the callback.
        if let Some(push) = unsafe { function::<Push>(DOMAIN_RANGE_PUSH) } {
            // SAFETY: the domain is the profiler's own, which copies what it keeps of the attributes.
            unsafe { push(self.domain, &attributes) };
        }
    }

    /// Leaves the range that this thread has entered last.
    pub fn pop(&self) {
        // SAFETY: NVTX gives this type to the callback.
        if let Some(pop) = unsafe { function::<Pop>(DOMAIN_RANGE_POP) } {
            // SAFETY: the domain is the profiler's own.
            unsafe { pop(self.domain) };
        }
    }

    /// Lets the library at `path` take its place. What fails is the profiler's, and no reason for a program to.
    fn load(path: &OsStr) -> Option<Self> {
        // SAFETY: whoever started the program asks for this library's code to run in it.
        let library = unsafe { Library::new(path) }.ok()?;
        // SAFETY: NVTX says what type the function of this name has.
        let initialize = *unsafe { library.get::<Initialize>(ENTRY) }.ok()?;
        // SAFETY: as above; the functions that it writes stay, as the library does from here on.
        let tool = unsafe { Self::attach(initialize) }?;
        mem::forget(library);
        Some(tool)
    }

    /// # Safety
    /// `initialize` is the entry point of a profiler, whose functions stay where they are.
    unsafe fn attach(initialize: Initialize) -> Option<Self> {
        // SAFETY: the caller vouches for the function.
        if unsafe { initialize(export_table) } == 0 {
            return None;
        }
        // SAFETY: NVTX gives this type to the callback.
        let create = unsafe { function::<CreateDomain>(DOMAIN_CREATE) };
        // The null domain is the one of ranges without a domain.
        // SAFETY: the name ends with a zero.
        let domain = create.map_or(ptr::null_mut(), |create| unsafe { create(DOMAIN.as_ptr()) });
        Some(Self { domain })
    }
}

/// The profiler's function for a callback of `CORE2`, if it has one.
///
/// # Safety
/// `F` is the type of the callback's function pointer.
unsafe fn function<F: Copy>(callback: usize) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let function = SLOTS[CORE2][callback].load(Ordering::Acquire);
    // SAFETY: not null, so a function that the profiler wrote, of this type.
    (!function.is_null()).then(|| unsafe { transmute_copy(&function) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What the profiler below has heard.
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn hear(what: String) {
        HEARD.lock().unwrap().push(what);
    }

    unsafe extern "system" fn create_domain(name: *const c_char) -> Domain {
        // SAFETY: the program hands over a string.
        hear(format!("domain {}", unsafe { CStr::from_ptr(name) }.to_str().unwrap()));
        ptr::without_provenance_mut(7)
    }

    unsafe extern "system" fn push(domain: Domain, attributes: *const EventAttributes) -> c_int {
        // SAFETY: the program hands over its attributes.
        let EventAttributes { version, size, message_type, message, .. } = unsafe { attributes.read() };
        assert_eq!((version, usize::from(size), message_type), (3, size_of::<EventAttributes>(), 1));
        // SAFETY: as above.
        hear(format!("push {} {}", domain.addr(), unsafe { CStr::from_ptr(message) }.to_str().unwrap()));
        0
    }

    unsafe extern "system" fn pop(domain: Domain) -> c_int {
        hear(format!("pop {}", domain.addr()));
        0
    }

    /// A profiler as NVTX's headers expect one: it asks for the version and for every module's table.
    unsafe extern "system" fn profiler(get: GetExportTable) -> c_int {
        assert!(get(0).is_null() && get(2).is_null() && get(4).is_null());
        // SAFETY: NVTX says what the tables are.
        let (version, callbacks) = unsafe { (&*get(3).cast::<VersionInfo>(), &*get(1).cast::<Callbacks>()) };
        assert_eq!((version.version, callbacks.struct_size), (3, size_of::<Callbacks>()));
        (version.set_injection_version)(3);
        let ask = |module: u32| {
            let (mut table, mut size) = (ptr::null(), 0);
            // SAFETY: both can be written to.
            let found = unsafe { (callbacks.get_module_function_table)(module, &mut table, &mut size) };
            (found, table, size)
        };
        for (module, &expected) in SIZES.iter().enumerate().skip(1) {
            let (found, table, size) = ask(module as u32);
            assert_eq!((found, size as usize), (1, expected));
            // SAFETY: a table has its size and one entry more.
            let table = unsafe { std::slice::from_raw_parts(table, expected + 1) };
            assert!(table[0].is_null() && table[expected].is_null());
            assert!(table[1..expected].iter().all(|slot| !slot.is_null()));
        }
        assert_eq!((ask(0).0, ask(7).0, ask(u32::MAX).0), (0, 0, 0));
        let (_, table, _) = ask(5);
        for (callback, function) in
            [(12, create_domain as *mut c_void), (4, push as *mut c_void), (5, pop as *mut c_void)]
        {
            // SAFETY: the table of the module has these entries, each the address of a slot.
            unsafe { &**table.add(callback) }.store(function, Ordering::Release);
        }
        1
    }

    /// Takes its place and has no functions yet, as CUPTI does.
    unsafe extern "system" fn waiting(_: GetExportTable) -> c_int {
        1
    }

    unsafe extern "system" fn unwilling(_: GetExportTable) -> c_int {
        0
    }

    #[test]
    fn a_profiler_hears_ranges_in_their_domain() {
        // SAFETY: it answers as NVTX asks for.
        let tool = unsafe { Tool::attach(waiting) }.expect("a profiler that takes its place");
        tool.push(c"unheard");
        tool.pop();
        // SAFETY: as above.
        let tool = unsafe { Tool::attach(profiler) }.expect("a profiler that takes its place");
        tool.push(c"outer");
        tool.push(c"inner");
        tool.pop();
        tool.pop();
        assert_eq!(*HEARD.lock().unwrap(), ["domain evo-sdpa", "push 7 outer", "push 7 inner", "pop 7", "pop 7"]);
    }

    #[test]
    fn a_profiler_that_fails_leaves_the_program_without_one() {
        // SAFETY: it answers as NVTX asks for.
        assert!(unsafe { Tool::attach(unwilling) }.is_none());
        assert!(Tool::load(OsStr::new("/no/such/library.so")).is_none());
        assert!(Tool::load(OsStr::new("")).is_none());
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn attributes_lie_as_in_the_c_header() {
        assert_eq!(size_of::<EventAttributes>(), 48);
        assert_eq!(mem::offset_of!(EventAttributes, payload), 24);
        assert_eq!(mem::offset_of!(EventAttributes, message), 40);
    }
}
