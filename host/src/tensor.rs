//! Typed views of host memory.

use crate::error::{Error, Result};
use crate::layout::Layout;
use evo_sdpa_kernels::config::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

mod sealed {
    /// Plain bits: any of them are an element.
    pub trait Sealed: bytemuck::Pod + crate::cpu::Compiled {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
    impl Sealed for f32 {}
}

/// An element type of attention: [`struct@f16`], [`bf16`] or [`f32`].
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + PartialEq + sealed::Sealed + 'static {
    /// The type as a value.
    const DTYPE: DType;
    /// Exact widening.
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Rounds once to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    /// Exact widening.
    fn to_f64(self) -> f64 {
        f64::from(self.to_f32())
    }
    /// Widens as many elements as both slices have.
    #[inline]
    fn widen(values: &[Self], out: &mut [f32]) {
        out.iter_mut().zip(values).for_each(|(to, x)| *to = x.to_f32());
    }
    /// Rounds as many elements as both slices have, as [`Element::from_f32`] does.
    #[inline]
    fn narrow(values: &[f32], out: &mut [Self]) {
        out.iter_mut().zip(values).for_each(|(to, &x)| *to = Self::from_f32(x));
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
    fn widen(values: &[Self], out: &mut [f32]) {
        let len = values.len().min(out.len());
        values[..len].convert_to_f32_slice(&mut out[..len]);
    }
    fn narrow(values: &[f32], out: &mut [Self]) {
        let len = values.len().min(out.len());
        out[..len].convert_from_f32_slice(&values[..len]);
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
    #[inline]
    fn widen(values: &[Self], out: &mut [f32]) {
        // A plain shift vectorises, half's conversion stops to make NaNs quiet.
        out.iter_mut().zip(values).for_each(|(to, x)| *to = f32::from_bits(u32::from(x.to_bits()) << 16));
    }
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
}

/// Evaluates an expression with `T` as the element type of a [`DType`] that is known at run time.
///
/// ```
/// use evo_sdpa_host::{DType, with_element};
/// let size = with_element!(DType::Bf16, T => size_of::<T>());
/// assert_eq!(size, 2);
/// ```
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F16 => {
                type $T = $crate::half::f16;
                $body
            }
            $crate::DType::Bf16 => {
                type $T = $crate::half::bf16;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
        }
    };
}

fn check_storage(layout: &Layout, len: usize) -> Result<()> {
    match layout.extent() {
        Some(extent) if extent <= len => Ok(()),
        extent => Err(Error::Layout {
            field: "data",
            value: match extent {
                Some(extent) => format!("{layout}, which reaches {extent} elements,"),
                None => format!("{layout}, whose offsets overflow,"),
            },
            allowed: format!("the {len} elements of the buffer"),
        }),
    }
}

/// Borrowed host memory with a layout that fits it.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T: Element> TensorView<'a, T> {
    /// Fails when `layout` reaches beyond `data`.
    pub fn new(data: &'a [T], layout: Layout) -> Result<Self> {
        check_storage(&layout, data.len())?;
        Ok(Self { data, layout })
    }

    /// Contiguous \[batch, heads, seq, head_dim\].
    pub fn bhsd(data: &'a [T], shape: [usize; 4]) -> Result<Self> {
        Self::new(data, Layout::bhsd(shape))
    }

    /// The whole buffer that the layout points into.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Element (`batch`, `head`, `seq`, `column`).
    ///
    /// # Panics
    /// When an index is outside the shape.
    pub fn at(&self, batch: usize, head: usize, seq: usize, column: usize) -> T {
        let index = [batch, head, seq, column];
        assert!(index.iter().zip(self.layout.shape()).all(|(&i, n)| i < n), "{index:?} in {}", self.layout);
        self.data[self.layout.row_offset(batch, head, seq) + column * self.layout.strides()[3]]
    }
}

/// Mutably borrowed host memory with a layout that fits it and in which no two elements share their place.
#[derive(Debug)]
pub struct TensorViewMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

impl<'a, T: Element> TensorViewMut<'a, T> {
    /// Fails when `layout` reaches beyond `data` or lays two elements onto each other.
    pub fn new(data: &'a mut [T], layout: Layout) -> Result<Self> {
        check_storage(&layout, data.len())?;
        if !layout.is_injective() {
            return Err(Error::Layout {
                field: "out",
                value: format!("{layout}, in which elements overlap,"),
                allowed: "strides that give every element its own place".into(),
            });
        }
        Ok(Self { data, layout })
    }

    /// Contiguous \[batch, heads, seq, head_dim\].
    pub fn bhsd(data: &'a mut [T], shape: [usize; 4]) -> Result<Self> {
        Self::new(data, Layout::bhsd(shape))
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The whole buffer that the layout points into.
    pub fn data_mut(&mut self) -> &mut [T] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_must_fit_its_buffer() {
        let data = [0.0f32; 63];
        let error = TensorView::bhsd(&data, [1, 2, 4, 8]).unwrap_err().to_string();
        assert!(error.contains("64 elements") && error.contains("63 elements"), "{error}");
    }

    #[test]
    fn an_output_view_must_not_overlap_itself() {
        let mut data = [0.0f32; 64];
        let layout = Layout::strided(&[2, 1, 4, 8], &[0, 0, 8, 1]).unwrap();
        assert!(TensorViewMut::new(&mut data, layout).is_err());
        assert!(TensorView::new(&data, layout).is_ok());
    }
}
