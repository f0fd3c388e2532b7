//! Sums that are parked: those of a run of steps, added up in f32 in the shared memory that the output tile takes afterwards.
//! Each thread parks its own fragments.

use super::Consumer;
use super::weights::Rescale;
use crate::config::FwdSm90;
use crate::kernels::fwd_sm90::Instance;
use crate::kernels::fwd_sm90::tile::Tile;
use crate::kernels::registers::Registers;
use crate::ptx::ld_st::{load_shared_16, store_shared_16};
use crate::ptx::wgmma;
use crate::ptx::{barrier, fence_schedule, opaque, tma};

impl<I: Instance> Consumer<'_, I> {
    /// Steps of a run.
    pub const RUN: u32 = FwdSm90::RUN_KEYS / I::CONFIG.tile_kv;

    /// Bytes from a parked fragment of a thread to its next one.
    const STRIDE: u32 = FwdSm90::GROUP_THREADS * 16;

    /// The step behind which the first sums of `tile` are parked; 0 where none are.
    #[inline(always)]
    pub fn first_parked(tile: &Tile) -> u32 {
        tile.steps.saturating_sub(2) & !(Self::RUN - 1)
    }

    /// Parks the sums of the values so far, behind `step`, whose own values are not among them.
    ///
    /// # Safety
    /// The warpgroup is here; no product with values is on its way.
    #[inline(always)]
    pub unsafe fn park(&mut self, tile: &Tile, step: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            if step < Self::first_parked(tile) {
                self.take_parked();
            } else {
                // The rows of the tile before have left.
                tma::wait_reads(self.at.thread.is_multiple_of(FwdSm90::GROUP_THREADS));
                barrier::sync_some(self.at.own_barrier(), FwdSm90::GROUP_THREADS);
            }
            let parked = self.parked();
            for i in 0..I::CONFIG.head_dim / 8 {
                store_shared_16(parked + i * Self::STRIDE, self.out.get(i).map(f32::to_bits));
            }
        }
        self.out = I::OutFrags::splat([0.0; 4]);
        (0..I::CONFIG.out_frags()).for_each(|i| wgmma::settle(self.out.at(i)));
    }

    /// Where the thread parks its fragments, [`Self::STRIDE`] from each other.
    #[inline(always)]
    fn parked(&self) -> u32 {
        // Else the address has a register throughout, and others are spilled.
        let thread = opaque(self.at.thread) % FwdSm90::GROUP_THREADS;
        self.shared.out::<I>() + self.at.group * I::CONFIG.group_out_bytes() + thread * 16
    }

    /// Adds what is parked to the output.
    ///
    /// # Safety
    /// The thread has parked sums of the tile.
    #[inline(always)]
    pub unsafe fn take_parked(&mut self) {
        let address = self.parked();
        for i in 0..I::CONFIG.head_dim / 8 {
            // SAFETY: the caller's promise.
            let parked = unsafe { load_shared_16(address + i * Self::STRIDE) }.map(f32::from_bits);
            let o = self.out.at(i);
            for i in 0..4 {
                o[i] += parked[i];
            }
        }
    }

    /// Rescales what is parked.
    ///
    /// # Safety
    /// The thread has parked sums of the tile.
    #[inline(always)]
    pub unsafe fn rescale_parked(&mut self, factors: Rescale) {
        let address = self.parked();
        for i in 0..I::CONFIG.head_dim / 8 {
            let address = address + i * Self::STRIDE;
            // SAFETY: the caller's promise.
            unsafe {
                let parked = load_shared_16(address).map(f32::from_bits);
                store_shared_16(address, rescaled(parked, factors).map(f32::to_bits));
                // Else ptxas loads all of them at once, and spills.
                fence_schedule();
            }
        }
    }
}

/// A fragment times the factors of its rows.
#[inline(always)]
pub fn rescaled(fragment: [f32; 4], factors: Rescale) -> [f32; 4] {
    [0, 1, 2, 3].map(|i| fragment[i] * factors[i / 2])
}
