//! Queries, keys and values as e4m3 numbers with scales: what an attention kernel for FP8 reads.
//!
//! A block is the rows that share a scale ([`ScaleBlocks`]). With `amax` its largest magnitude as an f32:
//!
//! - `scale = max(amax / 448, 2^-126)`, one f32 division; the least normal number keeps the inverse finite. A block of
//!   zeros alone has the scale 1.
//! - `element = e4m3(x * (1 / scale))`: one f32 division for a block, one f32 product for an element, both rounded to
//!   nearest, then [`E4m3::from_f32`]. Zeros keep their sign.
//!
//! The device does the same operations, and agrees bit for bit. On numbers that are not finite [`quantize`] is an error.
//! A kernel has no errors: see [`quantize_as_device`], which is its policy.
//!
//! A token beyond its sequence's `kv_lens` entry is never looked at: its elements are zero, and no scale follows from it.

mod call;
mod deviation;
mod e4m3;
mod mean;
mod plan;
#[cfg(any(feature = "gpu", feature = "sim"))]
mod read;
mod tensors;
mod traffic;

pub use call::Call;
pub use deviation::Deviation;
pub use e4m3::E4m3;
pub use mean::TokenMean;
pub use plan::{QuantizeArgument, QuantizeLaunch, QuantizePlan, QuantizePointers};

use crate::error::{Error, Result};
use crate::fp8::ScaleBlocks;
use crate::layout::Layout;
use crate::problem::{check_kv_lens, check_rows};
use crate::tensor::{Element, TensorView};
use rayon::prelude::*;

/// A tensor in e4m3 with its scales: element (b, h, row, column) is the e4m3 number there times [`Quantized::scale`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    data: Vec<E4m3>,
    layout: Layout,
    scales: Vec<f32>,
    blocks: ScaleBlocks,
}

impl Quantized {
    /// A tensor that is quantised already. `scales` are contiguous, of the axes [`ScaleBlocks::scales`]; `field` is what
    /// errors call the tensor.
    ///
    /// # Errors
    /// [`Error::Layout`] when `layout` reaches beyond `data` or its rows are not contiguous, [`Error::Shape`] when the
    /// number of scales is another one, [`Error::Unsupported`] when a scale is negative or not finite, and those of
    /// [`ScaleBlocks::validate`].
    pub fn new(
        field: &'static str,
        data: Vec<E4m3>,
        layout: Layout,
        scales: Vec<f32>,
        blocks: ScaleBlocks,
    ) -> Result<Self> {
        blocks.validate(field)?;
        check_rows(field, &layout, size_of::<E4m3>() as u32)?;
        let extent = layout.extent().unwrap_or(usize::MAX);
        if extent > data.len() {
            return Err(Error::Layout {
                field,
                value: format!("{layout}, which reaches {extent} elements,"),
                allowed: format!("the {} elements of the buffer", data.len()),
            });
        }
        let axes = blocks.scales(layout.shape());
        let expected = axes.into_iter().fold(1, usize::saturating_mul);
        if scales.len() != expected {
            return Err(Error::Shape {
                field,
                value: format!("{} scales", scales.len()),
                allowed: format!("{expected}, {axes:?}"),
            });
        }
        match scales.iter().find(|scale| !(scale.is_finite() && **scale >= 0.0)) {
            None => Ok(Self { data, layout, scales, blocks }),
            Some(scale) => Err(Error::Unsupported {
                field,
                value: format!("a scale of {scale}"),
                allowed: "finite and not negative".into(),
            }),
        }
    }

    /// The e4m3 numbers; those of [`quantize`] are contiguous.
    pub fn data(&self) -> &[E4m3] {
        &self.data
    }

