//! Keys and values in pages that a block table gives out.

use crate::error::{Error, Result};
use crate::problem::Problem;

/// The pages of the sequences of one call: keys and values are \[pages, heads_kv, page rows, head_dim\], with any
/// strides, and key `j` of sequence `b` is row `j % rows` of page `block_table[b * per_sequence + j / rows]`.
///
/// An engine whose cache is \[pages, page rows, heads_kv, head_dim\] passes it as
/// [`Layout::bshd`](crate::Layout::bshd).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages<'a> {
    /// Page numbers, \[batch, per_sequence\]. Entries for keys past a sequence's length are not looked at.
    pub block_table: &'a [i32],
    /// Entries of a sequence.
    pub per_sequence: usize,
}

impl Pages<'_> {
    /// An entry for each page that holds a key, and each of them a page.
    pub(crate) fn check(&self, problem: &Problem, kv_lens: Option<&[i32]>) -> Result<()> {
        let (batch, pages, rows) = (problem.batch(), problem.k.shape()[0], problem.k.shape()[2]);
        let refused = |value, allowed| Err(Error::Shape { field: "block_table", value, allowed });
        if Some(self.block_table.len()) != batch.checked_mul(self.per_sequence) {
            let allowed = format!("{batch} x {}, so many for each sequence", self.per_sequence);
            return refused(format!("{} entries", self.block_table.len()), allowed);
        }
        for sequence in 0..batch {
            for &entry in self.used(sequence, rows, kv_lens) {
                if usize::try_from(entry).map_or(true, |page| page >= pages) {
                    let value = format!("page {entry} of sequence {sequence}");
                    return refused(value, format!("0..{pages}, the pages of k"));
                }
            }
        }
        Ok(())
    }

    /// The entries of a sequence that hold keys, with pages of `rows`; lengths and table fit the problem.
    pub(crate) fn used(&self, sequence: usize, rows: usize, kv_lens: Option<&[i32]>) -> &[i32] {
        let entries = &self.block_table[sequence * self.per_sequence..][..self.per_sequence];
        match kv_lens {
            None => entries,
            Some(lens) => &entries[..(lens[sequence] as usize).div_ceil(rows.max(1))],
        }
    }
}
