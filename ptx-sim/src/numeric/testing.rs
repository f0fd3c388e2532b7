//! Inputs for the tests of this module.

/// f32 bits at the edges: zeros, subnormals, the smallest and largest normal numbers, powers of two and their
/// neighbours, infinities, NaNs.
pub(crate) const NASTY: [u32; 40] = [
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x8000_0001,
    0x0000_0002,
    0x0000_0003,
    0x007f_ffff,
    0x807f_ffff,
    0x0040_0000,
    0x0080_0000,
    0x8080_0000,
    0x0080_0001,
    0x0100_0000,
    0x0c00_0000,
    0x3380_0000,
    0x3400_0000,
    0x337f_ffff,
    0x3f00_0000,
    0x3f7f_ffff,
    0x3f80_0000,
    0xbf80_0000,
    0x3f80_0001,
    0xbf80_0001,
    0x3fff_ffff,
    0x4000_0000,
    0x4b7f_ffff,
    0x4b80_0000,
    0x4b80_0001,
    0x5f80_0000,
    0x477f_f000,
    0x477f_efff,
    0x7f00_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f7f_fffe,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7f80_0001,
    0xffff_ffff,
];

/// A xorshift* generator (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Any f32 bits; one in eight from [`NASTY`].
    pub(crate) fn f32(&mut self) -> f32 {
        let x = self.next();
        f32::from_bits(if x >> 61 == 0 { NASTY[(x >> 32) as usize % NASTY.len()] } else { x as u32 })
    }

    /// A number whose exponent lies within `spread` of that of 1.
    pub(crate) fn near_one(&mut self, spread: u32) -> f32 {
        let x = self.next();
        let exponent = 127 - spread + (x >> 32) as u32 % (2 * spread + 1);
        f32::from_bits(x as u32 & 0x807f_ffff | exponent << 23)
    }
}
