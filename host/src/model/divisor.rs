//! Division by a number that is known long before the dividend: a multiplication, a tenth of the time.

/// A divisor, at least 1.
#[derive(Clone, Copy)]
pub struct Divisor {
    value: u32,
    /// 2^64 / value, rounded down and a little less: for every dividend `n` below 2^32, `(n + 1) * reciprocal` lies
    /// below the next multiple of 2^64 by less than `reciprocal`.
    reciprocal: u64,
}

impl Divisor {
    /// # Panics
    /// When `value` is 0, which no figure of a kernel is.
    pub fn new(value: u32) -> Self {
        Self { value, reciprocal: u64::MAX / u64::from(value) }
    }

    pub fn value(self) -> u32 {
        self.value
    }

    /// `n / value`, rounded down.
    #[inline]
    pub fn quotient(self, n: u32) -> u32 {
        (((u128::from(n) + 1) * u128::from(self.reciprocal)) >> 64) as u32
    }

    /// `n / value`, rounded up.
    #[inline]
    pub fn quotient_up(self, n: u32) -> u32 {
        if n == 0 { 0 } else { self.quotient(n - 1) + 1 }
    }

    /// `n / value`, rounded down, and what is left.
    #[inline]
    pub fn quotient_and_rest(self, n: u32) -> (u32, u32) {
        let quotient = self.quotient(n);
        (quotient, n - quotient * self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_a_division() {
        let around = |n: u32| [n.wrapping_sub(1), n, n.wrapping_add(1)];
        let values = (1..100).chain((1..32).flat_map(|bit| around(1 << bit))).chain([u32::MAX - 1, u32::MAX]);
        for value in values.filter(|&value| value > 0) {
            let divisor = Divisor::new(value);
            let multiples = [1, 2, 3, 1000, u32::MAX / value].map(|factor| value.wrapping_mul(factor));
            for n in multiples.into_iter().chain([0, 1 << 31]).flat_map(around) {
                assert_eq!(divisor.quotient_and_rest(n), (n / value, n % value), "{n} / {value}");
                assert_eq!(divisor.quotient_up(n), n.div_ceil(value), "{n} / {value}");
            }
        }
    }
}
