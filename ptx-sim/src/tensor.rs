//! Tensor maps: how bulk tensor copies see global memory.

use crate::error::TensorMapError;

/// Dimensions of a tensor, at most.
pub(crate) const MAX_RANK: usize = 5;
/// Bytes of an encoded map.
const BYTES: usize = 128;
/// What an encoded map begins with.
const MAGIC: [u8; 8] = *b"ptx-sim\x01";

/// How the chunks of 16 bytes of a tile are permuted in shared memory, so that columns lie in different banks: bits 4 and
/// up of the address are XORed with bits 7 and up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Swizzle {
    /// Not at all.
    #[default]
    None,
    /// Within 32 bytes: bit 4 with bit 7.
    Bytes32,
    /// Within 64 bytes: bits 4 and 5 with bits 7 and 8.
    Bytes64,
    /// Within 128 bytes: bits 4 to 6 with bits 7 to 9.
    Bytes128,
}

impl Swizzle {
    const ALL: [Self; 4] = [Self::None, Self::Bytes32, Self::Bytes64, Self::Bytes128];

    /// Where the byte lies that would lie at `address` without it.
    pub fn apply(self, address: u32) -> u32 {
        let bits = self as u32;
        address ^ (address >> 7 & ((1 << bits) - 1)) << 4
    }

    /// Bytes of a row of a tile, where that is fixed.
    fn span(self) -> Option<u32> {
        (self != Self::None).then_some(16 << self as u32)
    }
}

/// A tensor in global memory and the tile of it that a bulk tensor copy moves, as `cuTensorMapEncodeTiled` takes it: tiled,
/// not interleaved, elements side by side; what lies outside of the tensor is read as zero and not written. The type of
/// the elements does not matter, their size does.
///
/// ```
/// use ptx_sim::{Device, Swizzle, TensorMap};
///
/// // 100 rows of 64 elements of 2 bytes, in tiles of 16 whole rows.
/// let data = Device::new().alloc(100 * 128);
/// let map = TensorMap::new(data.address(), 2, &[64, 100], &[128], &[64, 16], Swizzle::Bytes128)?;
/// // For a kernel with `.param .align 64 .b8 map[128]`.
/// let parameters = map.encode();
/// # Ok::<(), ptx_sim::TensorMapError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorMap {
    address: u64,
    element_bytes: u32,
    dims: Vec<u64>,
    strides: Vec<u64>,
    tile: Vec<u32>,
    swizzle: Swizzle,
}

impl TensorMap {
    /// A map of the tensor at `address`.
    ///
    /// - `element_bytes`: 1, 2, 4 or 8.
    /// - `dims`: elements in each dimension, the innermost first; 1 to 5 dimensions of 1 to 2^32.
    /// - `strides`: bytes from one index to the next in each dimension but the first; multiples of 16 below 2^40.
    /// - `tile`: elements of the box in each dimension, 1 to 256; its innermost rows have a multiple of 16 bytes, and with
    ///   a swizzle as many as the swizzle is named for. The driver also takes shorter rows then; where hardware puts
    ///   them is not documented, and they are refused here.
    ///
    /// # Errors
    /// An argument that is not as above; an address that is not a multiple of 16.
    pub fn new(
        address: u64,
        element_bytes: u32,
        dims: &[u64],
        strides: &[u64],
        tile: &[u32],
        swizzle: Swizzle,
    ) -> Result<Self, TensorMapError> {
        let refuse = |field, value: String, allowed: String| Err(TensorMapError { field, value, allowed });
        let rank = dims.len();
        if !address.is_multiple_of(16) {
            return refuse("address", format!("{address:#x}"), "multiples of 16".into());
        }
        if !matches!(element_bytes, 1 | 2 | 4 | 8) {
            return refuse("element_bytes", element_bytes.to_string(), "1, 2, 4, 8".into());
        }
        if rank == 0 || rank > MAX_RANK {
            return refuse("dims", format!("{rank} dimensions"), format!("1 to {MAX_RANK}"));
        }
        if dims.iter().any(|dim| *dim == 0 || *dim > 1 << 32) {
            return refuse("dims", format!("{dims:?}"), "1 to 2^32 each".into());
        }
        if strides.len() != rank - 1 {
            return refuse("strides", format!("{} strides", strides.len()), (rank - 1).to_string());
        }
        if strides.iter().any(|stride| !stride.is_multiple_of(16) || *stride >= 1 << 40) {
            return refuse("strides", format!("{strides:?}"), "multiples of 16 below 2^40".into());
        }
        if tile.len() != rank {
            return refuse("tile", format!("{} dimensions", tile.len()), rank.to_string());
        }
        if tile.iter().any(|size| *size == 0 || *size > 256) {
            return refuse("tile", format!("{tile:?}"), "1 to 256 each".into());
        }
        let row = tile[0] * element_bytes;
        if !row.is_multiple_of(16) {
            return refuse("tile", format!("rows of {row} bytes"), "multiples of 16".into());
        }
        if let Some(span) = swizzle.span().filter(|span| *span != row) {
            return refuse("tile", format!("rows of {row} bytes"), format!("{span} with this swizzle"));
        }
        let (dims, strides, tile) = (dims.to_vec(), strides.to_vec(), tile.to_vec());
        Ok(Self { address, element_bytes, dims, strides, tile, swizzle })
    }

