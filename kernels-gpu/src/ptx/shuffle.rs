//! Exchange and votes between the lanes of a warp. Intrinsics, for the reason that `barrier` gives.

unsafe extern "C" {
    #[link_name = "llvm.nvvm.shfl.sync.bfly.f32"]
    fn shfl_sync_bfly_f32(members: u32, value: f32, lane_mask: u32, clamp: u32) -> f32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.f32"]
    fn shfl_sync_idx_f32(members: u32, value: f32, lane: u32, clamp: u32) -> f32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_sync_idx_i32(members: u32, value: u32, lane: u32, clamp: u32) -> u32;
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
