//! Groups defects while a launch runs.

use std::collections::HashMap;

use super::{Finding, Kind, Place, Source, Space};

/// A [`Place`] before its instruction was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawPlace {
    pub block: [u32; 3],
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

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
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

    /// The findings, the worst kinds first, otherwise in the order they were seen in. `resolve` knows the line, the text
    /// and the source of an instruction.
    pub fn into_findings(self, resolve: impl Fn(u32) -> (u32, String, Option<Source>)) -> Vec<Finding> {
        let place = |raw: RawPlace| {
            let (line, instruction, source) = resolve(raw.pc);
            Place { block: raw.block, warp: raw.warp, lane: raw.lane, line, instruction, source }
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
