//! A tensor in device memory.

use super::session::{Memory, Session};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::tensor::{Element, TensorView};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A tensor in the memory of a [`Gpu`](super::Gpu), freed when dropped.
pub struct GpuTensor<T> {
    memory: Memory,
    layout: Layout,
    elements: usize,
    element: PhantomData<T>,
}

impl<T: Element> GpuTensor<T> {
    /// Memory for `layout` that nothing has been written to.
    pub(super) fn uninitialized(session: &Arc<Session>, layout: Layout) -> Result<Self> {
        let bytes = layout.extent().and_then(|elements| elements.checked_mul(size_of::<T>()));
        let (Some(elements), Some(bytes)) = (layout.extent(), bytes) else {
            return Err(Error::Layout {
                field: "data",
                value: format!("{layout}, whose offsets overflow,"),
                allowed: format!("at most {} bytes from first to last element", isize::MAX),
            });
        };
        let memory = Memory::new(session, bytes)?;
        Ok(Self { memory, layout, elements, element: PhantomData })
    }

    /// A copy of what `view` reaches, in the same layout.
    pub(super) fn upload(session: &Arc<Session>, view: TensorView<T>) -> Result<Self> {
        let tensor = Self::uninitialized(session, *view.layout())?;
        tensor.memory.write(&view.data()[..tensor.elements])?;
        Ok(tensor)
    }

    /// Whether the device that `session` is on holds the tensor.
    pub(super) fn is_on(&self, session: &Session) -> bool {
        self.memory.device() == session.device()
    }

    /// Sets every bit, which makes every element NaN, before whatever is put on the stream next.
    pub(super) fn poison(&self) -> Result<()> {
        self.memory.fill(0xff)
    }

    /// What holds the elements, without their layout.
    pub(super) fn into_memory(self) -> Memory {
        self.memory
    }

    /// Shape and strides.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Address of the first element in device memory, 0 when the tensor has no elements. It is good while the tensor
    /// lives.
    pub fn device_ptr(&self) -> u64 {
        self.memory.address()
    }

    /// The elements as they lie in memory: with the tensor's [`Layout`], and with what stands between its rows.
    ///
    /// # Errors
    /// [`Error::Driver`], also for a failure of an earlier launch.
    pub fn download(&self) -> Result<Vec<T>> {
        let mut data = vec![T::default(); self.elements];
        self.memory.read(&mut data)?;
        Ok(data)
    }
}

impl<T> fmt::Debug for GpuTensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuTensor({} at {:#x})", self.layout, self.memory.address())
    }
}
