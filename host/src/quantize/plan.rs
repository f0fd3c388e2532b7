//! Quantising the tensors of a call on a device: what has to fit, and the launches as plain data.

use super::tensors::{code_count, mean, scale_count, tensor};
use crate::error::Result;
use crate::fp8::{Fp8, ScaleBlocks};
use crate::layout::Layout;
use crate::limits::{self, ROW_ALIGNMENT};
#[cfg(any(feature = "gpu", feature = "sim"))]
use crate::parameters;
use crate::plan::{DevicePointers, Plan};
use crate::problem::Problem;
use crate::value_layout::ValueLayout;
use evo_sdpa_kernels::config::DType;
use evo_sdpa_kernels::entry::Entry;
use evo_sdpa_kernels::quantize::{Quantize, QuantizeParams, QuantizedTensor, TokenMeanParams, TokenParts};

/// The parts of a workspace begin at multiples of this many bytes.
const PART_ALIGNMENT: usize = 128;

/// The launches that quantise q, k and v, complete but for the addresses: at most `token_sums` and `token_mean`, where
/// keys are less the mean of their tokens; `amax`, where a scale has more than 128 rows; and `quantize`.
///
/// Codes, scales and what launches leave for each other are in one workspace. No launch needs any of it to be zero, so
/// that nothing has to be set before them, and a CUDA graph can repeat them.
///
/// ```
/// use evo_sdpa_host::{DType, DeviceSpec, Fp8, Plan, Problem, QuantizePlan, ScaleBlocks};
///
/// let problem = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64]); // of the tensors before they are e4m3
/// let plan = QuantizePlan::new(&problem, Fp8::uniform(ScaleBlocks::Rows(64)), false)?;
/// let launches: Vec<_> = plan.launches().map(|launch| launch.entry.to_string()).collect();
/// assert_eq!(launches, ["quantize_bf16"]);
/// let (plan, attention) = plan.with_attention(DType::Bf16, |problem| Plan::new(problem, &DeviceSpec::L4))?;
/// assert!(attention.kernel.to_string().starts_with("fwd_fp8_bf16"));
/// # Ok::<(), evo_sdpa_host::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizePlan {
    /// Type of q, k and v.
    pub dtype: DType,
    /// Which rows share a scale.
    pub fp8: Fp8,
    /// Parameters of `amax` and `quantize`, with null addresses: see [`QuantizePlan::bind`].
    pub params: QuantizeParams,
    /// Parameters of `token_sums` and `token_mean`, likewise; `None` where the keys keep their mean.
    pub mean: Option<TokenMeanParams>,
    pub(super) inputs: Problem,
    pub(super) places: Places,
    /// Whether values are left transposed.
    pub(super) transposed: bool,
}

/// One launch of a [`QuantizePlan`], with blocks of [`Entry::threads`] threads and [`Entry::shared_bytes`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeLaunch {
    /// The kernel.
    pub entry: Entry,
    /// Blocks along x, y and z, none of them zero.
    pub grid: [u32; 3],
    /// Its one parameter.
    pub argument: QuantizeArgument,
}

/// The parameter of a [`QuantizeLaunch`].
#[expect(clippy::large_enum_variant, reason = "a plan has four launches at most, and a box is no plain data")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QuantizeArgument {
    /// Of `token_sums` and `token_mean`.
    Mean(TokenMeanParams),
    /// Of `amax` and `quantize`.
    Tensors(QuantizeParams),
}

#[cfg(any(feature = "gpu", feature = "sim"))]
impl QuantizeArgument {
    /// The parameter block as it lies in memory, which is how a driver passes it on.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            QuantizeArgument::Mean(params) => parameters::bytes(params),
            QuantizeArgument::Tensors(params) => parameters::bytes(params),
        }
    }
}

/// Device addresses of one quantisation. They are the caller's; nothing is freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizePointers {
    /// First element of q.
    pub q: u64,
    /// First element of k.
    pub k: u64,
    /// First element of v.
    pub v: u64,
    /// 32-bit \[batch\]; null exactly when the problem has no `kv_lens`.
    pub kv_lens: u64,
    /// [`QuantizePlan::workspace_bytes`] bytes, whatever they hold. It is not that of an attention launch.
    pub workspace: u64,
}

