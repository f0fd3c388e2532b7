//! What the launches of a plan left on a device, as the host has it.

use super::plan::{QuantizePlan, scale_count};
use super::{Call, E4m3, Quantized, TokenMean};
use crate::error::Result;
use crate::layout::Layout;
use evo_sdpa_kernels::quantize::TokenMeanParams;

impl QuantizePlan {
    /// What the launches left in the workspace.
    pub(crate) fn read(&self, workspace: &[u8]) -> Result<Call> {
        let floats = |place: usize, count: usize| -> Vec<f32> {
            let bytes = &workspace[place..place + count * size_of::<f32>()];
            bytes.chunks_exact(size_of::<f32>()).map(bytemuck::pod_read_unaligned).collect()
        };
        let quantized = |i: usize, field, blocks| {
            let layout = Layout::bhsd(self.tensors()[i].shape());
            let codes = workspace[self.places.codes[i]..].iter().take(layout.elements());
            let scales = floats(self.places.scales[i], scale_count(&layout, blocks));
            Quantized::new(field, codes.copied().map(E4m3::from_bits).collect(), layout, scales, blocks)
        };
        let mean = |mean: TokenMeanParams| {
            TokenMean::from_values(self.inputs.k.shape(), floats(self.places.mean, mean.mean_threads() as usize))
        };
        Ok(Call {
            q: quantized(0, "q", self.fp8.q)?,
            k: quantized(1, "k", self.fp8.k)?,
            v: quantized(2, "v", self.fp8.v)?,
            k_mean: self.mean.map(mean),
        })
    }
}
