//! Copies of boxes between global and shared memory (sm_90), by tensor maps. Conditions are inside the instructions, for
//! the reason that `mbarrier` gives.

use core::arch::asm;

/// First element of a box: column, row, head, batch.
pub type Corner = [u32; 4];

/// `cp.async.bulk.tensor` to shared memory by threads whose `copies` holds; its bytes count at `barrier`.
///
/// # Safety
/// `map` is the generic address of a tensor map, behind which the tensor is; `shared` has room for a box, at a multiple of
/// 1024; `barrier` is a barrier that expects the bytes.
#[inline(always)]
pub unsafe fn load(shared: u32, map: u64, corner: Corner, barrier: u32, copies: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {7}, 0; \
             @p cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
             [{0}], [{1}, {{{2}, {3}, {4}, {5}}}], [{6}]; }}",
            in(reg32) shared, in(reg64) map, in(reg32) corner[0], in(reg32) corner[1], in(reg32) corner[2],
            in(reg32) corner[3], in(reg32) barrier, in(reg32) u32::from(copies), options(nostack),
        );
    }
}

/// [`load`] to the same place in the shared memory of each of `blocks` blocks of the cluster; the bytes count at the barrier of
/// each.
///
/// # Safety
/// That of [`load`], in each of these blocks.
#[inline(always)]
pub unsafe fn load_for_each(shared: u32, map: u64, corner: Corner, barrier: u32, blocks: u32, copies: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {7}, 0; \
             @p cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster \
             [{0}], [{1}, {{{2}, {3}, {4}, {5}}}], [{6}], {8}; }}",
            in(reg32) shared, in(reg64) map, in(reg32) corner[0], in(reg32) corner[1], in(reg32) corner[2],
            in(reg32) corner[3], in(reg32) barrier, in(reg32) u32::from(copies), in(reg16) (1u16 << blocks) - 1,
            options(nostack),
        );
    }
}

/// `cp.async.bulk.tensor` from shared memory by threads whose `copies` holds, in their group of copies.
///
/// # Safety
/// `map` is the generic address of a tensor map, behind which the tensor is; the box at `shared` was written before
/// [`fence_shared`] and a barrier.
#[inline(always)]
pub unsafe fn store(map: u64, corner: Corner, shared: u32, copies: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {6}, 0; \
             @p cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [{0}, {{{1}, {2}, {3}, {4}}}], [{5}]; }}",
            in(reg64) map, in(reg32) corner[0], in(reg32) corner[1], in(reg32) corner[2], in(reg32) corner[3],
            in(reg32) shared, in(reg32) u32::from(copies), options(nostack),
        );
    }
}

/// `cp.async.bulk.commit_group` by threads whose `commits` holds: closes their group of stores.
#[inline(always)]
pub fn commit_group(commits: bool) {
    // SAFETY: waits for nothing.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {}, 0; @p cp.async.bulk.commit_group; }}",
            in(reg32) u32::from(commits), options(nostack),
        );
    }
}

/// `cp.async.bulk.wait_group.read 0` by threads whose `waits` holds: their stores have read shared memory.
#[inline(always)]
pub fn wait_reads(waits: bool) {
    // SAFETY: waits for the thread's own copies.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {}, 0; @p cp.async.bulk.wait_group.read 0; }}",
            in(reg32) u32::from(waits), options(nostack),
        );
    }
}

/// `cp.async.bulk.wait_group 0`: the thread's stores are complete.
#[inline(always)]
pub fn wait_all() {
    // SAFETY: waits for the thread's own copies.
    unsafe { asm!("cp.async.bulk.wait_group 0;", options(nostack)) }
}

/// `fence.proxy.async`: copies and products of a warpgroup see what the thread wrote to shared memory.
#[inline(always)]
pub fn fence_shared() {
    // SAFETY: orders memory accesses.
    unsafe { asm!("fence.proxy.async.shared::cta;", options(nostack)) }
}

/// `prefetch.tensormap` by threads whose `fetches` holds.
///
/// # Safety
/// `map` is the generic address of a tensor map.
#[inline(always)]
pub unsafe fn prefetch(map: u64, fetches: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "{{ .reg .pred p; setp.ne.u32 p, {1}, 0; @p prefetch.tensormap [{0}]; }}",
            in(reg64) map, in(reg32) u32::from(fetches), options(nostack),
        );
    }
}
