//! The registers of a warp: a row of 32 lanes each.

use std::marker::PhantomData;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// A mask with every lane.
pub(crate) const ALL: u32 = u32::MAX;

/// The value that a register holds in each lane.
pub(crate) type Row<T> = [T; LANES];

/// The registers of a warp. Registers of 16 and 8 bits live in words, whose upper bits mean nothing then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    pub words: Vec<Row<u32>>,
    pub longs: Vec<Row<u64>>,
    /// One bit a lane.
    pub predicates: Vec<u32>,
}

/// Bits that a register can hold: `u32` or `u64`.
pub(crate) trait Bits: Copy + Send + Sync + 'static {
    fn row(registers: &Registers, register: Reg<Self>) -> &Row<Self>;
    fn row_mut(registers: &mut Registers, register: Reg<Self>) -> &mut Row<Self>;
}

/// A register that holds `T`.
#[derive(Debug)]
pub(crate) struct Reg<T>(pub u32, PhantomData<T>);

impl<T> Reg<T> {
    pub const fn new(index: u32) -> Self {
        Self(index, PhantomData)
    }
}

impl<T> Clone for Reg<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Reg<T> {}

/// A register of 32 bits or fewer.
pub(crate) type Word = Reg<u32>;
/// A register of 64 bits.
pub(crate) type Long = Reg<u64>;

/// A predicate register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pred(pub u32);

impl Bits for u32 {
    #[inline(always)]
    fn row(registers: &Registers, register: Word) -> &Row<u32> {
        &registers.words[register.0 as usize]
    }

    #[inline(always)]
    fn row_mut(registers: &mut Registers, register: Word) -> &mut Row<u32> {
        &mut registers.words[register.0 as usize]
    }
}

impl Bits for u64 {
    #[inline(always)]
    fn row(registers: &Registers, register: Long) -> &Row<u64> {
        &registers.longs[register.0 as usize]
    }

    #[inline(always)]
    fn row_mut(registers: &mut Registers, register: Long) -> &mut Row<u64> {
        &mut registers.longs[register.0 as usize]
    }
}

impl Registers {
    /// The lanes of a register.
    #[inline(always)]
    pub fn get<T: Bits>(&self, register: Reg<T>) -> &Row<T> {
        T::row(self, register)
    }

    /// Sets the lanes in `mask` to those of `row`.
    #[inline(always)]
    pub fn set<T: Bits>(&mut self, register: Reg<T>, mask: u32, row: &Row<T>) {
        let old = T::row_mut(self, register);
        if mask == ALL {
            *old = *row;
        } else {
            for lane in 0..LANES {
                old[lane] = if mask >> lane & 1 == 1 { row[lane] } else { old[lane] };
            }
        }
    }

    /// Sets the lanes in `mask` of a predicate to those of `bits`.
    #[inline(always)]
    pub fn set_predicate(&mut self, predicate: Pred, mask: u32, bits: u32) {
        let old = &mut self.predicates[predicate.0 as usize];
        *old = *old & !mask | bits & mask;
    }

    /// The lanes in which a predicate holds.
    #[inline(always)]
    pub fn predicate(&self, predicate: Pred) -> u32 {
        self.predicates[predicate.0 as usize]
    }

    /// The lanes in which a predicate holds, or with `negated` those in which it does not.
    #[inline(always)]
    pub fn holds(&self, predicate: Pred, negated: bool) -> u32 {
        self.predicate(predicate) ^ if negated { ALL } else { 0 }
    }
}

/// The lanes of a mask, in order.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}
