//! PTX text as a tree, with no knowledge of single instructions.

pub(crate) mod ast;
