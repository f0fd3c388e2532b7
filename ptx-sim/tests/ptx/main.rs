//! Each family of instructions, and each kind of finding, on pieces of PTX written by hand.
//!
//! What is expected comes from Rust's own arithmetic or from the text of the PTX ISA.

mod common;

mod atomics;
mod barrier;
mod bits;
mod control;
mod convert;
mod float;
mod integer;
mod memory;
mod predicate;
mod races;
mod warp;
