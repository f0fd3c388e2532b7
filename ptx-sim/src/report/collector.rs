//! Groups defects while a launch runs.

use std::collections::HashMap;

use super::{Finding, Kind, Place, Source, Space};

/// A [`Place`] before its instruction was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawPlace {
    pub block: [u32; 3],
    /// The warp, among those of the cluster.
    pub warp: u32,
    pub lane: u32,
    /// Index of the instruction.
    pub pc: u32,
}

/// A kind, the instruction, and the one it collides with.
type Key = (Kind, u32, Option<u32>);

#[derive(Debug)]
struct Group {
    key: Key,
    at: RawPlace,
    with: Option<RawPlace>,
    memory: Option<(Space, u64, u32)>,
    message: String,
    count: u64,
}

/// The defects of a launch: of each kind and pair of instructions the first, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    groups: Vec<Group>,
    index: HashMap<Key, usize>,
    /// The group that was added to last.
    last: usize,
}

impl Collector {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a defect. The message is made only the first time.
    pub fn add(
        &mut self,
        kind: Kind,
        at: RawPlace,
        with: Option<RawPlace>,
        memory: Option<(Space, u64, u32)>,
        message: impl FnOnce() -> String,
    ) {
        let key = (kind, at.pc, with.map(|with| with.pc));
        if self.groups.get(self.last).is_none_or(|group| group.key != key) {
            self.last = *self.index.entry(key).or_insert(self.groups.len());
        }
        match self.groups.get_mut(self.last) {
            Some(group) => group.count += 1,
            None => self.groups.push(Group { key, at, with, memory, message: message(), count: 1 }),
        }
    }

    /// The findings, the worst kinds first, otherwise in the order they were seen in. A block has so many `warps`;
    /// `resolve` knows the line, the text and the source of an instruction.
    pub fn into_findings(self, warps: u32, resolve: impl Fn(u32) -> (u32, String, Option<Source>)) -> Vec<Finding> {
        let place = |raw: RawPlace| {
            let (line, instruction, source) = resolve(raw.pc);
            Place { block: raw.block, warp: raw.warp % warps, lane: raw.lane, line, instruction, source }
        };
        let finding = |group: Group| Finding {
            kind: group.key.0,
            at: place(group.at),
            with: group.with.map(place),
            memory: group.memory,
            message: group.message,
            count: group.count,
        };
        let mut findings: Vec<Finding> = self.groups.into_iter().map(finding).collect();
        findings.sort_by_key(|finding| finding.kind);
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(warp: u32, pc: u32) -> RawPlace {
        RawPlace { block: [0; 3], warp, lane: 3, pc }
    }

    fn findings(collector: Collector) -> Vec<Finding> {
        collector.into_findings(16, |pc| (100 + pc, format!("instruction {pc}"), None))
    }

    #[test]
    fn a_defect_is_kept_once_and_counted() {
        let mut collector = Collector::new();
        for warp in 0..4 {
            let memory = Some((Space::Shared, u64::from(warp), 4));
            collector.add(Kind::SharedRace, place(warp, 7), Some(place(9, 8)), memory, || {
                assert_eq!(warp, 0, "the message of a known defect is not needed");
                "race".to_string()
            });
        }
        let findings = findings(collector);
        assert_eq!((findings.len(), findings[0].count, findings[0].at.warp), (1, 4, 0));
        assert_eq!((findings[0].at.line, findings[0].at.instruction.as_str()), (107, "instruction 7"));
        assert_eq!(findings[0].with.as_ref().map(|with| with.line), Some(108));
        assert_eq!(findings[0].memory, Some((Space::Shared, 0, 4)));
    }

    #[test]
    fn defects_differ_by_kind_and_by_both_instructions() {
        let mut collector = Collector::new();
        for _ in 0..2 {
            for (kind, at, with) in [
                (Kind::SharedRace, 1, Some(2)),
                (Kind::SharedRace, 2, Some(1)),
                (Kind::SharedRace, 1, None),
                (Kind::GlobalRace, 1, Some(2)),
            ] {
                collector.add(kind, place(0, at), with.map(|pc| place(1, pc)), None, String::new);
            }
        }
        let counts: Vec<u64> = findings(collector).iter().map(|finding| finding.count).collect();
        assert_eq!(counts, [2; 4]);
    }

    #[test]
    fn the_worst_come_first_and_equals_stay_in_order() {
        let mut collector = Collector::new();
        for (kind, pc) in [
            (Kind::AsyncUnfinished, 1),
            (Kind::SharedRace, 2),
            (Kind::OutOfBounds, 4),
            (Kind::OutOfBounds, 3),
            (Kind::Trap, 5),
        ] {
            collector.add(kind, place(0, pc), None, None, String::new);
        }
        let lines: Vec<u32> = findings(collector).iter().map(|finding| finding.at.line).collect();
        assert_eq!(lines, [104, 103, 105, 102, 101]);
    }
}
