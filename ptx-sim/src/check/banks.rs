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

/// Passes for lanes that together can fill all banks once: of all banks the most words that one has to give.
#[inline(always)]
fn passes(addresses: &[u32], active: u32, width: u32) -> u32 {
    let shift = width.ilog2();
    let banks = ROW / width;
    let bank = |address: u32| address >> shift & (banks - 1);
    let busy = |busy, (lane, &address): (usize, &u32)| busy | (active >> lane & 1) << bank(address);
    if addresses.iter().enumerate().fold(0, busy).count_ones() == active.count_ones() {
        return 1;
    }
    // In each pass a bank serves the first lane that waits for it, and all others that want the same word.
    let mut passes = 0;
    let mut waiting = active;
    while waiting != 0 {
        let mut words = [u32::MAX; 32];
        let (mut lanes, mut left) = (waiting, 0);
        while lanes != 0 {
            let lane = lanes.trailing_zeros();
            lanes &= lanes - 1;
            let address = addresses[lane as usize];
            let word = &mut words[bank(address) as usize % 32];
            if *word == u32::MAX {
                *word = address >> shift;
            }
            left |= u32::from(*word != address >> shift) << lane;
        }
        waiting = left;
        passes += 1;
    }
    passes
}

/// Sectors of 32 bytes of a request to global memory: those that the bytes asked for would fill, and those they touch.
/// `width` is in bytes, and addresses are multiples of it.
pub(crate) fn global_sectors(addresses: &[u64; 32], mask: u32, width: u32) -> (u32, u32) {
    if mask == 0 {
        return (0, 0);
    }
    let mut sorted = *addresses;
    if mask != u32::MAX {
        // Lanes that take no part repeat the one before, which counts for nothing.
        let mut last = addresses[mask.trailing_zeros() as usize];
        for (lane, address) in sorted.iter_mut().enumerate() {
            last = if mask >> lane & 1 == 1 { *address } else { last };
            *address = last;
        }
    }
    if !sorted.is_sorted() {
        sorted.sort_unstable();
    }
    let (mut pieces, mut sectors) = (1, 1);
    for lane in 1..32 {
        let change = sorted[lane] ^ sorted[lane - 1];
        pieces += u32::from(change != 0);
        sectors += u32::from(change >> SECTOR.ilog2() != 0);
    }
    ((pieces * width).div_ceil(SECTOR), sectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lanes, `stride` bytes apart.
    fn strided(stride: u32, width: u32) -> (u32, u32) {
        shared_wavefronts(&std::array::from_fn(|lane| lane as u32 * stride), u32::MAX, width)
    }

    #[test]
    fn words_side_by_side_need_one_pass() {
        assert_eq!(strided(4, 4), (1, 1));
    }

    #[test]
    fn every_second_word_needs_two_passes() {
        assert_eq!(strided(8, 4), (1, 2));
        assert_eq!(strided(16, 4), (1, 4));
    }

    #[test]
    fn a_column_of_rows_as_wide_as_the_banks_needs_a_pass_a_lane() {
        assert_eq!(strided(128, 4), (1, 32));
    }

    #[test]
    fn an_odd_stride_needs_one_pass() {
        assert_eq!(strided(132, 4), (1, 1));
        assert_eq!(strided(12, 4), (1, 1));
    }

    #[test]
    fn lanes_that_want_the_same_word_share_it() {
        assert_eq!(strided(0, 4), (1, 1));
        let pairs = std::array::from_fn(|lane| lane as u32 / 2 * 4);
        assert_eq!(shared_wavefronts(&pairs, u32::MAX, 4), (1, 1));
        // Two words of one bank, however many want them.
        let two = std::array::from_fn(|lane| lane as u32 % 2 * 128);
        assert_eq!(shared_wavefronts(&two, u32::MAX, 4), (1, 2));
    }

    #[test]
    fn parts_of_a_word_are_the_word() {
        assert_eq!(strided(1, 1), (1, 1));
        assert_eq!(strided(2, 2), (1, 1));
        assert_eq!(strided(128, 2), (1, 32));
    }

    #[test]
    fn eight_bytes_go_by_half_warps() {
        assert_eq!(strided(8, 8), (2, 2));
        assert_eq!(strided(16, 8), (2, 4));
        assert_eq!(strided(136, 8), (2, 2));
        assert_eq!(strided(128, 8), (2, 32));
    }

    #[test]
    fn sixteen_bytes_go_by_quarter_warps() {
        assert_eq!(strided(16, 16), (4, 4));
        assert_eq!(strided(128, 16), (4, 32));
        assert_eq!(strided(144, 16), (4, 4));
    }

    #[test]
    fn lanes_that_take_no_part_cost_nothing() {
        let column = std::array::from_fn(|lane| lane as u32 * 128);
        assert_eq!(shared_wavefronts(&column, 0, 4), (0, 0));
        assert_eq!(shared_wavefronts(&column, 0b1011, 4), (1, 3));
        assert_eq!(shared_wavefronts(&column, 0xff00, 16), (1, 8));
        assert_eq!(shared_wavefronts(&column, 1 << 31, 8), (1, 1));
    }

    #[test]
    fn rows_of_128_bytes_collide_eightfold_without_a_swizzle() {
        let row = |swizzle: bool, row: u32| row * 128 + if swizzle { (3 ^ row) * 16 } else { 3 * 16 };
        assert_eq!(ldmatrix_wavefronts(&std::array::from_fn(|lane| row(false, lane as u32))), (1, 8));
        assert_eq!(ldmatrix_wavefronts(&std::array::from_fn(|lane| row(true, lane as u32))), (1, 1));
    }

    #[test]
    fn rows_of_64_bytes_collide_fourfold() {
        assert_eq!(ldmatrix_wavefronts(&std::array::from_fn(|lane| lane as u32 * 64)), (1, 4));
        assert_eq!(ldmatrix_wavefronts(&std::array::from_fn(|lane| lane as u32 * 16)), (1, 1));
        assert_eq!(ldmatrix_wavefronts(&[512; 8]), (1, 1));
    }

    fn sectors(mask: u32, width: u32, address: impl Fn(u64) -> u64) -> (u32, u32) {
        global_sectors(&std::array::from_fn(|lane| address(lane as u64)), mask, width)
    }

    #[test]
    fn bytes_side_by_side_fill_their_sectors() {
        assert_eq!(sectors(u32::MAX, 4, |lane| 4 * lane), (4, 4));
        assert_eq!(sectors(u32::MAX, 16, |lane| 16 * lane), (16, 16));
        assert_eq!(sectors(u32::MAX, 4, |lane| 4 * (lane ^ 21)), (4, 4));
        assert_eq!(sectors(u32::MAX, 1, |lane| lane), (1, 1));
    }

    #[test]
    fn bytes_off_the_grid_touch_one_sector_more() {
        assert_eq!(sectors(u32::MAX, 4, |lane| 4 * lane + 16), (4, 5));
    }

    #[test]
    fn scattered_words_touch_a_sector_each() {
        assert_eq!(sectors(u32::MAX, 4, |lane| lane * 4096), (4, 32));
        assert_eq!(sectors(u32::MAX, 4, |lane| (lane * 13 % 32) * 4096), (4, 32));
    }

    #[test]
    fn bytes_that_many_want_come_once() {
        assert_eq!(sectors(u32::MAX, 4, |_| 64), (1, 1));
        assert_eq!(sectors(u32::MAX, 8, |lane| lane % 2 * 4096), (1, 2));
    }

    #[test]
    fn sectors_count_lanes_that_take_part() {
        assert_eq!(sectors(0, 4, |lane| lane), (0, 0));
        assert_eq!(sectors(0b1010_0000, 4, |lane| lane * 4096), (1, 2));
        assert_eq!(sectors(0x8000_0001, 16, |lane| (31 - lane) * 16), (1, 2));
    }
}
