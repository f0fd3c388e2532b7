//! What is asked for: shapes, data type, mask and scale. No memory, no device.

use crate::error::{Error, Result};
use crate::fp8::Fp8;
use crate::layout::Layout;
use crate::pages::Pages;
use crate::value_layout::{self, ValueLayout};
use evo_sdpa_kernels::config::DType;
use std::fmt;

/// Where the diagonal of a causal mask lies: query row `i` sees keys `j <= i + offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Causal {
    /// The last query row sees the last key: offset `kv_len - q_len`, by the shapes of the tensors
    /// (FlashAttention's convention since 2.1).
    #[default]
    BottomRight,
    /// The first query row sees the first key only: offset 0 (PyTorch's `is_causal`).
    TopLeft,
    /// An offset of the caller's.
    Offset(i64),
}

impl Causal {
    /// The offset for a problem of `q_len` query rows and `kv_len` keys.
    pub fn offset(self, q_len: usize, kv_len: usize) -> i64 {
        match self {
            Causal::BottomRight => kv_len as i64 - q_len as i64,
            Causal::TopLeft => 0,
            Causal::Offset(offset) => offset,
        }
    }
}

impl fmt::Display for Causal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Causal::BottomRight => f.write_str("bottom-right"),
            Causal::TopLeft => f.write_str("top-left"),
            Causal::Offset(offset) => write!(f, "offset({offset})"),
        }
    }
}

/// Options of one attention call on host tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options<'a> {
    /// Causal mask; none by default.
    pub causal: Option<Causal>,
    /// Factor on the scores, finite and not negative; 1/sqrt(head_dim) by default.
    pub scale: Option<f32>,
    /// Number of valid keys of each sequence, one entry a batch entry, each in `0..=kv_len`; all keys by default.
    pub kv_lens: Option<&'a [i32]>,
    /// The pages that hold keys and values; by default these are contiguous.
    pub pages: Option<Pages<'a>>,
    /// Into how many parts kernels that can split the keys of a sequence between blocks; the planner's choice by
    /// default. By one kernel, the same number gives the same bits on every device, and in a batch of any size. On a
    /// CPU it means nothing.
    pub splits: Option<u32>,
}

impl Options<'_> {
    /// The problem that these options make of tensors of these layouts; the output is contiguous and the log-sum-exp
    /// not wanted.
    ///
    /// # Errors
    /// Those of [`Problem::validate`], and [`Error::Shape`] when `kv_lens` does not hold one length in `0..=kv_len` for
    /// each sequence, or `pages` not one page of `k` for each that a sequence fills.
    pub fn problem(&self, dtype: DType, q: Layout, k: Layout, v: Layout) -> Result<Problem> {
        let problem = Problem::new(dtype, q, k, v)
            .with_causal(self.causal)
            .with_scale(self.scale)
            .with_kv_lens(self.kv_lens.is_some())
            .with_pages(self.pages.map(|pages| pages.per_sequence));
        problem.validate()?;
        if let Some(lens) = self.kv_lens {
            check_kv_lens(lens, problem.batch(), problem.kv_len())?;
        }
        if let Some(pages) = self.pages {
            pages.check(&problem, self.kv_lens)?;
        }
        Ok(problem)
    }
}

/// One length in `0..=kv_len` for each sequence.
pub(crate) fn check_kv_lens(lens: &[i32], batch: usize, kv_len: usize) -> Result<()> {
    let refused = |value, allowed| Err(Error::Shape { field: "kv_lens", value, allowed });
    if lens.len() != batch {
        return refused(format!("{} entries", lens.len()), format!("{batch}, one for each sequence"));
    }
    match lens.iter().find(|&&len| usize::try_from(len).map_or(true, |len| len > kv_len)) {
        None => Ok(()),
        Some(len) => refused(format!("an entry of {len}"), format!("0..={kv_len}, the keys of k")),
    }
}

