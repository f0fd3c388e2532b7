//! Shared memory as bulk copies use it, which are of the asynchronous proxy, and as mbarriers do. The operands of `wgmma`
//! have a file of their own.

use super::Machine;
use super::shared::site;
use crate::check::shared::Completion;
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

    /// As [`begin_async_read`](Self::begin_async_read), for a bulk copy to there.
    pub(super) fn begin_async_write(&mut self, at: RawPlace, by: Completion, offset: u32, len: u32) {
        if self.options.checks {
            let now = self.clocks.now(at.warp as usize);
            let fault = self.shadow.begin_async_write(site(at), &now, by, (offset, len));
            self.fault(at, fault, offset, len);
        }
    }

    /// The phase is complete that waited for a copy from there.
    pub(super) fn end_async_read_by(&mut self, at: RawPlace, by: Completion, offset: u32, len: u32) {
        if self.options.checks {
            self.shadow.end_async_read_by(site(at), by, (offset, len));
        }
    }

    /// The phase that waited for the copy is complete.
    pub(super) fn end_async_write(&mut self, at: RawPlace, by: Completion, offset: u32, len: u32) {
        if self.options.checks {
            self.shadow.end_async_write(site(at), by, (offset, len));
        }
    }

    /// 8 bytes become an mbarrier.
    pub(super) fn begin_mbarrier(&mut self, at: RawPlace, offset: u32) {
        if self.options.checks {
            let fault = self.shadow.begin_mbarrier(site(at), &self.clocks.now(at.warp as usize), offset);
            self.fault(at, fault, offset, 8);
        }
    }

    /// An mbarrier becomes 8 bytes.
    pub(super) fn end_mbarrier(&mut self, at: RawPlace, offset: u32) {
        if self.options.checks {
            self.shadow.end_mbarrier(site(at), &self.clocks.now(at.warp as usize), offset);
        }
    }
}
