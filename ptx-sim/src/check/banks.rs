//! What a warp's memory request costs: passes through the banks of shared memory, sectors of global memory.
//!
//! Shared memory has 32 banks of 4 bytes; lanes that ask for the same word are served together, different words of a
//! bank take a pass each (CUDA C++ Programming Guide, "Shared Memory" of compute capability 5.x and later). A request
//! of 8 bytes a lane is served by half warps, one of 16 bytes by quarter warps, each as if it were a request of its own
//! (not in the guide; measured by many, and how Nsight Compute counts). Hardware merges halves in some cases where lanes
//! ask for the same words; that is left out.

/// Bytes of a pass through all banks.
const ROW: u32 = 128;
/// Bytes of a sector of global memory.
const SECTOR: u32 = 32;

/// Passes of a request to shared memory, without conflicts and as it is. Lanes outside `mask` take no part. `width` is
/// in bytes, 1 to 16. `cp.async` to shared memory counts as a store of its width.
pub(crate) fn shared_wavefronts(addresses: &[u32; 32], mask: u32, width: u32) -> (u32, u32) {
    let width = width.max(4);
    let lanes = ROW / width;
    let (mut ideal, mut real) = (0, 0);
    for (phase, addresses) in addresses.chunks_exact(lanes as usize).enumerate() {
        let active = mask >> (phase as u32 * lanes) & (u32::MAX >> (32 - lanes));
        if active != 0 {
            ideal += 1;
            real += passes(addresses, active, width);
        }
    }
    (ideal, real)
}

/// Passes for one 8x8 matrix of `ldmatrix` or `stmatrix`, whose rows of 16 bytes lie at these addresses.
pub(crate) fn ldmatrix_wavefronts(rows: &[u32; 8]) -> (u32, u32) {
    (1, passes(rows, 0xff, 16))
}

/// Passes for lanes that together can fill all banks once. In each pass a bank serves the first lane that waits for it,
/// and all others that want the same word.
#[inline]
fn passes(addresses: &[u32], active: u32, width: u32) -> u32 {
    let shift = width.ilog2();
    let banks = (ROW / width) as usize;
    let mut waiting = active;
    let mut passes = 0;
    while waiting != 0 {
        passes += 1;
        let mut words = [u32::MAX; 32];
        let mut left = 0;
        let mut lanes = waiting;
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            let word = addresses[lane] >> shift;
            let served = &mut words[word as usize & (banks - 1)];
            if *served == u32::MAX {
                *served = word;
            }
            left |= u32::from(*served != word) << lane;
        }
        waiting = left;
    }
    passes
}

/// Sectors of 32 bytes of a request to global memory: those that the bytes asked for would fill, and those they touch.
/// `width` is in bytes, and addresses are multiples of it.
pub(crate) fn global_sectors(addresses: &[u64; 32], mask: u32, width: u32) -> (u32, u32) {
    let mut sorted = [0; 32];
    let mut len = 0;
    let mut lanes = mask;
    while lanes != 0 {
        sorted[len] = addresses[lanes.trailing_zeros() as usize];
        len += 1;
        lanes &= lanes - 1;
    }
    let sorted = &mut sorted[..len];
    if !sorted.is_sorted() {
        sorted.sort_unstable();
    }
    let (mut pieces, mut sectors) = (0, 0);
    let mut before = None;
    for &address in &*sorted {
        pieces += u32::from(before != Some(address));
        sectors += u32::from(before.map(|before: u64| before / u64::from(SECTOR)) != Some(address / u64::from(SECTOR)));
        before = Some(address);
    }
    ((pieces * width).div_ceil(SECTOR), sectors)
}