/// Rows are contiguous and no offset overflows.
pub(crate) fn check_rows(field: &'static str, layout: &Layout, element_bytes: u32) -> Result<()> {
    if layout.shape()[3] > 1 && layout.strides()[3] != 1 {
        return Err(Error::Layout {
            field,
            value: format!("stride {} of head_dim", layout.strides()[3]),
            allowed: "1, contiguous rows".into(),
        });
    }
    let bytes = layout.extent().and_then(|extent| extent.checked_mul(element_bytes as usize));
    if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Error::Layout {
            field,
            value: format!("{layout}, whose offsets overflow,"),
            allowed: format!("at most {} bytes from first to last element", isize::MAX),
        });
    }
    Ok(())
}

/// No two elements of an output share their place.
pub(crate) fn check_injective(field: &'static str, layout: &Layout) -> Result<()> {
    if layout.is_injective() {
        return Ok(());
    }
    Err(Error::Layout {
        field,
        value: format!("{layout}, in which elements overlap,"),
        allowed: "strides that give every element its own place".into(),
    })
}

/// Head dims of e4m3 inputs are multiples of this: their rows are whole pieces of 16 bytes.
const FP8_HEAD_DIM_UNIT: usize = 16;

/// One attention problem: `out = softmax(scale * q k^T + mask) v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Problem {
    /// Type of q, k, v and out; of out alone where the others are e4m3.
    pub dtype: DType,
    /// Queries, \[batch, heads_q, q_len, head_dim\].
    pub q: Layout,
    /// Keys, \[batch, heads_kv, kv_len, head_dim\], or \[pages, heads_kv, page rows, head_dim\] where they are paged.
    pub k: Layout,
    /// Values, the shape of `k`; that of a contiguous tensor where they do not lie in rows.
    pub v: Layout,
    /// How values lie; those of e4m3 inputs may be transposed.
    pub value_layout: ValueLayout,
    /// Output, the shape of `q`.
    pub out: Layout,
    /// Causal mask.
    pub causal: Option<Causal>,
    /// Factor on the scores; 1/sqrt(head_dim) when `None`.
    pub scale: Option<f32>,
    /// Whether the number of valid keys is given for each sequence.
    pub kv_lens: bool,
    /// How many pages a sequence has room for, where a block table says which they are; `None` when keys and values are
    /// contiguous.
    pub pages_per_sequence: Option<usize>,
    /// Which rows share a scale, where q, k and v are e4m3; `None` when they are of type `dtype`.
    pub fp8: Option<Fp8>,
    /// Whether the log-sum-exp is wanted, f32 \[batch, heads_q, q_len\], natural logarithm.
    pub lse: bool,
}

impl Problem {
    /// A problem without mask and options; the output is contiguous \[batch, heads, seq, head_dim\].
    pub const fn new(dtype: DType, q: Layout, k: Layout, v: Layout) -> Self {
        let out = Layout::bhsd(q.shape());
        Self {
            dtype,
            q,
            k,
            v,
            value_layout: ValueLayout::Rows,
            out,
            causal: None,
            scale: None,
            kv_lens: false,
            pages_per_sequence: None,
            fp8: None,
            lse: false,
        }
    }

    /// Contiguous tensors of \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\].
    pub const fn contiguous(dtype: DType, [batch, heads_q, heads_kv, q_len, kv_len, head_dim]: [usize; 6]) -> Self {
        let kv = Layout::bhsd([batch, heads_kv, kv_len, head_dim]);
        Self::new(dtype, Layout::bhsd([batch, heads_q, q_len, head_dim]), kv, kv)
    }

    /// With a causal mask, or none.
    pub const fn with_causal(self, causal: Option<Causal>) -> Self {
        Self { causal, ..self }
    }

    /// With a factor on the scores, or the default.
    pub const fn with_scale(self, scale: Option<f32>) -> Self {
        Self { scale, ..self }
    }

    /// With or without the number of valid keys of each sequence.
    pub const fn with_kv_lens(self, kv_lens: bool) -> Self {
        Self { kv_lens, ..self }
    }

    /// With keys and values in pages, of which each sequence has room for so many, or with contiguous ones.
    pub const fn with_pages(self, pages_per_sequence: Option<usize>) -> Self {
        Self { pages_per_sequence, ..self }
    }

    /// With q, k and v in e4m3, or in the type of out.
    pub const fn with_fp8(self, fp8: Option<Fp8>) -> Self {
        Self { fp8, ..self }
    }

