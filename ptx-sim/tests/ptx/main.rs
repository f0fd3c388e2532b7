//! Each family of instructions, and each kind of finding, on pieces of PTX written by hand.
//!
//! What is expected comes from Rust's own arithmetic or from the text of the PTX ISA.

mod common;

mod async_store;
mod atomics;
mod barrier;
mod bits;
mod bulk;
mod cluster;
mod control;
mod convert;
mod cooperation;
mod copies;
mod distributed;
mod findings;
mod float;
mod integer;
mod matrix;
mod mbarrier;
mod memory;
mod multicast;
mod pipeline;
mod predicate;
mod proxies;
mod races;
mod refill;
mod refusals;
mod warp;
mod wgmma;
