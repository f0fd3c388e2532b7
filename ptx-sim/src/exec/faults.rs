//! Reports of accesses that are wrong.

use super::Machine;
use super::memory::resolve;
use crate::check::blocks::BlockRace;
use crate::report::{Kind, RawPlace, Space};

impl Machine<'_> {
    /// Reports an access that the memory does not allow.
    pub(super) fn memory_fault(&mut self, kind: Kind, at: RawPlace, memory: (Space, u64, u32), what: &str) {
        let Self { findings, memory: global, windows, .. } = self;
        let (space, address, len) = memory;
        let elsewhere = match resolve(Space::Generic, address) {
            (Space::Cluster, _) if space == Space::Global => Some(Space::Shared),
            (own @ (Space::Local | Space::Param), _) if space == Space::Global => Some(own),
            _ => None,
        };
        let kind = if elsewhere.is_some() { Kind::WrongSpace } else { kind };
        findings.add(kind, at, None, Some(memory), || {
            let place = match space {
                _ if let Some(own) = elsewhere => format!("{address:#x}, a generic address of {own} memory"),
                Space::Global | Space::Generic => global.describe(address),
                Space::Shared | Space::Cluster if kind == Kind::AbsentBlock => {
                    format!("{}, which has ended", windows.describe(address as u32))
                }
                Space::Shared | Space::Cluster => windows.describe(address as u32),
                _ => format!("address {address}"),
            };
            format!("{what} of {len} bytes: {place}")
        });
    }

    /// Reports a race with another block.
    pub(super) fn block_race(&mut self, at: RawPlace, race: Option<BlockRace>, address: u64, len: u32) {
        let Some(race) = race else { return };
        let [x, y, _] = self.size.grid;
        let block = [race.block % x, race.block / x % y, race.block / x / y];
        let with = RawPlace { block, warp: 0, lane: 0, pc: race.pc };
        let message = || format!("{} of another block, nothing orders them", race.order);
        self.findings.add(Kind::GlobalRace, at, Some(with), Some((Space::Global, address, len)), message);
    }
}