/// Byte offsets in the workspace, for q, k and v.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Places {
    pub codes: [usize; 3],
    pub scales: [usize; 3],
    amax: [usize; 3],
    pub mean: usize,
    sums: usize,
    bytes: usize,
}

impl QuantizePlan {
    /// The quantisation of the tensors of `inputs`, which are of the problem's type; keys less the mean of their tokens
    /// where `subtract_mean` is set. Values are left in rows: see [`QuantizePlan::with_attention`].
    ///
    /// # Errors
    /// Those of [`Problem::validate`] and [`ScaleBlocks::validate`]; [`Error::Unsupported`](crate::Error::Unsupported)
    /// for tensors that are e4m3 already or in pages, for a head dim that is no multiple of 16 or above 256, and for
    /// sizes beyond the grid;
    /// [`Error::Layout`](crate::Error::Layout) for rows that are not 16-byte aligned.
    pub fn new(inputs: &Problem, fp8: Fp8, subtract_mean: bool) -> Result<Self> {
        Self::of(inputs, fp8, subtract_mean, false)
    }

    /// The same with values left as [`ValueLayout::Transposed`] says, at no cost: no launch more, and no byte but zeros
    /// behind the last key.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a head dim above 128, and for values with scales of fewer
    /// than 128 rows, which no kernel takes so.
    pub fn with_transposed_values(self) -> Result<Self> {
        self.with_values(true)
    }

    /// The attention of what is quantised, by `plan`, and the quantisation that leaves values as it takes them.
    ///
    /// The problem that `plan` gets is [`QuantizePlan::attention`] with values [as planned](ValueLayout::Planned): the
    /// time of a kernel for transposed ones is then that of the kernel alone.
    ///
    /// # Errors
    /// Those of `plan`, and of [`QuantizePlan::with_transposed_values`] for a plan that is none of the problem.
    pub fn with_attention(self, dtype: DType, plan: impl FnOnce(&Problem) -> Result<Plan>) -> Result<(Self, Plan)> {
        let attention = plan(&self.attention(dtype).with_value_layout(ValueLayout::Planned))?;
        Ok((self.with_values(attention.takes_transposed_values())?, attention))
    }

    fn with_values(self, transposed: bool) -> Result<Self> {
        if transposed == self.transposed {
            return Ok(self);
        }
        Self::of(&self.inputs, self.fp8, self.mean.is_some(), transposed)
    }

    fn of(inputs: &Problem, fp8: Fp8, subtract_mean: bool, transposed: bool) -> Result<Self> {
        limits::validate_quantize(inputs, &fp8)?;
        if transposed {
            limits::validate_quantize_transposed(inputs, &fp8)?;
        }
        let tensors = [(inputs.q, fp8.q, false), (inputs.k, fp8.k, false), (inputs.v, fp8.v, transposed)];
        let of_tensor = |(layout, blocks, transposed)| tensor(&layout, blocks, inputs.dtype, transposed);
        let params = QuantizeParams { tensors: tensors.map(of_tensor) };
        let all = |count: fn(&QuantizedTensor) -> u32| params.tensors.iter().map(|t| u64::from(count(t))).sum::<u64>();
        let mean = subtract_mean.then(|| mean(&inputs.k, inputs.dtype));
        let threads = mean.map_or(0, |mean| mean.sum_threads(inputs.dtype).max(mean.mean_threads()));
        limits::check_quantize_grid(all(|tensor| tensor.units).max(all(|tensor| tensor.all_parts)), threads)?;
        let mut bytes = 0;
        let mut place = |part: usize| {
            let start = bytes;
            bytes += part.next_multiple_of(PART_ALIGNMENT);
            start
        };
        let scales = |(layout, blocks, _): (Layout, ScaleBlocks, _)| scale_count(&layout, blocks) * size_of::<f32>();
        let floats = |count: u64| count as usize * size_of::<f32>();
        let sums = mean.map_or(0, |mean| mean.mean_threads() * u64::from(mean.parts));
        let places = Places {
            codes: tensors.map(|(layout, _, transposed)| place(code_count(&layout, transposed))),
            scales: tensors.map(|tensor| place(scales(tensor))),
            amax: params.tensors.map(|tensor| place(floats(tensor.all_parts.into()))),
            mean: place(floats(mean.map_or(0, |mean| mean.mean_threads()))),
            sums: place(floats(sums)),
            bytes: 0,
        };
        let places = Places { bytes, ..places };
        Ok(Self { dtype: inputs.dtype, fp8, params, mean, inputs: *inputs, places, transposed })
    }

