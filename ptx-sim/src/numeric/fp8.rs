//! e4m3 and e5m2: codes and conversions (PTX ISA, "Alternate floating-point data formats").
//!
//! e4m3 has no infinity: only the codes 0x7f and 0xff are not numbers, and the largest is 448. e5m2 is the top byte of
//! f16. Conversions to either saturate, since PTX demands `.satfinite`.

use super::NAN;
use super::half::{f16_to_f32, narrow};

/// NaN of a conversion to e4m3 or e5m2.
pub(crate) const NAN8: u8 = 0x7f;

/// e4m3 of `x`, to nearest, `.satfinite`.
#[inline(always)]
pub(crate) fn f32_to_e4m3(x: f32) -> u8 {
    convert::<3, 7>(x, 448.0)
}

/// e5m2 of `x`, to nearest, `.satfinite`.
#[inline(always)]
pub(crate) fn f32_to_e5m2(x: f32) -> u8 {
    convert::<2, 15>(x, 57344.0)
}

#[inline(always)]
fn convert<const MANTISSA: u32, const BIAS: u32>(x: f32, largest: f32) -> u8 {
    let (bits, magnitude) = (x.to_bits(), x.to_bits() & 0x7fff_ffff);
    let signed = bits >> 24 & 0x80 | narrow::<MANTISSA, BIAS>(magnitude.min(largest.to_bits()));
    (if magnitude > 0x7f80_0000 { NAN8 as u32 } else { signed }) as u8
}

/// The number behind an e4m3 code.
#[inline(always)]
pub(crate) fn e4m3_to_f32(code: u8) -> f32 {
    // Sign, exponent and mantissa in their places; the exponent still counts from that of e4m3.
    let placed = (((code as u32) << 24) as i32 >> 4) as u32 & 0x87f0_0000;
    let magnitude = placed & 0x07f0_0000;
    let normal = f32::from_bits(magnitude.wrapping_add((127 - 7) << 23));
    // That gave a subnormal an implicit bit and one exponent too few: twice it, less that bit.
    let subnormal = if magnitude < 1 << 23 { normal - f32::from_bits((127 - 6) << 23) } else { 0.0 };
    let number = f32::from_bits((normal + subnormal).to_bits() | placed & 0x8000_0000);
    if magnitude == 0x07f0_0000 { NAN } else { number }
}

/// The number behind an e5m2 code.
#[inline(always)]
pub(crate) fn e5m2_to_f32(code: u8) -> f32 {
    f16_to_f32((code as u16) << 8)
}

/// f16 code of an e4m3 code: exact.
#[inline(always)]
pub(crate) fn e4m3_to_f16(code: u8) -> u16 {
    super::half::f32_to_f16(e4m3_to_f32(code))
}

/// f16 code of an e5m2 code: exact.
#[inline(always)]
pub(crate) fn e5m2_to_f16(code: u8) -> u16 {
    super::half::f32_to_f16(e5m2_to_f32(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numeric::testing::Random;

    /// By the definition: sign, exponent, mantissa.
    fn value(code: u8, mantissa: u32, bias: i32) -> f64 {
        let m = (code as u32 & ((1 << mantissa) - 1)) as f64 / (1 << mantissa) as f64;
        let e = (code as i32 & 0x7f) >> mantissa;
        let magnitude = if e == 0 { m * 2f64.powi(1 - bias) } else { (1.0 + m) * 2f64.powi(e - bias) };
        if code > 0x7f { -magnitude } else { magnitude }
    }

    #[test]
    fn all_codes_decode_by_the_definition_and_come_back() {
        for code in 0..=u8::MAX {
            if code & 0x7f == 0x7f {
                assert!(e4m3_to_f32(code).is_nan());
            } else {
                assert_eq!(e4m3_to_f32(code) as f64, value(code, 3, 7), "{code:#x}");
                assert_eq!(f32_to_e4m3(e4m3_to_f32(code)), code);
                assert_eq!(f16_to_f32(e4m3_to_f16(code)), e4m3_to_f32(code));
            }
            match code & 0x7f {
                0x7d.. => assert!(e5m2_to_f32(code).is_nan()),
                0x7c => assert!(e5m2_to_f32(code).is_infinite()),
                _ => {
                    assert_eq!(e5m2_to_f32(code) as f64, value(code, 2, 15), "{code:#x}");
                    assert_eq!(f32_to_e5m2(e5m2_to_f32(code)), code);
                    assert_eq!(e5m2_to_f16(code), (code as u16) << 8);
                }
            }
        }
    }

    #[test]
    fn conversions_take_the_nearest_code_and_the_even_one_of_two() {
        let mut random = Random::new(3);
        for (convert, decode, last) in [
            (f32_to_e4m3 as fn(f32) -> u8, e4m3_to_f32 as fn(u8) -> f32, 0x7e),
            (f32_to_e5m2 as fn(f32) -> u8, e5m2_to_f32 as fn(u8) -> f32, 0x7bu8),
        ] {
            let check = |x: f32| {
                let code = convert(x);
                let (m, sign) = (code & 0x7f, code & 0x80);
                let distance = |m: u8| (decode(sign | m) as f64 - x as f64).abs();
                for other in [m.wrapping_sub(1), m + 1].into_iter().filter(|&o| o <= last) {
                    let worse = distance(other) > distance(m) || distance(other) == distance(m) && m % 2 == 0;
                    assert!(worse || x.is_infinite() || x.abs() > decode(last), "{x:e} {code:#x}");
                }
                assert!(x.abs() < decode(last) || m == last, "{x:e} saturates");
            };
            (0..300_000).for_each(|_| check(random.near_one(20)));
            for code in 0..last {
                let tie = (decode(code) + decode(code + 1)) / 2.0;
                [tie, tie.next_up(), tie.next_down()].into_iter().for_each(|x| [x, -x].into_iter().for_each(check));
            }
            assert_eq!([convert(f32::INFINITY), convert(-1e30), convert(f32::NAN)], [last, last | 0x80, NAN8]);
            assert_eq!(convert(-0.0), 0x80);
        }
    }
}
