//! What each family of instructions does, as functions made when a text is loaded.

pub(crate) mod approximate;
pub(crate) mod arithmetic;
pub(crate) mod atomic;
pub(crate) mod bits;
pub(crate) mod collective;
pub(crate) mod compare;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod moves;

use crate::registers::{ALL, Bits, LANES, Pred, Reg, Registers};

/// An instruction that works on registers alone, in the lanes of a mask.
pub(crate) type Compute = Box<dyn Fn(&mut Registers, u32) + Send + Sync>;

/// `d = f(a)` in each lane.
pub(crate) fn map<D: Bits, A: Bits>(d: Reg<D>, a: Reg<A>, f: impl Fn(A) -> D + Send + Sync + 'static) -> Compute {
    Box::new(move |registers, mask| {
        let a = *registers.get(a);
        apply(registers, d, mask, |lane| f(a[lane]));
    })
}

/// `d = f(a, b)` in each lane.
pub(crate) fn map2<D: Bits, A: Bits, B: Bits>(
    d: Reg<D>,
    (a, b): (Reg<A>, Reg<B>),
    f: impl Fn(A, B) -> D + Send + Sync + 'static,
) -> Compute {
    Box::new(move |registers, mask| {
        let (a, b) = (*registers.get(a), *registers.get(b));
        apply(registers, d, mask, |lane| f(a[lane], b[lane]));
    })
}

/// `d = f(a, b, c)` in each lane.
pub(crate) fn map3<D: Bits, A: Bits, B: Bits, C: Bits>(
    d: Reg<D>,
    (a, b, c): (Reg<A>, Reg<B>, Reg<C>),
    f: impl Fn(A, B, C) -> D + Send + Sync + 'static,
) -> Compute {
    Box::new(move |registers, mask| {
        let (a, b, c) = (*registers.get(a), *registers.get(b), *registers.get(c));
        apply(registers, d, mask, |lane| f(a[lane], b[lane], c[lane]));
    })
}

/// The lanes in which `f(a, b)` holds.
#[inline(always)]
pub(crate) fn lanes_where<A: Bits>(registers: &Registers, a: Reg<A>, b: Reg<A>, f: impl Fn(A, A) -> bool) -> u32 {
    let (a, b) = (registers.get(a), registers.get(b));
    (0..LANES).fold(0, |bits, lane| bits | u32::from(f(a[lane], b[lane])) << lane)
}

/// `p = f(lanes)` for an operation on whole masks.
pub(crate) fn predicate(d: Pred, f: impl Fn(&Registers) -> u32 + Send + Sync + 'static) -> Compute {
    Box::new(move |registers, mask| {
        let bits = f(registers);
        registers.set_predicate(d, mask, bits);
    })
}

#[inline(always)]
fn apply<D: Bits>(registers: &mut Registers, d: Reg<D>, mask: u32, value: impl Fn(usize) -> D) {
    let d = D::row_mut(registers, d);
    if mask == ALL {
        for (lane, d) in d.iter_mut().enumerate() {
            *d = value(lane);
        }
    } else {
        for (lane, d) in d.iter_mut().enumerate() {
            let new = value(lane);
            *d = if mask >> lane & 1 == 1 { new } else { *d };
        }
    }
}