    /// What [`QuantizePlan::new`] gave, made again.
    #[cfg(feature = "gpu")]
    pub(crate) fn again(&self) -> Result<Self> {
        Self::new(&self.inputs, self.fp8, self.mean.is_some())
    }

    /// The attention of the quantised tensors, which are contiguous \[batch, heads, seq, head_dim\] but for values that
    /// are left transposed, with an output of type `dtype` and all else as the inputs' problem has it.
    ///
    /// Where the keys are less their mean, its log-sum-exp is that of such keys: less by `scale * (q . mean)` than that
    /// of the keys themselves, so that it does not go with that of other keys, as [`MergePlan`](crate::MergePlan) asks
    /// for.
    pub fn attention(&self, dtype: DType) -> Problem {
        let [q, k, v] = self.tensors().map(|layout| Layout::bhsd(layout.shape()));
        let value_layout = if self.transposed { ValueLayout::Transposed } else { ValueLayout::Rows };
        Problem { dtype, q, k, v, value_layout, fp8: Some(self.fp8), ..self.inputs }
    }

    /// Bytes of device memory that codes, scales and intermediate results take.
    pub fn workspace_bytes(&self) -> usize {
        self.places.bytes
    }

    /// Whether there is nothing to launch.
    pub fn is_empty(&self) -> bool {
        self.launches().next().is_none()
    }

    /// The launches in their order, with null addresses.
    pub fn launches(&self) -> impl Iterator<Item = QuantizeLaunch> + use<> {
        self.launches_of(self.params, self.mean)
    }

    /// The launches in their order, with these addresses.
    ///
    /// # Errors
    /// [`Error::Layout`](crate::Error::Layout) for an address that is null or misaligned.
    pub fn bind(&self, pointers: &QuantizePointers) -> Result<impl Iterator<Item = QuantizeLaunch> + use<>> {
        let QuantizePointers { q, k, v, kv_lens, workspace } = *pointers;
        let lens = self.inputs.kv_lens;
        let [has_q, has_k, has_v] = self.tensors().map(|layout| layout.elements() > 0);
        for (field, address, needed, taken, alignment) in [
            ("q", q, has_q, true, ROW_ALIGNMENT),
            ("k", k, has_k, true, ROW_ALIGNMENT),
            ("v", v, has_v, true, ROW_ALIGNMENT),
            ("kv_lens", kv_lens, lens && has_k, lens, 4),
            ("workspace", workspace, self.places.bytes > 0, true, ROW_ALIGNMENT),
        ] {
            limits::check_address(field, address, needed, taken, alignment)?;
        }
        let at = |place: usize| workspace + place as u64;
        let mean = self.mean.map(|mean| {
            let (sums, means) = (at(self.places.sums), at(self.places.mean));
            TokenMeanParams { input: k, lens: kv_lens, sums, mean: means, ..mean }
        });
        let mut params = self.params;
        let of_tensors = [(q, 0, 0), (k, kv_lens, mean.map_or(0, |mean| mean.mean)), (v, kv_lens, 0)];
        for (i, (input, lens, mean)) in of_tensors.into_iter().enumerate() {
            let tensor = &mut params.tensors[i];
            let amax = if tensor.all_parts > 0 { at(self.places.amax[i]) } else { 0 };
            // Without rows there may be no sequence either, and no length.
            let lens = if tensor.rows > 0 { lens } else { 0 };
            let (output, scales) = (at(self.places.codes[i]), at(self.places.scales[i]));
            *tensor = QuantizedTensor { input, output, scales, amax, mean, lens, ..*tensor };
        }
        Ok(self.launches_of(params, mean))
    }

