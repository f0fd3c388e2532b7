//! The end of phases of mbarriers, and the copies and stores that they wait for.

use super::Machine;
use super::mbarriers::{Deferred, Load};
use crate::check::shared::Completion;
use crate::report::Kind;

impl Machine<'_> {
    /// Delivers what a phase needs that somebody waits for, and ends it when nothing is missing.
    pub(super) fn settle(&mut self, index: usize) {
        let mbarrier = self.mbarriers.get_mut(index);
        if mbarrier.wanted && mbarrier.pending == mbarrier.deferred_arrivals() {
            for Deferred { warp, arrivals, copies, known, clock } in std::mem::take(&mut mbarrier.deferred) {
                copies.iter().for_each(|copy| self.arrive_known(warp, copy, (clock, &known.clocks)));
                self.mbarriers.get_mut(index).arrive(arrivals, &known, false);
            }
        }
        let mbarrier = self.mbarriers.get_mut(index);
        if mbarrier.wanted && mbarrier.pending == 0 && mbarrier.tx != 0 {
            for load in mbarrier.loads.iter_mut().filter(|load| !load.landed) {
                land(&mut self.shared, load);
                mbarrier.tx -= load.bytes.len() as i64;
            }
        }
        if mbarrier.is_complete() {
            self.complete(index);
        }
    }

    fn complete(&mut self, index: usize) {
        let by = self.completion(index);
        let loads = self.mbarriers.get_mut(index).advance();
        self.mbarriers.completed += 1;
        self.idle_tests = 0;
        for mut load in loads {
            let bytes = load.bytes.len();
            if !load.landed {
                land(&mut self.shared, &mut load);
                self.find(Kind::Mbarrier, load.at, None, || {
                    format!("the phase of the mbarrier ends without these {bytes} bytes, which nobody expects")
                });
            }
            let by = Completion { is_store: load.is_store, ..by };
            self.end_async_write(load.at, by, load.offset, bytes as u32);
            if let Some(source) = load.source {
                self.end_async_read_by(load.at, by, source, bytes as u32);
            }
        }
    }

    /// The end of copies in the running phase of an mbarrier.
    pub(super) fn completion(&self, index: usize) -> Completion {
        let phase = self.mbarriers.get(index).clock + 1;
        Completion { agent: (self.clocks.warps() + index) as u16, phase, is_store: false }
    }

    /// Looks for copies to and from the block whose turn it is that nobody has waited for when it ends.
    pub(super) fn check_unfinished(&mut self) {
        let (all, windows, rank) = (self.mbarriers.all(), &self.windows, self.rank);
        let here = |offset: u32| windows.rank(offset) == rank;
        let loads = all.iter().flat_map(|mbarrier| &mbarrier.loads);
        let open = loads.filter(|load| here(load.offset) || load.source.is_some_and(here)).map(|load| load.at);
        let deferred = all.iter().filter(|mbarrier| here(mbarrier.offset)).flat_map(|mbarrier| &mbarrier.deferred);
        let deferred = deferred.flat_map(|deferred| deferred.copies.iter().map(|copy| (deferred.warp, copy)));
        let deferred = deferred.map(|(warp, copy)| self.place(warp, copy.lanes.trailing_zeros() as usize, copy.pc));
        for at in open.chain(deferred).collect::<Vec<_>>() {
            let message = || "the block ends without a wait for this copy or store".into();
            self.find(Kind::AsyncUnfinished, at, None, message);
        }
    }
}

/// The bytes of a copy arrive.
fn land(shared: &mut [u8], load: &mut Load) {
    let len = load.bytes.len();
    if let Some(source) = load.source {
        load.bytes.copy_from_slice(&shared[source as usize..][..len]);
    }
    shared[load.offset as usize..][..len].copy_from_slice(&load.bytes);
    load.landed = true;
}
