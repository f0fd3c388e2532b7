//! Bytes that the launches of a quantisation move.

use super::plan::QuantizePlan;
use super::tensors::{code_count, scale_count};
use evo_sdpa_kernels::entry::Entry;

/// Bytes of a scale, a magnitude, a sum or a mean.
const FLOAT: f64 = size_of::<f32>() as f64;

impl QuantizePlan {
    /// Bytes that a kernel of the plan moves at least: all that it reads and all that it writes, each once; 0 for one
    /// that the plan does not launch. Every token counts: `kv_lens` are not known before the launch.
    pub fn bytes(&self, entry: Entry) -> f64 {
        if !self.launches().any(|launch| launch.entry == entry) {
            return 0.0;
        }
        let elements = self.tensors().map(|layout| layout.elements() as f64);
        let inputs = elements.map(|elements| elements * f64::from(self.dtype.size()));
        let parts = self.params.tensors.map(|tensor| FLOAT * f64::from(tensor.all_parts));
        let columns = self.mean.map_or(0.0, |mean| mean.mean_threads() as f64);
        let mean = FLOAT * columns;
        let sums = self.mean.map_or(0.0, |of| mean * f64::from(of.parts));
        match entry {
            Entry::TokenSums(_) => inputs[1] + sums,
            Entry::TokenMean => sums + mean,
            Entry::Amax(_) => {
                let read = [inputs[0], inputs[1] + mean, inputs[2]];
                let of_tensor = |(read, parts)| if parts > 0.0 { read + parts } else { 0.0 };
                read.into_iter().zip(parts).map(of_tensor).sum()
            }
            _ => {
                let tensors = self.tensors().into_iter().zip([self.fp8.q, self.fp8.k, self.fp8.v]);
                let scales: usize = tensors.map(|(layout, blocks)| scale_count(&layout, blocks)).sum();
                let sum = |bytes: [f64; 3]| bytes.into_iter().sum::<f64>();
                let codes = [elements[0], elements[1], code_count(&self.inputs.v, self.transposed) as f64];
                sum(inputs) + sum(parts) + mean + sum(codes) + FLOAT * scales as f64
            }
        }
    }
}