    /// Where codes and scales are in the workspace at this address: [`DevicePointers`] of [`QuantizePlan::attention`],
    /// but for `out`, `lse`, `kv_lens` and a workspace of its own.
    pub fn operands(&self, workspace: u64) -> DevicePointers {
        let at = |place: usize| workspace + place as u64;
        let ([q, k, v], [q_scales, k_scales, v_scales]) = (self.places.codes.map(at), self.places.scales.map(at));
        DevicePointers { q, k, v, q_scales, k_scales, v_scales, ..DevicePointers::default() }
    }

    /// Where the mean of the keys is in the workspace at this address, f32 \[batch, heads_kv, head_dim\]; `None` where
    /// they keep it.
    pub fn k_mean(&self, workspace: u64) -> Option<u64> {
        self.mean.map(|_| workspace + self.places.mean as u64)
    }

    pub(super) fn tensors(&self) -> [Layout; 3] {
        [self.inputs.q, self.inputs.k, self.inputs.v]
    }

    fn launches_of(
        &self,
        params: QuantizeParams,
        mean: Option<TokenMeanParams>,
    ) -> impl Iterator<Item = QuantizeLaunch> + use<> {
        let config = Quantize { dtype: self.dtype };
        let launch = |entry, blocks: u64, argument| QuantizeLaunch { entry, grid: [blocks as u32, 1, 1], argument };
        let of_mean = |entry, threads: fn(&TokenMeanParams, DType) -> u64| {
            let mean = mean?;
            let blocks = threads(&mean, config.dtype).div_ceil(TokenParts::THREADS.into());
            Some(launch(entry, blocks, QuantizeArgument::Mean(mean)))
        };
        let of_tensors = |entry, blocks: fn(&QuantizedTensor) -> u32| {
            let blocks = params.tensors.iter().map(|tensor| u64::from(blocks(tensor))).sum();
            Some(launch(entry, blocks, QuantizeArgument::Tensors(params)))
        };
        let launches = [
            of_mean(Entry::TokenSums(config), TokenMeanParams::sum_threads),
            of_mean(Entry::TokenMean, |mean, _| mean.mean_threads()),
            of_tensors(Entry::Amax(config), |tensor| tensor.all_parts),
            of_tensors(Entry::Quantize(config), |tensor| tensor.units),
        ];
        launches.into_iter().flatten().filter(|launch| launch.grid[0] > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceSpec;
    use crate::error::Error;

    const HEADS: Fp8 = Fp8::uniform(ScaleBlocks::Head);

    fn inputs() -> Problem {
        Problem::contiguous(DType::Bf16, [2, 8, 2, 300, 1000, 64]).with_kv_lens(true)
    }

    fn plan(inputs: &Problem, fp8: Fp8, mean: bool) -> QuantizePlan {
        QuantizePlan::new(inputs, fp8, mean).unwrap()
    }

    fn entries(plan: &QuantizePlan) -> Vec<String> {
        plan.launches().map(|launch| format!("{} {}", launch.entry, launch.grid[0])).collect()
    }

    #[test]
    fn launches_are_those_that_scales_and_mean_need() {
        let units = |rows: usize, unit| 2 * rows.div_ceil(unit);
        for (rows, unit) in [(64, 64), (128, 128)] {
            let fp8 = Fp8::uniform(ScaleBlocks::Rows(rows));
            let blocks = 8 * units(300, unit) + 2 * 2 * units(1000, unit);
            assert_eq!(entries(&plan(&inputs(), fp8, false)), [format!("quantize_bf16 {blocks}")]);
        }
        // 5 units of each head of the queries, and 16 of each other head.
        let fp8 = Fp8 { k: ScaleBlocks::Rows(64), ..HEADS };
        assert_eq!(
            entries(&plan(&inputs(), fp8, true)),
            // 32 words of a row and 4 heads of 32 parts of 32 rows.
            ["token_sums_bf16 16", "token_mean 1", "amax_bf16 144", "quantize_bf16 208"]
        );
    }

    #[test]
    fn transposed_values_take_no_launch_more_and_no_byte_but_their_padding() {
        let inputs = inputs();
        let (rows, values) = (plan(&inputs, HEADS, true), plan(&inputs, HEADS, true).with_transposed_values().unwrap());
        let count = |plan: &QuantizePlan| plan.launches().count();
        assert_eq!(count(&rows), count(&values));
        // Half as many units leave half as many magnitudes.
        let (padding, parts) = (2 * 2 * 64 * (1024 - 1000), 2 * 2 * (16 - 8) * 4);
        assert_eq!(values.workspace_bytes() - rows.workspace_bytes(), padding - parts);
        let bytes = |plan: &QuantizePlan| plan.bytes(Entry::Quantize(Quantize { dtype: DType::Bf16 }));
        assert_eq!(bytes(&values) - bytes(&rows), (padding - parts) as f64);
        assert_eq!(values.attention(DType::F16), rows.attention(DType::F16).with_value_layout(ValueLayout::Transposed));
        assert_eq!(values.with_transposed_values(), Ok(values));
    }

    #[test]
    fn values_are_left_as_the_planned_attention_takes_them() {
        let inputs = Problem::contiguous(DType::Bf16, [4, 16, 16, 4096, 4096, 128]);
        let planned = |inputs: &Problem, fp8, device: DeviceSpec| {
            plan(inputs, fp8, true).with_attention(DType::Bf16, |problem| Plan::new(problem, &device)).unwrap()
        };
        let (quantize, attention) = planned(&inputs, HEADS, DeviceSpec::H200);
        assert!(quantize.transposed && attention.takes_transposed_values() && attention.ahead().is_none());
        // With rows it has been compared with more kernels.
        let mut same = Plan::new(&quantize.attention(DType::Bf16), &DeviceSpec::H200).unwrap();
        same.reason = attention.reason;
        assert_eq!(attention, same);
        let again = quantize.with_attention(DType::Bf16, |problem| Plan::new(problem, &DeviceSpec::L4)).unwrap();
        for (quantize, attention) in [
            planned(&inputs, HEADS, DeviceSpec::L4),
            planned(&inputs, Fp8::uniform(ScaleBlocks::Rows(64)), DeviceSpec::H200),
            planned(&Problem::contiguous(DType::Bf16, [1, 1, 1, 64, 64, 256]), HEADS, DeviceSpec::H200),
            planned(&Problem::contiguous(DType::Bf16, [1, 1, 1, 64, 0, 64]), HEADS, DeviceSpec::H200),
            again,
        ] {
            assert!(!quantize.transposed && !attention.takes_transposed_values() && attention.ahead().is_none());
        }
    }

    #[test]
    fn the_attention_has_contiguous_tensors_and_all_else_of_the_inputs() {
        let shape = [2, 8, 300, 64];
        let inputs = Problem { q: Layout::bshd(shape), ..inputs() }.with_scale(Some(0.5)).with_lse(true);
        let attention = plan(&inputs, HEADS, true).attention(DType::F16);
        let expected = Problem { dtype: DType::F16, q: Layout::bhsd(shape), ..inputs }.with_fp8(Some(HEADS));
        assert_eq!(attention, expected);
        assert_eq!(attention.validate(), Ok(()));
    }

    #[test]
    fn parts_of_the_workspace_are_aligned_and_do_not_overlap() {
        let plan = plan(&inputs(), HEADS, true);
        let Places { codes, scales, amax, mean, sums, bytes } = plan.places;
        let kv = 2 * 2 * 1000 * 64;
        let lens = [2 * 8 * 300 * 64, kv, kv, 16 * 4, 4 * 4, 4 * 4, 16 * 5 * 4, 4 * 16 * 4, 4 * 16 * 4, 4 * 64 * 4];
        let starts = [codes, scales, amax].concat().into_iter().chain([mean]);
        let mut end = 0;
        for (start, len) in starts.zip(lens).chain([(sums, 4 * 32 * 64 * 4)]) {
            assert!(start >= end && start.is_multiple_of(PART_ALIGNMENT), "{start} {end}");
            end = start + len;
        }
        assert!(end <= bytes && bytes < end + PART_ALIGNMENT);
        let operands = plan.operands(1 << 20);
        assert_eq!((operands.q, operands.v_scales), (1 << 20, (1 << 20) + scales[2] as u64));
        assert_eq!(plan.k_mean(1 << 20), Some((1 << 20) + mean as u64));
    }

    #[test]
    fn addresses_must_be_there_and_aligned() {
        let plan = plan(&inputs(), HEADS, true);
        let good = QuantizePointers { q: 256, k: 512, v: 768, kv_lens: 4, workspace: 1 << 20 };
        let launches: Vec<_> = plan.bind(&good).unwrap().collect();
        assert!(launches.iter().map(|l| (l.entry, l.grid)).eq(plan.launches().map(|l| (l.entry, l.grid))));
        let QuantizeArgument::Tensors(params) = launches[3].argument else { panic!("{launches:?}") };
        assert_eq!(
            params.tensors.map(|t| (t.input, t.lens, t.mean > 0)),
            [(256, 0, false), (512, 4, true), (768, 4, false)]
        );
        for (pointers, words) in [
            (QuantizePointers { k: 0, ..good }, "k: address 0x0"),
            (QuantizePointers { v: 8, ..good }, "v: address 0x8 cannot be addressed, allowed: a multiple of 16"),
            (QuantizePointers { kv_lens: 0, ..good }, "kv_lens: address 0x0"),
            (QuantizePointers { workspace: 0, ..good }, "workspace: address 0x0"),
        ] {
            let error = plan.bind(&pointers).err().unwrap().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let plan = QuantizePlan::new(&inputs().with_kv_lens(false), HEADS, false).unwrap();
        assert!(plan.bind(&good).err().unwrap().to_string().starts_with("kv_lens: address 0x4"));
    }

    #[test]
    fn what_cannot_be_quantised_is_named_with_what_could() {
        let refused = |inputs: Problem, fp8, words: &str| {
            let error: Error = QuantizePlan::new(&inputs, fp8, true).unwrap_err();
            assert!(error.to_string().starts_with(words), "{error}");
        };
        let of = |shape| Problem::contiguous(DType::F16, shape);
        refused(of([1, 1, 1, 4, 4, 24]), HEADS, "head_dim: 24 is not supported, allowed: multiples of 16 up to 256");
        refused(of([1, 1, 1, 4, 4, 272]), HEADS, "head_dim: 272");
        refused(inputs().with_pages(Some(3)), HEADS, "pages: ");
        refused(inputs().with_fp8(Some(HEADS)), HEADS, "fp8: e4m3 inputs");
        refused(inputs(), Fp8 { v: ScaleBlocks::Rows(96), ..HEADS }, "v_scales: a scale for 96 rows");
        let odd = Layout::strided(&[2, 2, 1000, 64], &[130_000, 65_000, 65, 1]).unwrap();
        refused(Problem { v: odd, ..inputs() }, HEADS, "v: a stride of 130 bytes along seq");
        refused(of([60_000, 60_000, 1, 1, 1, 16]), HEADS, "q, k and v: 3600");
        refused(of([1, 1, 2, 4, 4, 16]), HEADS, "heads_q: 1");
        let refused = |inputs: Problem, fp8, words: &str| {
            let error = plan(&inputs, fp8, true).with_transposed_values().unwrap_err().to_string();
            assert!(error.starts_with(words) && error.ends_with(" where values are transposed"), "{error}");
        };
        refused(of([1, 1, 1, 4, 4, 144]), HEADS, "head_dim: 144 is not supported, allowed: at most 128");
        let few = Fp8 { v: ScaleBlocks::Rows(64), ..HEADS };
        refused(inputs(), few, "v_scales: a scale for 64 rows is not supported, allowed: for 128 or more");
    }
}
