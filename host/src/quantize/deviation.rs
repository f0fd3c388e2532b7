//! How far one answer is from another.

use crate::compare::error;
use std::iter::Sum;
use std::ops::Add;

/// The difference of two answers, as sums: those of two sets of elements add up to that of both.
///
/// An element is within tolerance when it is within 5e-2 + 5e-2 |exact| of the exact one. NaN and infinity are never
/// close to a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    /// Elements compared.
    pub elements: usize,
    /// Elements that are not within tolerance.
    pub outside: usize,
    /// Largest difference; infinite where an element is NaN or infinite on one side only.
    pub max_abs: f64,
    error_square: f64,
    exact_square: f64,
    got_square: f64,
    product: f64,
}

impl Deviation {
    /// Tolerance of an element, absolute, and relative to the exact one.
    pub const TOLERANCE: f64 = 5e-2;

    /// Of `got` from `exact`. Elements that one of them lacks count as infinitely far.
    pub fn new(got: &[f64], exact: &[f64]) -> Self {
        let missing = got.len().abs_diff(exact.len());
        let lacking = if missing > 0 { f64::INFINITY } else { 0.0 };
        let of_missing =
            Self { elements: missing, outside: missing, max_abs: lacking, error_square: lacking, ..Self::default() };
        got.iter().zip(exact).map(|(&got, &exact)| Self::of_element(got, exact)).sum::<Self>() + of_missing
    }

    fn of_element(got: f64, exact: f64) -> Self {
        let error = error(got, exact);
        let within = error <= Self::TOLERANCE + Self::TOLERANCE * exact.abs();
        Self {
            elements: 1,
            outside: usize::from(!within),
            max_abs: error,
            error_square: error * error,
            exact_square: exact * exact,
            got_square: got * got,
            product: got * exact,
        }
    }

    /// Relative Frobenius error: |got - exact| / |exact|, 0 for equal ones.
    pub fn relative(&self) -> f64 {
        if self.error_square == 0.0 { 0.0 } else { (self.error_square / self.exact_square).sqrt() }
    }

    /// Cosine of the angle between both: 1 for equal ones, and 0 where only one of them is zero.
    pub fn cosine(&self) -> f64 {
        match self.got_square * self.exact_square {
            _ if self.error_square == 0.0 => 1.0,
            0.0 => 0.0,
            squares => self.product / squares.sqrt(),
        }
    }
}

impl Add for Deviation {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            elements: self.elements + other.elements,
            outside: self.outside + other.outside,
            max_abs: self.max_abs.max(other.max_abs),
            error_square: self.error_square + other.error_square,
            exact_square: self.exact_square + other.exact_square,
            got_square: self.got_square + other.got_square,
            product: self.product + other.product,
        }
    }
}

impl Sum for Deviation {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Self::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_definition_and_add_up() {
        let deviation = Deviation::new(&[3.0, 4.5], &[3.0, 4.0]);
        assert_eq!((deviation.elements, deviation.max_abs, deviation.relative()), (2, 0.5, 0.1));
        assert!((deviation.cosine() - 27.0 / (29.25f64.sqrt() * 5.0)).abs() < 1e-15);
        assert_eq!(Deviation::new(&[3.0], &[3.0]) + Deviation::new(&[4.5], &[4.0]), deviation);
    }

    #[test]
    fn elements_outside_the_tolerance_are_counted() {
        let near = [0.04, 1.09, -2.14];
        assert_eq!(Deviation::new(&near, &[0.0, 1.0, -2.0]).outside, 0);
        assert_eq!(Deviation::new(&near.map(|x| 1.3 * x), &[0.0, 1.0, -2.0]).outside, 3);
    }

    #[test]
    fn nan_infinity_and_missing_elements_are_infinitely_far() {
        for got in [&[1.0, f64::NAN][..], &[1.0, f64::INFINITY], &[1.0]] {
            let deviation = Deviation::new(got, &[1.0, 2.0]);
            assert_eq!((deviation.elements, deviation.outside, deviation.max_abs), (2, 1, f64::INFINITY));
            assert_eq!(deviation.relative(), f64::INFINITY, "{deviation:?}");
        }
    }

    #[test]
    fn two_zeros_agree_and_zero_is_at_right_angles_to_everything_else() {
        let equal = Deviation::new(&[0.0; 3], &[0.0; 3]);
        assert_eq!((equal.relative(), equal.cosine(), equal.outside), (0.0, 1.0, 0));
        let lost = Deviation::new(&[0.0; 3], &[0.5, 0.0, 0.0]);
        assert_eq!((lost.relative(), lost.cosine(), lost.outside), (1.0, 0.0, 1));
    }
}
