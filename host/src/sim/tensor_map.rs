//! Tensor maps as the simulator takes them.

use crate::error::{Error, Result};
use crate::tensor_map::TiledTensor;
use evo_sdpa_kernels::params::TensorMap;
use ptx_sim::{Swizzle, TensorMapError};

/// The map of a tensor at an address.
pub(super) fn encode((tensor, address): (TiledTensor, u64)) -> Result<TensorMap> {
    let TiledTensor { elements, dims, strides, box_rows } = tensor;
    let tile = [tensor.box_columns(), box_rows, 1, 1];
    let map = ptx_sim::TensorMap::new(address, elements.bytes(), &dims, &strides, &tile, Swizzle::Bytes128)?;
    Ok(TensorMap(bytemuck::cast(map.encode())))
}

impl From<TensorMapError> for Error {
    fn from(TensorMapError { field, value, allowed }: TensorMapError) -> Self {
        Self::Layout { field, value, allowed }
    }
}
