//! Which of the blocks that share query rows is done last.

use crate::ptx::ld_st::{load_shared_4, store_shared_4};
use crate::ptx::{atomic, barrier};

/// Whether the block is the last of `blocks` to come here: then what all of them stored before is visible to its threads.
/// The counter goes round to zero.
///
/// # Safety
/// The whole block is here, converged. `counter` is the global address of a counter that these blocks alone take, and
/// `slot` is a shared address of which nobody else makes use once the whole block is here.
#[inline(always)]
pub unsafe fn is_last(thread: u32, counter: u64, blocks: u32, slot: u32) -> bool {
    // The first thread's ticket speaks for the block: it releases what the barrier ordered before it, and acquires for
    // what the next barrier orders behind it.
    // SAFETY: the caller's promise.
    unsafe {
        barrier::sync_threads();
        if thread == 0 {
            store_shared_4(slot, atomic::take_ticket(counter, blocks - 1));
        }
        barrier::sync_threads();
        load_shared_4(slot) == blocks - 1
    }
}
