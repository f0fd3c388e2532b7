//! Asynchronous copies of a warp that have not arrived.

use crate::registers::lanes;
use std::collections::VecDeque;

/// A `cp.async` of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub lane: u8,
    pub pc: u32,
    /// Offset in shared memory.
    pub destination: u32,
    /// Bytes written.
    pub bytes: u32,
    /// What they become.
    pub value: u128,
}

/// What some lanes closed with `commit_group`.
#[derive(Debug)]
struct Group {
    lanes: u32,
    copies: Vec<Copy>,
}

/// Asynchronous copies of a warp that have not arrived. Each lane has groups of its own, as PTX says.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    open: Vec<Copy>,
    groups: VecDeque<Group>,
}

impl Copies {
    pub fn clear(&mut self) {
        self.open.clear();
        self.groups.clear();
    }

    pub fn issue(&mut self, copy: Copy) {
        self.open.push(copy);
    }

    /// `cp.async.commit_group` of these lanes.
    pub fn commit(&mut self, mask: u32) {
        let taken = |copy: &Copy| mask >> copy.lane & 1 == 1;
        let copies = if self.open.iter().all(taken) {
            std::mem::take(&mut self.open)
        } else {
            let (copies, open) = self.open.drain(..).partition(taken);
            self.open = open;
            copies
        };
        self.groups.push_back(Group { lanes: mask, copies });
    }

    /// The copies that must arrive when these lanes wait until at most `open` groups are left, oldest first.
    pub fn wait(&mut self, mask: u32, open: u32) -> Vec<Copy> {
        let mut newer = [0; 32];
        let mut due = Vec::with_capacity(self.groups.len());
        for group in self.groups.iter().rev() {
            let mut arrives = 0;
            for lane in lanes(group.lanes & mask) {
                arrives |= u32::from(newer[lane] >= open) << lane;
                newer[lane] += 1;
            }
            due.push(arrives);
        }
        let mut arrived = Vec::new();
        for (group, arrives) in self.groups.iter_mut().zip(due.into_iter().rev()) {
            if arrives == 0 {
                continue;
            }
            group.lanes &= !arrives;
            let all = group.lanes == 0;
            if all && arrived.is_empty() {
                arrived = std::mem::take(&mut group.copies);
            } else {
                arrived.extend(group.copies.extract_if(.., |copy| arrives >> copy.lane & 1 == 1));
            }
        }
        self.groups.retain(|group| group.lanes != 0);
        arrived
    }

    /// `cp.async.wait_all`: also what no group holds yet.
    pub fn wait_all(&mut self, mask: u32) -> Vec<Copy> {
        let mut arrived = self.wait(mask, 0);
        arrived.extend(self.open.extract_if(.., |copy| mask >> copy.lane & 1 == 1));
        arrived
    }

    /// A copy that these lanes never waited for.
    pub fn unfinished(&self, mask: u32) -> Option<Copy> {
        let all = self.groups.iter().flat_map(|group| &group.copies).chain(&self.open);
        all.copied().find(|copy| mask >> copy.lane & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(lane: u8, destination: u32) -> Copy {
        Copy { lane, pc: 0, destination, bytes: 16, value: 0 }
    }

    fn destinations(copies: Vec<Copy>) -> Vec<u32> {
        copies.iter().map(|copy| copy.destination).collect()
    }

    #[test]
    fn a_wait_leaves_the_newest_groups_open() {
        let mut copies = Copies::default();
        for group in 0..3 {
            copies.issue(copy(0, group));
            copies.commit(1);
        }
        assert_eq!(destinations(copies.wait(1, 1)), [0, 1]);
        assert_eq!(destinations(copies.wait(1, 1)), [] as [u32; 0]);
        assert_eq!(destinations(copies.wait(1, 0)), [2]);
    }

    #[test]
    fn an_empty_group_counts() {
        let mut copies = Copies::default();
        copies.issue(copy(0, 7));
        copies.commit(1);
        copies.commit(1);
        assert_eq!(destinations(copies.wait(1, 1)), [7]);
    }

    #[test]
    fn a_wait_does_not_reach_open_copies_but_wait_all_does() {
        let mut copies = Copies::default();
        copies.issue(copy(0, 7));
        assert_eq!(destinations(copies.wait(1, 0)), [] as [u32; 0]);
        assert_eq!(copies.unfinished(1), Some(copy(0, 7)));
        assert_eq!(destinations(copies.wait_all(1)), [7]);
        assert_eq!(copies.unfinished(1), None);
    }

    #[test]
    fn each_lane_has_groups_of_its_own() {
        let mut copies = Copies::default();
        copies.issue(copy(0, 10));
        copies.issue(copy(1, 11));
        copies.commit(0b11);
        copies.issue(copy(1, 21));
        copies.commit(0b10);
        assert_eq!(destinations(copies.wait(0b11, 1)), [11]);
        assert_eq!(copies.unfinished(0b10), Some(copy(1, 21)));
        assert_eq!(destinations(copies.wait(0b01, 0)), [10]);
    }
}
