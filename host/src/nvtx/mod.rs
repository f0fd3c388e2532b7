//! Named stretches of time for NVIDIA's profilers (NVTX): `nsys profile` draws them, `ncu --nvtx` filters by them.
//!
//! The library marks `plan`, `compile`, `launch`, `wait`, `upload`, `download` and `timing`, the correctness grid
//! `reference` and `correctness`, all in the domain `evo-sdpa`. They need the feature `gpu`; without it a range does
//! nothing.

#[cfg(feature = "gpu")]
mod tool;
#[cfg(not(feature = "gpu"))]
mod tool {
    //! A tool that cannot exist, so that nothing else depends on the feature.

    use std::ffi::CStr;

    /// Has no values.
    pub enum Tool {}

    impl Tool {
        pub fn get() -> Option<&'static Self> {
            None
        }

        pub fn push(&self, _: &CStr) {
            match *self {}
        }

        pub fn pop(&self) {
            match *self {}
        }
    }
}

use std::ffi::CStr;
use std::marker::PhantomData;
use tool::Tool;

/// From its creation to its end, the thread is in a range of the given name, inside of those that it is in already.
///
/// Without a profiler that is the look at one static variable. Nothing is allocated.
#[must_use = "a range ends when it is dropped"]
pub struct Range {
    tool: Option<&'static Tool>,
    /// A range ends on the thread on which it began.
    _thread: PhantomData<*const ()>,
}

impl Range {
    /// Enters a range.
    pub fn new(name: &CStr) -> Self {
        let tool = Tool::get();
        if let Some(tool) = tool {
            tool.push(name);
        }
        Self { tool, _thread: PhantomData }
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(tool) = self.tool {
            tool.pop();
        }
    }
}
