//! Shared memory as the asynchronous proxy uses it: bulk copies and `wgmma`.

use super::Machine;
use super::shared::site;
use crate::report::RawPlace;

impl Machine<'_> {
    /// Checks that the asynchronous proxy may read `len` bytes of shared memory from `offset` on, both multiples of 16,
    /// and forbids writes to them until [`end_async_read`](Self::end_async_read). `at` is who issues it.
    pub(super) fn begin_async_read(&mut self, at: RawPlace, offset: u32, len: u32) {
        if self.options.checks {
            let fault = self.shadow.begin_async_read(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
    }

    /// A wait of the lane `at` has ended the read.
    pub(super) fn end_async_read(&mut self, at: RawPlace, offset: u32, len: u32) {
        if self.options.checks {
            self.shadow.end_async_read(site(at), &self.clocks.now(at.warp as usize), offset, len);
        }
    }
}
