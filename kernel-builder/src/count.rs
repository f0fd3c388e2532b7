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
    /// `bar.sync` and every other barrier of the block, all of its threads or so many.
    pub bar_sync: u32,
    /// `bar.arrive`: arrivals that do not wait, at a barrier for so many threads.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bar_arrive: u32,
    /// `barrier.cluster.arrive` and `barrier.cluster.wait`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cluster_barrier: u32,
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
    /// `cp.async.bulk`: copies by TMA, without commit and wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bulk_copies: u32,
    /// `cp.async.bulk.commit_group`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bulk_commit: u32,
    /// `cp.async.bulk.wait_group`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bulk_wait: u32,
    /// `mbarrier.init`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mbarrier_init: u32,
    /// `mbarrier.arrive`, with and without bytes to expect.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mbarrier_arrive: u32,
    /// `mbarrier.try_wait` and `mbarrier.test_wait`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mbarrier_wait: u32,
    /// `wgmma.mma_async`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wgmma: u32,
    /// `wgmma.fence`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wgmma_fence: u32,
    /// `wgmma.commit_group`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wgmma_commit: u32,
    /// `wgmma.wait_group`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wgmma_wait: u32,
    /// `setmaxnreg`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub setmaxnreg: u32,
    /// `stmatrix`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stmatrix: u32,
}

/// What only kernels of one target hold is left out of the records of the others.
pub(crate) fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Counts {
    /// The counter of an opcode that is counted.
    fn counter(&mut self, opcode: &str) -> Option<&mut u32> {
        let is = |name: &str| opcode.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        Some(if is("bar.warp") {
            &mut self.bar_warp_sync
        } else if is("bar.arrive") || is("barrier.arrive") || is("barrier.cta.arrive") {
            &mut self.bar_arrive
        } else if is("barrier.cluster") {
            &mut self.cluster_barrier
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
        } else if is("cp.async.bulk.commit_group") {
            &mut self.bulk_commit
        } else if is("cp.async.bulk.wait_group") {
            &mut self.bulk_wait
        } else if is("cp.async.bulk.prefetch") {
            return None;
        } else if is("cp.async.bulk") {
            &mut self.bulk_copies
        } else if is("mbarrier.init") {
            &mut self.mbarrier_init
        } else if is("mbarrier.arrive") {
            &mut self.mbarrier_arrive
        } else if is("mbarrier.try_wait") || is("mbarrier.test_wait") {
            &mut self.mbarrier_wait
        } else if is("wgmma.mma_async") {
            &mut self.wgmma
        } else if is("wgmma.fence") {
            &mut self.wgmma_fence
        } else if is("wgmma.commit_group") {
            &mut self.wgmma_commit
        } else if is("wgmma.wait_group") {
            &mut self.wgmma_wait
        } else if is("setmaxnreg") {
            &mut self.setmaxnreg
        } else if is("stmatrix") {
            &mut self.stmatrix
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
\tbar.arrive 3, 256;
\tbarrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
\tcp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {0, 0, 0, 0}], [%r2];
\tcp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;
\tmbarrier.init.shared::cta.b64 [%r1], 1;
\tmbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 128;
\tW: mbarrier.try_wait.parity.shared::cta.b64 p, [%r1], 0;
\twgmma.fence.sync.aligned; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1}, %rd1, %rd2, 1, 1, 1, 0, 0;
\twgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
\tsetmaxnreg.dec.sync.aligned.u32 24;
\tstmatrix.sync.aligned.m8n8.x4.shared.b16 [%r1], {%r1,%r2,%r3,%r4};
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
            bar_arrive: 1,
            cluster_barrier: 2,
            bar_warp_sync: 1,
            shfl_sync: 1,
            vote_sync: 1,
            mma_sync: 1,
            ldmatrix: 1,
            cp_async: 1,
            cp_async_commit: 1,
            cp_async_wait: 1,
            bulk_copies: 1,
            bulk_commit: 1,
            bulk_wait: 1,
            mbarrier_init: 1,
            mbarrier_arrive: 1,
            mbarrier_wait: 1,
            wgmma: 1,
            wgmma_fence: 1,
            wgmma_commit: 1,
            wgmma_wait: 1,
            setmaxnreg: 1,
            stmatrix: 1,
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