    /// With values that lie so.
    pub const fn with_value_layout(self, value_layout: ValueLayout) -> Self {
        Self { value_layout, ..self }
    }

    /// With or without the log-sum-exp.
    pub const fn with_lse(self, lse: bool) -> Self {
        Self { lse, ..self }
    }

    /// With an output of this layout.
    pub const fn with_out(self, out: Layout) -> Self {
        Self { out, ..self }
    }

    /// Number of sequences.
    pub const fn batch(&self) -> usize {
        self.q.shape()[0]
    }

    /// Number of query heads.
    pub const fn heads_q(&self) -> usize {
        self.q.shape()[1]
    }

    /// Number of key and value heads.
    pub const fn heads_kv(&self) -> usize {
        self.k.shape()[1]
    }

    /// Query rows of a sequence.
    pub const fn q_len(&self) -> usize {
        self.q.shape()[2]
    }

    /// Key rows of a sequence: where they are paged, of all pages that it has room for.
    pub const fn kv_len(&self) -> usize {
        match self.pages_per_sequence {
            None => self.k.shape()[2],
            Some(pages) => self.k.shape()[2].saturating_mul(pages),
        }
    }

    /// Columns of a row.
    pub const fn head_dim(&self) -> usize {
        self.q.shape()[3]
    }

    /// The factor on the scores.
    pub fn scale(&self) -> f32 {
        self.scale.unwrap_or_else(|| (1.0 / (self.head_dim() as f64).sqrt()) as f32)
    }

    /// The causal offset, or `None` without a causal mask.
    pub fn causal_offset(&self) -> Option<i64> {
        self.causal.map(|causal| causal.offset(self.q_len(), self.kv_len()))
    }

    /// Floating-point operations of the two products, 4 * head_dim for each visible pair of a query and a key
    /// (`kv_lens` not counted).
    pub fn flops(&self) -> f64 {
        let (q_len, kv_len) = (self.q_len() as i64, self.kv_len() as i64);
        let pairs = match self.causal_offset() {
            None => q_len as f64 * kv_len as f64,
            Some(offset) => {
                // Rows first..ramp_end see i + offset + 1 keys, later rows all of them.
                let first = offset.saturating_neg().clamp(0, q_len);
                let ramp_end = kv_len.saturating_sub(offset).clamp(first, q_len);
                let ramp = (ramp_end - first) as f64 * ((first + ramp_end) as f64 / 2.0 + offset as f64 + 0.5);
                ramp + (q_len - ramp_end) as f64 * kv_len as f64
            }
        };
        4.0 * self.head_dim() as f64 * pairs * self.batch() as f64 * self.heads_q() as f64
    }

    /// Bytes of an element of q, k and v.
    pub const fn input_bytes(&self) -> u32 {
        match self.fp8 {
            None => self.dtype.size(),
            Some(_) => 1,
        }
    }