    /// The bytes that a kernel gets as its parameter, at a multiple of 64 bytes. They are opaque, and not those of the
    /// driver.
    pub fn encode(&self) -> [u8; BYTES] {
        let head = MAGIC.into_iter().chain(self.address.to_le_bytes());
        let kinds = [self.element_bytes as u8, self.dims.len() as u8, self.swizzle as u8];
        let last = self.dims.iter().flat_map(|dim| ((dim - 1) as u32).to_le_bytes());
        let strides = self.strides.iter().flat_map(|stride| stride.to_le_bytes());
        let tile = self.tile.iter().flat_map(|size| (*size as u16).to_le_bytes());
        let mut bytes = [0; BYTES];
        let encoded = head.chain(kinds).chain(last).chain(strides).chain(tile);
        bytes.iter_mut().zip(encoded).for_each(|(byte, encoded)| *byte = encoded);
        bytes
    }

    /// The map that [`encode`](Self::encode) made these bytes of, if it did.
    pub(crate) fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let mut number = |len: usize| {
            let (head, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(head.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let address = number(8)?;
        let (element_bytes, rank, swizzle) = (number(1)? as u32, number(1)? as usize, number(1)? as usize);
        let mut numbers = |count: usize, len: usize| (0..count).map(|_| number(len)).collect::<Option<Vec<u64>>>();
        let dims: Vec<u64> = numbers(rank.min(MAX_RANK), 4)?.into_iter().map(|last| last + 1).collect();
        let strides = numbers(dims.len().checked_sub(1)?, 8)?;
        let tile: Vec<u32> = numbers(dims.len(), 2)?.into_iter().map(|size| size as u32).collect();
        Self::new(address, element_bytes, &dims, &strides, &tile, *Swizzle::ALL.get(swizzle)?).ok()
    }

    pub(crate) fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Bytes of a tile.
    pub(crate) fn tile_bytes(&self) -> u64 {
        self.tile.iter().fold(self.element_bytes.into(), |bytes, size| bytes * u64::from(*size))
    }

    /// How a tile lies in shared memory.
    pub(crate) fn swizzle(&self) -> Swizzle {
        self.swizzle
    }

    /// The innermost rows of the tile at these coordinates, which may be outside of the tensor.
    pub(crate) fn rows(&self, at: &[i32]) -> impl Iterator<Item = TileRow> {
        let (width, bytes) = (i64::from(self.tile[0]), i64::from(self.element_bytes));
        let first = i64::from(at[0]);
        // What of a row lies inside.
        let start = (-first).clamp(0, width);
        let end = (self.dims[0] as i64 - first).clamp(start, width);
        (0..self.tile[1..].iter().product::<u32>()).map(move |row| {
            let (mut rest, mut offset, mut inside) = (row, first * bytes, true);
            for (dim, size) in self.tile.iter().enumerate().skip(1) {
                let index = i64::from(at[dim]) + i64::from(rest % size);
                rest /= size;
                inside &= index >= 0 && index < self.dims[dim] as i64;
                offset = offset.wrapping_add(index.wrapping_mul(self.strides[dim - 1] as i64));
            }
            let (start, end) = if inside { (start, end) } else { (0, 0) };
            TileRow {
                tile: (i64::from(row) * width * bytes + start * bytes) as u32,
                global: self.address.wrapping_add_signed(offset.wrapping_add(start * bytes)),
                bytes: ((end - start) * bytes) as u32,
            }
        })
    }
}

/// The part of a row of a tile that lies inside of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TileRow {
    /// Its offset in the tile, before any swizzle.
    pub tile: u32,
    /// Where it is in global memory.
    pub global: u64,
    /// Its length, which may be 0.
    pub bytes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(dims: &[u64], strides: &[u64], tile: &[u32]) -> Result<TensorMap, TensorMapError> {
        TensorMap::new(0x1000, 2, dims, strides, tile, Swizzle::None)
    }

    #[test]
    fn an_encoded_map_is_the_map() {
        let dims = [64, 1 << 32, 1, 7, 3];
        let strides = [128, 1 << 39, 16, 0];
        for swizzle in Swizzle::ALL {
            let width = swizzle.span().unwrap_or(512) / 2;
            let map = TensorMap::new(0x7f00_0000_0010, 2, &dims, &strides, &[width, 256, 1, 2, 3], swizzle);
            let map = map.expect("it is allowed");
            assert_eq!(TensorMap::decode(&map.encode()), Some(map));
        }
        assert_eq!(TensorMap::decode(&[0; BYTES]), None);
    }

    #[test]
    fn what_the_driver_refuses_is_refused() {
        let field = |map: Result<TensorMap, TensorMapError>| map.expect_err("it is refused").field;
        let new =
            |address, bytes, tile: u32, swizzle| TensorMap::new(address, bytes, &[64, 8], &[128], &[tile, 8], swizzle);
        assert!(new(16, 2, 64, Swizzle::None).is_ok());
        assert_eq!(field(new(8, 2, 64, Swizzle::None)), "address");
        assert_eq!(field(new(16, 3, 64, Swizzle::None)), "element_bytes");
        assert_eq!(field(new(16, 2, 12, Swizzle::None)), "tile");
        assert_eq!(field(new(16, 2, 128, Swizzle::Bytes128)), "tile");
        assert_eq!(field(new(16, 2, 32, Swizzle::Bytes128)), "tile");
        assert!(new(16, 2, 32, Swizzle::Bytes64).is_ok());
        assert_eq!(field(map(&[], &[], &[])), "dims");
        assert_eq!(field(map(&[8; 6], &[16; 5], &[8; 6])), "dims");
        assert_eq!(field(map(&[8, 0], &[16], &[8, 1])), "dims");
        assert_eq!(field(map(&[8, (1 << 32) + 1], &[16], &[8, 1])), "dims");
        assert_eq!(field(map(&[8, 8], &[], &[8, 1])), "strides");
        assert_eq!(field(map(&[8, 8], &[24], &[8, 1])), "strides");
        assert_eq!(field(map(&[8, 8], &[1 << 40], &[8, 1])), "strides");
        assert_eq!(field(map(&[8, 8], &[16], &[8])), "tile");
        assert_eq!(field(map(&[8, 8], &[16], &[8, 257])), "tile");
        assert_eq!(field(map(&[8, 8], &[16], &[8, 0])), "tile");
    }

    #[test]
    fn rows_are_cut_at_the_edges_of_the_tensor() {
        let map = map(&[20, 3], &[64], &[8, 2]).expect("it is allowed");
        let rows = |x, y| map.rows(&[x, y]).map(|row| (row.tile, row.global, row.bytes)).collect::<Vec<_>>();
        assert_eq!(rows(0, 0), [(0, 0x1000, 16), (16, 0x1040, 16)]);
        assert_eq!(rows(-3, -1)[1], (16 + 6, 0x1000, 10));
        assert_eq!(rows(-3, -1)[0].2, 0);
        assert_eq!(rows(16, 2)[0], (0, 0x1000 + 128 + 32, 8));
        assert_eq!(rows(16, 2)[1].2, 0);
        assert!(rows(20, 0).iter().chain(&rows(-8, 0)).chain(&rows(i32::MIN, i32::MAX)).all(|row| row.2 == 0));
    }

    #[test]
    fn a_swizzle_permutes_the_chunks_of_its_span() {
        for (swizzle, span) in [(Swizzle::Bytes32, 32), (Swizzle::Bytes64, 64), (Swizzle::Bytes128, 128)] {
            for row in 0..16 {
                let chunks = (0..span / 16).map(|chunk| swizzle.apply(row * 128 + chunk * 16) / 16 % 8);
                let expected = (0..span / 16).map(|chunk| chunk ^ (row % (span / 16)));
                assert!(chunks.eq(expected), "{swizzle:?} row {row}");
            }
        }
        assert_eq!(Swizzle::None.apply(0x3ff), 0x3ff);
    }
}
