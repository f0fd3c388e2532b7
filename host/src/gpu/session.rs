//! A device's primary context and a stream in it, and memory that keeps both alive.

use super::context::Current;
use super::driver::driver;
use crate::error::Result;
use cust::sys::{CUcontext, CUdevice, CUdeviceptr, CUstream, CUstream_flags};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// The primary context of a device, retained, and a stream that does not wait for the default stream.
pub(super) struct Session {
    device: CUdevice,
    context: CUcontext,
    stream: CUstream,
}

// SAFETY: the driver's handles may be used from any thread, and from several at once.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    /// Retains the primary context of `device`; the driver is initialised.
    pub(super) fn new(device: CUdevice) -> Result<Self> {
        let mut context = ptr::null_mut();
        // SAFETY: the driver writes one handle, and refuses a device that is none.
        unsafe { driver!(cuDevicePrimaryCtxRetain(&mut context, device)) }?;
        let mut session = Self { device, context, stream: ptr::null_mut() };
        let current = session.enter()?;
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuStreamCreate(&mut session.stream, flags)) }?;
        drop(current);
        Ok(session)
    }

    pub(super) fn device(&self) -> CUdevice {
        self.device
    }

    pub(super) fn context(&self) -> CUcontext {
        self.context
    }

    pub(super) fn stream(&self) -> CUstream {
        self.stream
    }

    /// Makes the context current.
    pub(super) fn enter(&self) -> Result<Current> {
        // SAFETY: retained until `self` is dropped.
        unsafe { Current::enter(self.context) }
    }

    /// Waits for everything on the stream.
    pub(super) fn synchronize(&self) -> Result<()> {
        let _current = self.enter()?;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamSynchronize(self.stream)) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.stream.is_null()
            && let Ok(_current) = self.enter()
        {
            // SAFETY: created in `new`, used by nobody else. A failure has nobody to go to.
            let _ = unsafe { driver!(cuStreamDestroy_v2(self.stream)) };
        }
        // SAFETY: takes back the retain of `new`.
        let _ = unsafe { driver!(cuDevicePrimaryCtxRelease_v2(self.device)) };
    }
}

/// Device memory, freed when dropped. Its address is 0 when it has no bytes.
pub(super) struct Memory {
    session: Arc<Session>,
    address: CUdeviceptr,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(session: &Arc<Session>, bytes: usize) -> Result<Self> {
        let mut address = 0;
        if bytes > 0 {
            let _current = session.enter()?;
            // SAFETY: the driver writes one address.
            unsafe { driver!(cuMemAlloc_v2(&mut address, bytes)) }?;
        }
        Ok(Self { session: Arc::clone(session), address, bytes })
    }

    pub(super) fn device(&self) -> CUdevice {
        self.session.device
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets every byte, in the order of the stream.
    pub(super) fn fill(&self, byte: u8) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let _current = self.session.enter()?;
        // SAFETY: the memory has that many bytes and is ours.
        unsafe { driver!(cuMemsetD8Async(self.address, byte, self.bytes, self.session.stream)) }
    }

    /// Copies `data` to the start of the memory and waits for it.
    ///
    /// # Panics
    /// When `data` is longer than the memory.
    pub(super) fn write<T: Copy>(&self, data: &[T]) -> Result<()> {
        let bytes = size_of_val(data);
        assert!(bytes <= self.bytes, "{bytes} bytes into {}", self.bytes);
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.session.enter()?;
        let source = data.as_ptr().cast::<c_void>();
        // On the stream, as a plain copy may return before it has reached the device, and this stream does not wait.
        // SAFETY: both sides have that many bytes, and `data` stays until the copy is done.
        unsafe { driver!(cuMemcpyHtoDAsync_v2(self.address, source, bytes, self.session.stream)) }?;
        self.session.synchronize()
    }

    /// Copies the start of the memory into `data` after everything on the stream.
    ///
    /// # Panics
    /// When `data` is longer than the memory.
    pub(super) fn read<T: bytemuck::Pod>(&self, data: &mut [T]) -> Result<()> {
        let bytes = size_of_val(data);
        assert!(bytes <= self.bytes, "{bytes} bytes of {}", self.bytes);
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.session.enter()?;
        let target = data.as_mut_ptr().cast::<c_void>();
        // SAFETY: both sides have that many bytes, any bits are a `T`, and `data` stays until the copy is done.
        unsafe { driver!(cuMemcpyDtoHAsync_v2(target, self.address, bytes, self.session.stream)) }?;
        self.session.synchronize()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.address != 0
            && let Ok(_current) = self.session.enter()
        {
            // SAFETY: allocated in `new`; the driver waits for work that uses it. A failure has nobody to go to.
            let _ = unsafe { driver!(cuMemFree_v2(self.address)) };
        }
    }
}
