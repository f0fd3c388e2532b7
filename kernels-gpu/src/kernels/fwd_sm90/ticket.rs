//! Which tile a block, or a cluster, takes next.
//!
//! Where tiles take unequal times, they take those beyond their first ones as they come, by tickets of a counter. As many are
//! taken as there are tiles, as each takes one in vain, so that the counter goes round to zero. The first block of a cluster takes
//! it, and sends it to the other. Where there is no counter, a block takes every so many-th tile.

use super::{Instance, Producer};
use crate::ptx::ld_st::load_shared_4_if;
use crate::ptx::{atomic, cluster, mbarrier, shuffle, sreg};

impl<I: Instance> Producer<'_, I> {
    /// The first tile of the block, or cluster.
    #[inline(always)]
    pub fn first_tile(&self) -> u32 {
        sreg::block_idx_x() / I::CONFIG.cluster
    }

    /// Asks for the tile behind that at `index`; the answer takes a while to come.
    ///
    /// # Safety
    /// The launch has the counter for itself.
    #[inline(always)]
    pub unsafe fn take_ticket(&mut self, index: u32) {
        self.ticket = index;
        let is_first = I::CONFIG.is_alone() || cluster::rank() == 0;
        if is_first && self.lane == 0 && self.has_tickets() {
            // SAFETY: the caller's promise.
            self.ticket = unsafe { atomic::take_ticket(self.params.workspace, self.order.count - 1) };
        }
    }

    /// Sends the answer to the other block of the cluster.
    ///
    /// # Safety
    /// The block of rank 1 asks for each tile by [`Producer::next_tile`], and does not end before.
    #[inline(always)]
    pub unsafe fn send_ticket(&mut self) {
        if !I::CONFIG.is_alone() && cluster::rank() == 0 && self.has_tickets() {
            let (ring, turn) = (&self.shared.tickets, self.ticket_turn);
            // SAFETY: the number's place is empty when it is written; the caller's promise.
            unsafe {
                ring.wait_empty_for_cluster(turn.before());
                cluster::send(ring.tile(turn), self.ticket, ring.full(turn), 1, self.lane == 0);
            }
            self.ticket_turn.advance(ring);
        }
    }

    /// The tile that was asked for; the order's count or more where there is none.
    ///
    /// # Safety
    /// All lanes of the warp are converged. The block of rank 0 sends the ticket.
    #[inline(always)]
    pub unsafe fn next_tile(&mut self) -> u32 {
        // SAFETY: the number's place is full when it is read; the caller's promise.
        unsafe {
            if self.receives_tickets() {
                let (ring, turn) = (&self.shared.tickets, self.ticket_turn);
                mbarrier::arrive_expecting(ring.full(turn), 4, self.lane == 0);
                ring.wait_full(turn);
                self.ticket = load_shared_4_if(ring.tile(turn), self.lane == 0);
            }
            Self::takers() + shuffle::broadcast_u32(self.ticket, 0)
        }
    }

    /// Lets the block of rank 0 send the next one.
    ///
    /// # Safety
    /// Behind each [`Producer::next_tile`], before the next one.
    #[inline(always)]
    pub unsafe fn release_ticket(&mut self) {
        if self.receives_tickets() {
            // SAFETY: the number has been read; the other block does not end before.
            unsafe { self.shared.tickets.release_to(0, self.ticket_turn, self.lane == 0) }
            self.ticket_turn.advance(&self.shared.tickets);
        }
    }

    #[inline(always)]
    fn receives_tickets(&self) -> bool {
        !I::CONFIG.is_alone() && cluster::rank() != 0 && self.has_tickets()
    }

    /// Whether there are tickets in the launch.
    #[inline(always)]
    fn has_tickets(&self) -> bool {
        self.params.workspace != 0 && self.order.count > Self::takers()
    }

    /// How many blocks, or clusters, there are.
    #[inline(always)]
    fn takers() -> u32 {
        sreg::grid_dim_x() / I::CONFIG.cluster
    }
}
