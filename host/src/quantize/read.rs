//! What the launches of a plan left on a device, as the host has it.

use super::plan::QuantizePlan;
use super::tensors::{code_count, scale_count};
use super::{Call, E4m3, Quantized, TokenMean};
use crate::error::Result;
use crate::layout::Layout;
use evo_sdpa_kernels::quantize::TokenMeanParams;
use evo_sdpa_kernels::transpose::Transpose;

impl QuantizePlan {
    /// What the launches left in the workspace, values in rows.
    pub(crate) fn read(&self, workspace: &[u8]) -> Result<Call> {
        let floats = |place: usize, count: usize| -> Vec<f32> {
            let bytes = &workspace[place..place + count * size_of::<f32>()];
            bytes.chunks_exact(size_of::<f32>()).map(bytemuck::pod_read_unaligned).collect()
        };
        let quantized = |i: usize, field, blocks, transposed| {
            let layout = Layout::bhsd(self.tensors()[i].shape());
            let codes = &workspace[self.places.codes[i]..][..code_count(&layout, transposed)];
            let scales = floats(self.places.scales[i], scale_count(&layout, blocks));
            let codes = if transposed { rows(codes, &layout) } else { codes.to_vec() };
            Quantized::new(field, codes.into_iter().map(E4m3::from_bits).collect(), layout, scales, blocks)
        };
        let mean = |mean: TokenMeanParams| {
            TokenMean::from_values(self.inputs.k.shape(), floats(self.places.mean, mean.mean_threads() as usize))
        };
        Ok(Call {
            q: quantized(0, "q", self.fp8.q, false)?,
            k: quantized(1, "k", self.fp8.k, false)?,
            v: quantized(2, "v", self.fp8.v, self.transposed)?,
            k_mean: self.mean.map(mean),
        })
    }
}

/// The rows of a tensor of this contiguous layout, of which there are transposed codes.
fn rows(codes: &[u8], layout: &Layout) -> Vec<u8> {
    let [_, _, keys, head_dim] = layout.shape();
    let (row_bytes, group) = (Transpose::row_bytes(keys as u32) as usize, Transpose::KEYS as usize);
    let mut rows = vec![0; layout.elements()];
    for (column, of_column) in codes.chunks_exact(row_bytes.max(1)).enumerate() {
        for (byte, &code) in of_column.iter().enumerate() {
            let key = byte / group * group + Transpose::key((byte % group) as u32) as usize;
            if key < keys {
                rows[(column / head_dim * keys + key) * head_dim + column % head_dim] = code;
            }
        }
    }
    rows
}
