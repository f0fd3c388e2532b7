//! Tensor maps, which only the driver can write.
//!
//! cust's bindings are older than the driver function for it, which is asked for when it is first used. It computes on the
//! host alone, a launch takes a copy, and nothing of a tensor is looked at.

use super::driver;
use crate::error::Result;
use crate::tensor_map::TiledTensor;
use cust::sys::CUresult;
use evo_sdpa_kernels::config::Operands;
use evo_sdpa_kernels::params::TensorMap;
use std::ffi::c_void;
use std::mem::transmute;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The CUDA version that brought `cuTensorMapEncodeTiled`, as the driver counts and as users know it.
const NEEDED_CUDA: (i32, &str) = (12_000, "12.0");
/// `CU_TENSOR_MAP_INTERLEAVE_NONE`.
const INTERLEAVE_NONE: u32 = 0;
/// `CU_TENSOR_MAP_SWIZZLE_128B`.
const SWIZZLE_128B: u32 = 3;
/// `CU_TENSOR_MAP_L2_PROMOTION_L2_128B`: a row of a box is 128 bytes.
const L2_PROMOTION_128B: u32 = 2;
/// `CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE`: zeros.
const FILL_ZEROS: u32 = 0;
/// Axes of a map.
const RANK: u32 = 4;

/// `cuTensorMapEncodeTiled` of cuda.h: the map, type, rank, address, dimensions, strides of all axes but the first, box,
/// element strides, interleave, swizzle, promotion, fill.
type EncodeTiled = unsafe extern "C" fn(
    *mut Aligned,
    u32,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    u32,
    u32,
    u32,
    u32,
) -> CUresult;

/// A map where the driver can write it.
#[repr(C, align(64))]
struct Aligned(TensorMap);

/// The maps of the latest launch. The next one is often like it, and need not encode them again.
#[derive(Default)]
pub(super) struct LatestMaps(Mutex<Option<Box<Encoded>>>);

struct Encoded {
    tensors: [(TiledTensor, u64); 4],
    maps: [TensorMap; 4],
}

impl LatestMaps {
    /// The maps of tensors at these addresses.
    pub(super) fn of(&self, tensors: [(TiledTensor, u64); 4]) -> Result<[TensorMap; 4]> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = latest.as_ref().filter(|known| known.tensors == tensors) {
            return Ok(known.maps);
        }
        let mut maps = [TensorMap([0; 16]); 4];
        for (map, (tensor, address)) in maps.iter_mut().zip(&tensors) {
            *map = encode(tensor, *address)?;
        }
        *latest = Some(Box::new(Encoded { tensors, maps }));
        Ok(maps)
    }
}

/// Whether the driver knows tensor maps.
///
/// # Errors
/// [`Error::DriverTooOld`](crate::Error::DriverTooOld) when it does not.
pub(super) fn check() -> Result<()> {
    encode_tiled().map(drop)
}

/// `CU_TENSOR_MAP_DATA_TYPE_UINT8`, `_FLOAT16` and `_BFLOAT16`.
const fn data_type(elements: Operands) -> u32 {
    match elements {
        Operands::E4m3 => 0,
        Operands::F16 => 6,
        Operands::Bf16 => 9,
    }
}

/// The map of a tensor at an address.
fn encode(tensor: &TiledTensor, address: u64) -> Result<TensorMap> {
    let encode_tiled = encode_tiled()?;
    let mut map = Aligned(TensorMap([0; 16]));
    let block = [tensor.box_columns(), tensor.box_rows, 1, 1];
    // SAFETY: all arrays have the lengths that the rank says and live through the call, the map is aligned to 64 bytes; the
    // driver checks the numbers, and does not look at what the address points at.
    let result = unsafe {
        encode_tiled(
            &mut map,
            data_type(tensor.elements),
            RANK,
            std::ptr::without_provenance_mut(address as usize),
            tensor.dims.as_ptr(),
            tensor.strides.as_ptr(),
            block.as_ptr(),
            [1; RANK as usize].as_ptr(),
            INTERLEAVE_NONE,
            SWIZZLE_128B,
            L2_PROMOTION_128B,
            FILL_ZEROS,
        )
    };
    driver::check("cuTensorMapEncodeTiled", result).map(|()| map.0)
}

/// The driver's function. There is one driver in a process.
fn encode_tiled() -> Result<EncodeTiled> {
    static FUNCTION: OnceLock<Result<EncodeTiled>> = OnceLock::new();
    let find = || {
        let address = driver::newer_function(c"cuTensorMapEncodeTiled", NEEDED_CUDA)?;
        // SAFETY: the function of this name, whose type cuda.h gives.
        Ok(unsafe { transmute::<*mut c_void, EncodeTiled>(address) })
    };
    FUNCTION.get_or_init(find).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_lies_as_in_the_c_header() {
        assert_eq!((size_of::<Aligned>(), align_of::<Aligned>()), (128, 64));
    }
}