    /// The tensors by name, with the bytes of an element.
    pub(crate) const fn tensors(&self) -> [(&'static str, &Layout, u32); 4] {
        let bytes = self.input_bytes();
        [("q", &self.q, bytes), ("k", &self.k, bytes), ("v", &self.v, bytes), ("out", &self.out, self.dtype.size())]
    }

    /// Elements of the keys of all sequences, and of the values.
    pub(crate) fn kv_elements(&self) -> f64 {
        [self.batch(), self.heads_kv(), self.kv_len(), self.head_dim()].iter().map(|&n| n as f64).product()
    }

    /// Bytes that a launch has to move at least: queries, keys, values and output, each once.
    pub fn bytes(&self) -> f64 {
        let inputs = self.q.elements() as f64 + 2.0 * self.kv_elements();
        inputs * f64::from(self.input_bytes()) + self.out.elements() as f64 * f64::from(self.dtype.size())
    }

    /// Checks what holds for every device: shapes fit each other, heads divide, the scale is usable, rows are
    /// contiguous and no offset overflows; e4m3 inputs have a head dim that is a multiple of 16, no pages, an output in
    /// f16 or bf16, and blocks of rows as [`ScaleBlocks::validate`](crate::ScaleBlocks::validate) asks for; other
    /// inputs have values in rows, and values that lie otherwise a contiguous `v`.
    pub fn validate(&self) -> Result<()> {
        self.validate_shapes()?;
        let scale = self.scale();
        if !scale.is_finite() || scale < 0.0 {
            return Err(Error::Unsupported {
                field: "scale",
                value: scale.to_string(),
                allowed: "finite and not negative".into(),
            });
        }
        for (field, layout, element_bytes) in self.tensors() {
            check_rows(field, layout, element_bytes)?;
        }
        check_injective("out", &self.out)?;
        value_layout::validate(self)?;
        self.fp8.map_or(Ok(()), |fp8| self.validate_fp8(&fp8))
    }

    fn validate_fp8(&self, fp8: &Fp8) -> Result<()> {
        let refused = |field, value, allowed: &str| Err(Error::Unsupported { field, value, allowed: allowed.into() });
        if self.dtype == DType::F32 {
            return refused("dtype", "f32".into(), "f16 or bf16, the output's type, where inputs are e4m3");
        }
        if !self.head_dim().is_multiple_of(FP8_HEAD_DIM_UNIT) {
            return refused("head_dim", self.head_dim().to_string(), "multiples of 16 where inputs are e4m3");
        }
        if self.pages_per_sequence.is_some() {
            return refused("pages", "a block table".into(), "none where inputs are e4m3");
        }
        fp8.tensors().into_iter().try_for_each(|(field, blocks)| blocks.validate(field))
    }

    fn validate_shapes(&self) -> Result<()> {
        let [batch, heads_q, _, head_dim] = self.q.shape();
        let heads_kv = self.heads_kv();
        let expect =
            |field, value: usize, allowed: String| Err(Error::Shape { field, value: value.to_string(), allowed });
        if head_dim == 0 {
            return expect("head_dim", 0, "at least 1".into());
        }
        if self.pages_per_sequence.is_none() && self.k.shape()[0] != batch {
            return expect("batch of k", self.k.shape()[0], format!("{batch}, as q"));
        }
        if self.k.shape()[3] != head_dim {
            return expect("head_dim of k", self.k.shape()[3], format!("{head_dim}, as q"));
        }
        if self.v.shape() != self.k.shape() {
            return Err(Error::Shape {
                field: "v",
                value: format!("{:?}", self.v.shape()),
                allowed: format!("{:?}, the shape of k", self.k.shape()),
            });
        }
        if heads_kv == 0 || heads_q % heads_kv != 0 {
            return expect("heads_q", heads_q, format!("a multiple of heads_kv, which is {heads_kv}"));
        }
        if self.out.shape() != self.q.shape() {
            return Err(Error::Shape {
                field: "out",
                value: format!("{:?}", self.out.shape()),
                allowed: format!("{:?}, the shape of q", self.q.shape()),
            });
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fp8.is_some() {
            f.write_str("e4m3 to ")?;
        }
        write!(f, "{} B{} Hq{}", self.dtype, self.batch(), self.heads_q())?;
        if self.heads_kv() != self.heads_q() {
            write!(f, " Hkv{}", self.heads_kv())?;
        }
        write!(f, " Sq{} Skv{} D{}", self.q_len(), self.kv_len(), self.head_dim())?;
        match self.causal {
            Some(causal) => write!(f, " causal {causal}")?,
            None => f.write_str(" full")?,
        }
        if self.value_layout == ValueLayout::Transposed {
            f.write_str(" transposed values")?;
        }
        match self.pages_per_sequence {
            Some(pages) => write!(f, " in {pages} pages of {}", self.k.shape()[2]),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fp8::ScaleBlocks;

    fn problem() -> Problem {
        Problem::contiguous(DType::Bf16, [2, 8, 2, 64, 96, 64])
    }

    fn refused(problem: Problem) -> String {
        problem.validate().unwrap_err().to_string()
    }

    #[test]
    fn mismatched_shapes_are_named_with_what_would_fit() {
        let p = problem();
        let kv = |shape| Problem { k: Layout::bhsd(shape), v: Layout::bhsd(shape), ..p };
        assert!(refused(kv([3, 2, 96, 64])).contains("batch of k: 3"));
        assert!(refused(kv([2, 2, 96, 32])).contains("head_dim of k: 32"));
        assert!(refused(kv([2, 3, 96, 64])).contains("heads_q: 8 does not fit, allowed: a multiple of heads_kv"));
        assert!(refused(kv([2, 0, 96, 64])).contains("heads_q: 8"));
        assert!(refused(Problem { v: Layout::bhsd([2, 2, 95, 64]), ..p }).contains("the shape of k"));
        assert!(refused(p.with_out(Layout::bhsd([2, 8, 63, 64]))).contains("out: [2, 8, 63, 64]"));
        assert!(refused(Problem::contiguous(DType::F32, [1, 1, 1, 4, 4, 0])).contains("head_dim: 0"));
    }

    #[test]
    fn unusable_scales_are_refused_and_zero_is_not() {
        for scale in [f32::NAN, f32::INFINITY, -0.5] {
            assert!(refused(problem().with_scale(Some(scale))).starts_with("scale: "));
        }
        assert_eq!(problem().with_scale(Some(0.0)).validate(), Ok(()));
    }

    #[test]
    fn rows_must_be_contiguous_and_offsets_must_fit() {
        let p = problem();
        let strided = |strides: [usize; 4]| Layout::strided(&p.q.shape(), &strides).unwrap();
        let q = |strides| Problem { q: strided(strides), ..p };
        assert!(refused(q([65536, 8192, 128, 2])).contains("stride 2 of head_dim"));
        assert!(refused(q([1 << 62, 8192, 64, 1])).contains("overflow"));
        assert!(refused(p.with_out(strided([0, 4096, 64, 1]))).contains("overlap"));
        assert_eq!(q([0, 4096, 64, 1]).validate(), Ok(()));
    }

    #[test]
    fn lengths_must_be_one_a_sequence_and_within_the_keys() {
        let p = problem();
        let with = |lens| Options { kv_lens: Some(lens), ..Options::default() }.problem(p.dtype, p.q, p.k, p.v);
        assert!(with(&[0, 96]).is_ok_and(|p| p.kv_lens));
        for (lens, value) in [(&[96][..], "1 entries"), (&[0, 97], "an entry of 97"), (&[-1, 0], "an entry of -1")] {
            assert!(with(lens).unwrap_err().to_string().contains(value), "{lens:?}");
        }
    }

    #[test]
    fn e4m3_inputs_are_refused_where_they_have_no_meaning() {
        let fp8 = Some(Fp8::uniform(ScaleBlocks::Head));
        let good = problem().with_fp8(fp8);
        assert_eq!(good.validate(), Ok(()));
        assert_eq!((good.input_bytes(), good.dtype.size()), (1, 2));
        assert!(refused(Problem { dtype: DType::F32, ..good }).starts_with("dtype: f32"));
        assert!(
            refused(Problem::contiguous(DType::F16, [1, 1, 1, 4, 4, 24]).with_fp8(fp8)).starts_with("head_dim: 24")
        );
        assert!(refused(good.with_pages(Some(3))).starts_with("pages: "));
        let odd = |fp8| refused(good.with_fp8(Some(fp8)));
        assert!(odd(Fp8 { q: ScaleBlocks::Rows(32), ..Fp8::uniform(ScaleBlocks::Head) }).starts_with("q_scales: "));
        assert!(odd(Fp8 { v: ScaleBlocks::Rows(96), ..Fp8::uniform(ScaleBlocks::Head) }).starts_with("v_scales: "));
    }

    #[test]
    fn causal_flops_count_the_visible_pairs() {
        for (q_len, kv_len) in [(1, 1), (5, 5), (3, 7), (7, 3), (4, 0)] {
            for causal in [Causal::BottomRight, Causal::TopLeft, Causal::Offset(2), Causal::Offset(-3)] {
                let offset = causal.offset(q_len, kv_len);
                let pairs = (0..q_len as i64).map(|i| (i + offset + 1).clamp(0, kv_len as i64)).sum::<i64>();
                let p = Problem::contiguous(DType::F32, [1, 1, 1, q_len, kv_len, 8]).with_causal(Some(causal));
                assert_eq!(p.flops(), 32.0 * pairs as f64, "{p}");
            }
        }
    }
}