    /// The numbers that the layout reaches, which fits the data.
    #[cfg(any(feature = "gpu", feature = "sim"))]
    pub(crate) fn reached(&self) -> &[E4m3] {
        &self.data[..self.layout.extent().unwrap_or(0)]
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The scales, contiguous, of the axes [`ScaleBlocks::scales`].
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Which rows share a scale.
    pub fn blocks(&self) -> ScaleBlocks {
        self.blocks
    }

    /// The scale of row (`batch`, `head`, `row`).
    ///
    /// # Panics
    /// When there is no such row.
    pub fn scale(&self, batch: usize, head: usize, row: usize) -> f32 {
        self.scales[place_of_scale(self.blocks, self.layout.shape(), [batch, head, row])]
    }

    /// The numbers that the tensor stands for, contiguous \[batch, heads, seq, head_dim\], each rounded once to f32.
    pub fn dequantize(&self) -> Vec<f32> {
        let shape = self.layout.shape();
        let head_dim = shape[3].max(1);
        let mut numbers = vec![0.0; self.layout.elements()];
        numbers.par_chunks_mut(head_dim).enumerate().for_each(|(index, numbers)| {
            let [b, h, row] = row_of(shape, index);
            let (start, scale) = (self.layout.row_offset(b, h, row), self.scale(b, h, row));
            numbers.iter_mut().zip(&self.data[start..]).for_each(|(to, x)| *to = x.to_f32() * scale);
        });
        numbers
    }
}

/// The tensor of `view` in e4m3, contiguous \[batch, heads, seq, head_dim\], by the rules of this [module](self).
/// `field` is what errors call the tensor; `kv_lens` are the valid tokens of each sequence, all of them where not given.
///
/// # Errors
/// [`Error::NotFinite`] for the first element that is infinite or NaN; those of [`ScaleBlocks::validate`];
/// [`Error::Layout`] when rows are not contiguous; [`Error::Shape`] when there are no columns, or `kv_lens` does not hold a
/// length in `0..=seq` for each sequence.
pub fn quantize<T: Element>(
    field: &'static str,
    view: TensorView<T>,
    blocks: ScaleBlocks,
    kv_lens: Option<&[i32]>,
) -> Result<Quantized> {
    let tokens = Tokens::new(field, view, kv_lens)?;
    tokens.check_finite(field)?;
    convert(field, &tokens, blocks)
}

/// [`quantize`] with a kernel's policy for numbers that are not finite: they have no say in `amax`, NaN becomes
/// [`E4m3::NAN`], and infinities become 448 with their sign, times the scale.
///
/// # Errors
/// Those of [`quantize`], but for [`Error::NotFinite`].
pub fn quantize_as_device<T: Element>(
    field: &'static str,
    view: TensorView<T>,
    blocks: ScaleBlocks,
    kv_lens: Option<&[i32]>,
) -> Result<Quantized> {
    convert(field, &Tokens::new(field, view, kv_lens)?, blocks)
}

fn convert<T: Element>(field: &'static str, tokens: &Tokens<T>, blocks: ScaleBlocks) -> Result<Quantized> {
    blocks.validate(field)?;
    let shape = tokens.view.layout().shape();
    let layout = Layout::bhsd(shape);
    let mut data = vec![E4m3::default(); layout.elements()];
    let mut amax = vec![0.0f32; blocks.scales(shape).into_iter().product()];
    let mut of_rows = vec![0.0f32; tokens.rows()];
    of_rows.par_iter_mut().enumerate().for_each(|(row, amax)| {
        let magnitudes = tokens.row(row).iter().map(|x| x.to_f32().abs()).filter(|x| x.is_finite());
        *amax = magnitudes.fold(0.0, f32::max);
    });
    let place = |row| place_of_scale(blocks, shape, row_of(shape, row));
    for (row, &of_row) in of_rows.iter().enumerate() {
        let amax = &mut amax[place(row)];
        *amax = amax.max(of_row);
    }
    let scales: Vec<f32> = amax.into_iter().map(scale_of).collect();
    data.par_chunks_mut(shape[3]).enumerate().for_each(|(row, data)| {
        let inverse = 1.0 / scales[place(row)];
        data.iter_mut().zip(tokens.row(row)).for_each(|(to, x)| *to = E4m3::from_f32(x.to_f32() * inverse));
    });
    Ok(Quantized { data, layout, scales, blocks })
}

/// The scale of a block whose largest magnitude is `amax`.
fn scale_of(amax: f32) -> f32 {
    if amax == 0.0 { 1.0 } else { (amax / E4m3::MAX).max(f32::MIN_POSITIVE) }
}

/// Where the scale of row \[batch, head, row\] is among those of a tensor.
fn place_of_scale(blocks: ScaleBlocks, shape: [usize; 4], [batch, head, row]: [usize; 3]) -> usize {
    let [of_batch, of_head] = blocks.strides(shape);
    batch * of_batch + head * of_head + (row >> blocks.shift())
}

/// \[batch, head, row\] of a row counted over \[batch, heads, seq\].
fn row_of([_, heads, seq, _]: [usize; 4], index: usize) -> [usize; 3] {
    [index / seq / heads, index / seq % heads, index % seq]
}

/// A tensor of tokens, of which the last ones of a sequence may be no valid ones.
struct Tokens<'a, T> {
    view: TensorView<'a, T>,
    kv_lens: Option<&'a [i32]>,
}

impl<'a, T: Element> Tokens<'a, T> {
    fn new(field: &'static str, view: TensorView<'a, T>, kv_lens: Option<&'a [i32]>) -> Result<Self> {
        let [batch, _, seq, head_dim] = view.layout().shape();
        if head_dim == 0 {
            let value = format!("{} without columns", view.layout());
            return Err(Error::Shape { field, value, allowed: "a head_dim of at least 1".into() });
        }
        check_rows(field, view.layout(), T::DTYPE.size())?;
        kv_lens.map_or(Ok(()), |lens| check_kv_lens(lens, batch, seq))?;
        Ok(Self { view, kv_lens })
    }

    /// Valid tokens of a sequence.
    fn len(&self, batch: usize) -> usize {
        self.kv_lens.map_or(self.view.layout().shape()[2], |lens| lens[batch] as usize)
    }

    /// A row counted over \[batch, heads, seq\]; no elements for a token that is no valid one.
    fn row(&self, index: usize) -> &'a [T] {
        let shape = self.view.layout().shape();
        let [b, h, row] = row_of(shape, index);
        if row >= self.len(b) {
            return &[];
        }
        &self.view.data()[self.view.layout().row_offset(b, h, row)..][..shape[3]]
    }

    /// Rows of all heads of all sequences.
    fn rows(&self) -> usize {
        let layout = self.view.layout();
        layout.elements() / layout.shape()[3]
    }

    fn check_finite(&self, field: &'static str) -> Result<()> {
        let in_row = |index: usize| {
            let (column, x) = self.row(index).iter().enumerate().find(|(_, x)| !x.to_f32().is_finite())?;
            let [b, h, row] = row_of(self.view.layout().shape(), index);
            Some(Error::NotFinite { field, at: [b, h, row, column], value: x.to_f32().to_string() })
        };
        (0..self.rows()).into_par_iter().find_map_first(in_row).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
