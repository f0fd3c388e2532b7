//! Asynchronous copies of a warp that have not arrived.

use crate::registers::{Row, lanes};
use std::collections::VecDeque;

/// A `cp.async` of some lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub pc: u32,
    /// The lanes for which it has not arrived.
    pub lanes: u32,
    /// Offsets in shared memory.
    pub destinations: Row<u32>,
    /// Bytes written by each lane.
    pub bytes: u32,
    /// What they become.
    pub values: Row<u128>,
}

impl Copy {
    /// Takes lanes out of it; nothing when it has none of them.
    fn take(&mut self, mask: u32) -> Option<Self> {
        let lanes = self.lanes & mask;
        self.lanes &= !mask;
        (lanes != 0).then(|| Self { lanes, ..self.clone() })
    }
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
    /// Memory of groups that have arrived.
    spare: Vec<Vec<Copy>>,
}

impl Copies {
    pub fn clear(&mut self) {
        self.open.clear();
        self.groups.clear();
    }

    /// Begins a copy of `bytes` by lanes that are still to be named.
    pub fn issue(&mut self, pc: u32, bytes: u32) -> &mut Copy {
        self.open.push(Copy { pc, lanes: 0, destinations: [0; 32], bytes, values: [0; 32] });
        self.open.last_mut().expect("it was pushed")
    }

    /// Takes the memory of copies that have arrived, for the next.
    pub fn recycle(&mut self, mut arrived: Vec<Copy>) {
        arrived.clear();
        self.spare.push(arrived);
    }

    /// `cp.async.commit_group` of these lanes.
    pub fn commit(&mut self, mask: u32) {
        let spare = self.spare.pop().unwrap_or_default();
        let copies = take(&mut self.open, mask, spare);
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
        let mut arrived = self.spare.pop().unwrap_or_default();
        for (group, arrives) in self.groups.iter_mut().zip(due.into_iter().rev()) {
            group.lanes &= !arrives;
            if arrives == 0 {
                continue;
            }
            let copies = take(&mut group.copies, arrives, Vec::new());
            if arrived.is_empty() {
                self.spare.push(std::mem::replace(&mut arrived, copies));
            } else {
                arrived.extend(copies);
            }
        }
        self.groups.retain(|group| group.lanes != 0);
        arrived
    }

    /// `cp.async.wait_all`: also what no group holds yet.
    pub fn wait_all(&mut self, mask: u32) -> Vec<Copy> {
        let mut arrived = self.wait(mask, 0);
        arrived.extend(take(&mut self.open, mask, Vec::new()));
        arrived
    }

    /// The instruction of a copy that one of these lanes never waited for, and the lane.
    pub fn unfinished(&self, mask: u32) -> Option<(u32, usize)> {
        let all = self.groups.iter().flat_map(|group| &group.copies).chain(&self.open);
        let mut left = all.filter(|copy| copy.lanes & mask != 0);
        left.next().map(|copy| (copy.pc, (copy.lanes & mask).trailing_zeros() as usize))
    }
}

/// Takes lanes out of copies; `spare` is memory for what stays.
fn take(copies: &mut Vec<Copy>, mask: u32, spare: Vec<Copy>) -> Vec<Copy> {
    if copies.iter().all(|copy| copy.lanes & !mask == 0) {
        return std::mem::replace(copies, spare);
    }
    let taken = copies.iter_mut().filter_map(|copy| copy.take(mask)).collect();
    copies.retain(|copy| copy.lanes != 0);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(lane: usize, destination: u32) -> Copy {
        Copy { pc: 7, lanes: 1 << lane, destinations: [destination; 32], bytes: 16, values: [0; 32] }
    }

    fn issue(copies: &mut Copies, copy: Copy) {
        let (pc, bytes) = (copy.pc, copy.bytes);
        *copies.issue(pc, bytes) = copy;
    }

    fn destinations(copies: Vec<Copy>) -> Vec<u32> {
        copies.iter().flat_map(|copy| lanes(copy.lanes).map(|lane| copy.destinations[lane])).collect()
    }

    #[test]
    fn a_wait_leaves_the_newest_groups_open() {
        let mut copies = Copies::default();
        for group in 0..3 {
            issue(&mut copies, copy(0, group));
            copies.commit(1);
        }
        assert_eq!(destinations(copies.wait(1, 1)), [0, 1]);
        assert_eq!(destinations(copies.wait(1, 1)), [] as [u32; 0]);
        assert_eq!(destinations(copies.wait(1, 0)), [2]);
    }

    #[test]
    fn an_empty_group_counts() {
        let mut copies = Copies::default();
        issue(&mut copies, copy(0, 7));
        copies.commit(1);
        copies.commit(1);
        assert_eq!(destinations(copies.wait(1, 1)), [7]);
    }

    #[test]
    fn a_wait_does_not_reach_open_copies_but_wait_all_does() {
        let mut copies = Copies::default();
        issue(&mut copies, copy(0, 7));
        assert_eq!(destinations(copies.wait(1, 0)), [] as [u32; 0]);
        assert_eq!(copies.unfinished(1), Some((7, 0)));
        assert_eq!(destinations(copies.wait_all(1)), [7]);
        assert_eq!(copies.unfinished(1), None);
    }

    #[test]
    fn each_lane_has_groups_of_its_own() {
        let mut copies = Copies::default();
        issue(&mut copies, copy(0, 10));
        issue(&mut copies, copy(1, 11));
        copies.commit(0b11);
        issue(&mut copies, copy(1, 21));
        copies.commit(0b10);
        assert_eq!(destinations(copies.wait(0b11, 1)), [11]);
        assert_eq!(copies.unfinished(0b10), Some((7, 1)));
        assert_eq!(destinations(copies.wait(0b01, 0)), [10]);
    }

    #[test]
    fn a_copy_of_several_lanes_arrives_lane_by_lane() {
        let mut copies = Copies::default();
        issue(&mut copies, Copy { lanes: 0b11, ..copy(0, 5) });
        copies.commit(0b10);
        assert_eq!(copies.wait(0b11, 0), [Copy { lanes: 0b10, ..copy(0, 5) }]);
        assert_eq!(copies.unfinished(0b11), Some((7, 0)));
        assert_eq!(copies.wait_all(0b11), [copy(0, 5)]);
    }
}
