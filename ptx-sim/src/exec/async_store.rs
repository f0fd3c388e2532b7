//! `st.async`: stores of lanes to shared memory of the cluster, each of which completes on an mbarrier of the same block.

use super::Machine;
use super::mbarriers::Load;
use super::memory::stored;
use super::step::Step;
use super::warp::Warp;
use crate::program::AsyncStore;
use crate::registers::lanes;

impl Machine<'_> {
    pub(super) fn async_store(&mut self, warp: &Warp, step: Step, AsyncStore { store, mbarrier }: &AsyncStore) {
        let len = store.width * store.registers.len() as u32;
        let addresses = self.shared_addresses(&warp.registers, &store.address);
        let mbarriers = self.shared_addresses(&warp.registers, &mbarrier.address);
        let values = stored(&warp.registers, store);
        let clock = self.clocks.now(warp.index).clock;
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            let address = (store.space, addresses[lane]);
            let Some(offset) = self.shared_offset(at, address, len, "asynchronous store") else { continue };
            let Some(index) = self.live_mbarrier(at, (mbarrier.space, mbarriers[lane])) else { continue };
            if self.completes_there(at, index, offset) {
                self.visit(at, index, clock);
                let bytes = values[lane].to_le_bytes()[..len as usize].to_vec();
                self.begin_load(index, Load { at, offset, bytes, source: None, is_store: true, landed: false });
            }
        }
    }
}
