//! Counting the instructions that must be neither cloned nor lost.

use crate::text::{lines, opcodes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often an entry point holds each instruction, in the text and not in time.
///
/// A compiler that clones a barrier into two arms of a branch, or drops half of a tile, changes these numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// `bar.sync` and every other barrier of the block.
    pub bar_sync: u32,
    /// `bar.warp.sync`.
    pub bar_warp_sync: u32,
    /// `shfl.sync`.
    pub shfl_sync: u32,
    /// `vote.sync`, `match.sync`, `redux.sync` and `activemask`.
    pub vote_sync: u32,
    /// `mma.sync`.
    pub mma_sync: u32,
    /// `ldmatrix`.
    pub ldmatrix: u32,
    /// `cp.async` copies, without commit and wait.
    pub cp_async: u32,
    /// `cp.async.commit_group`.
    pub cp_async_commit: u32,
    /// `cp.async.wait_group` and `cp.async.wait_all`.
    pub cp_async_wait: u32,
}

impl Counts {
    /// The counter of an opcode that is counted.
    fn counter(&mut self, opcode: &str) -> Option<&mut u32> {
        let is = |name: &str| opcode.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        Some(if is("bar.warp") {
            &mut self.bar_warp_sync
        } else if is("bar") || is("barrier") {
            &mut self.bar_sync
        } else if is("shfl") {
            &mut self.shfl_sync
        } else if is("vote") || is("match") || is("redux") || is("activemask") {
            &mut self.vote_sync
        } else if is("mma") || is("wmma") {
            &mut self.mma_sync
        } else if is("ldmatrix") {
            &mut self.ldmatrix
        } else if is("cp.async.commit_group") {
            &mut self.cp_async_commit
        } else if is("cp.async.wait_group") || is("cp.async.wait_all") {
            &mut self.cp_async_wait
        } else if is("cp.async") {
            &mut self.cp_async
        } else {
            return None;
        })
    }
}

/// The counts of every entry point of a PTX text.
pub fn count(text: &str) -> BTreeMap<String, Counts> {
    let mut counts = BTreeMap::<String, Counts>::new();
    for line in lines(text) {
        let Some(entry) = line.entry else { continue };
        let of_entry = match counts.get_mut(entry) {
            Some(of_entry) => of_entry,
            None => counts.entry(entry.to_owned()).or_default(),
        };
        for opcode in opcodes(line.code) {
            if let Some(counter) = of_entry.counter(opcode) {
                *counter += 1;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counted_instruction_is_counted_once_and_for_its_own_entry() {
        let text = "\
.visible .entry one(
)
{
\tbar.sync \t0;
\tbarrier.cta.sync.aligned.all 0;
\tbar.warp.sync \t-1;
\tshfl.sync.bfly.b32 \t%r1, %r2, 1, 31, -1;
\tvote.sync.any.pred %p1, %p2, -1;
\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1}, {%r2}, {%r3}, {%r4};
\tldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3,%r4}, [%r5];
\tcp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16, %r2; cp.async.commit_group;
\tcp.async.wait_group 1;
\t// bar.sync in a comment
\tmarker.bar.sync 0;
}
.visible .entry two(
)
{
\tret;
}
";
        let expected = Counts {
            bar_sync: 2,
            bar_warp_sync: 1,
            shfl_sync: 1,
            vote_sync: 1,
            mma_sync: 1,
            ldmatrix: 1,
            cp_async: 1,
            cp_async_commit: 1,
            cp_async_wait: 1,
        };
        let counts = count(text);
        assert_eq!(counts.len(), 2);
        assert_eq!(counts["one"], expected);
        assert_eq!(counts["two"], Counts::default());
    }

    #[test]
    fn a_cloned_barrier_changes_the_count() {
        let text = ".visible .entry one(\n)\n{\n\tbar.sync 0;\n}\n";
        let cloned = text.replace("\tbar.sync 0;", "\tbar.sync 0;\n\tbra.uni $L__BB0_2;\n\tbar.sync 0;");
        assert_ne!(count(text)["one"], count(&cloned)["one"]);
    }
}
