//! Register arrays whose length only an instance knows.

/// An array that lives in registers: its length is a constant of the instance, every index a constant after
/// unrolling.
pub trait Registers<T: Copy>: Copy {
    /// All elements equal.
    fn splat(value: T) -> Self;
    /// Element `i`, which the caller keeps below the length.
    fn get(&self, i: u32) -> T;
    /// Element `i`, which the caller keeps below the length.
    fn at(&mut self, i: u32) -> &mut T;
}

/// Sets the scores of hidden keys to -inf in one of the two rows that a lane has in `count` accumulators from `first` on,
/// eight keys each. `visible` counts the keys that the row sees from the lane's own first one on.
#[inline(always)]
pub fn hide(scores: &mut impl Registers<[f32; 4]>, first: u32, count: u32, half: u32, visible: i32) {
    for tile in 0..count {
        let s = scores.at(first + tile);
        for i in 0..2 {
            if (8 * tile + i) as i32 >= visible {
                s[(2 * half + i) as usize] = f32::NEG_INFINITY;
            }
        }
    }
}

impl<T: Copy, const N: usize> Registers<T> for [T; N] {
    #[inline(always)]
    fn splat(value: T) -> Self {
        [value; N]
    }

    #[inline(always)]
    fn get(&self, i: u32) -> T {
        // SAFETY: loops run to counts of the same configuration that fixes N. A bounds check would leave a panic
        // path in the kernel until the loops are unrolled, and with it local memory.
        unsafe { *self.get_unchecked(i as usize) }
    }

    #[inline(always)]
    fn at(&mut self, i: u32) -> &mut T {
        // SAFETY: as above.
        unsafe { self.get_unchecked_mut(i as usize) }
    }
}
