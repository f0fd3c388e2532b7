//! Exchange and votes between the lanes of a warp. Intrinsics, for the reason that `barrier` gives.

unsafe extern "C" {
    #[link_name = "llvm.nvvm.shfl.sync.bfly.f32"]
    fn shfl_sync_bfly_f32(members: u32, value: f32, lane_mask: u32, clamp: u32) -> f32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.f32"]
    fn shfl_sync_idx_f32(members: u32, value: f32, lane: u32, clamp: u32) -> f32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_sync_idx_i32(members: u32, value: u32, lane: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn shfl_sync_bfly_i32(members: u32, value: u32, lane_mask: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.any.sync"]
    fn vote_any_sync(members: u32, value: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.all.sync"]
    fn vote_all_sync(members: u32, value: bool) -> bool;
}

/// `shfl.sync.bfly.b32`: the value of the lane whose number differs by `lane_mask`.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn butterfly(value: f32, lane_mask: u32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { shfl_sync_bfly_f32(u32::MAX, value, lane_mask, 31) }
}

/// `shfl.sync.idx.b32`: the value of lane `lane`.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn broadcast(value: f32, lane: u32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { shfl_sync_idx_f32(u32::MAX, value, lane, 31) }
}

/// `vote.sync.all.pred`: whether `value` holds in every lane.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn all(value: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { vote_all_sync(u32::MAX, value) }
}

/// `shfl.sync.idx.b32` of an integer: the value of lane `lane`.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn broadcast_u32(value: u32, lane: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { shfl_sync_idx_i32(u32::MAX, value, lane, 31) }
}

/// `vote.sync.any.pred`: whether `value` holds in some lane.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn any(value: bool) -> bool {
    // SAFETY: the caller's promise.
    unsafe { vote_any_sync(u32::MAX, value) }
}

/// Lanes whose numbers differ by `lane_mask` swap the second word of the lower one and the first word of the upper one.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
unsafe fn transpose_pair([first, second]: [u32; 2], lane: u32, lane_mask: u32) -> [u32; 2] {
    let upper = lane & lane_mask != 0;
    // SAFETY: the caller's promise.
    let taken = unsafe { shfl_sync_bfly_i32(u32::MAX, if upper { first } else { second }, lane_mask, 31) };
    if upper { [taken, second] } else { [first, taken] }
}

/// Word `i` of lane `j` of four becomes word `j` of lane `i`.
///
/// # Safety
/// Every lane of the warp arrives, converged.
#[inline(always)]
pub unsafe fn transpose_quad(words: [u32; 4], lane: u32) -> [u32; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b] = transpose_pair([words[0], words[1]], lane, 1);
        let [c, d] = transpose_pair([words[2], words[3]], lane, 1);
        let [a, c] = transpose_pair([a, c], lane, 2);
        let [b, d] = transpose_pair([b, d], lane, 2);
        [a, b, c, d]
    }
}
