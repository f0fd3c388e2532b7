//! Shared memory: accesses of a lane, and of whole warps where nothing has to be said about any lane.

use super::Machine;
use super::bytes::{get, put};
use super::memory::addresses;
use super::step::Step;
use super::warp::Warp;
use crate::check::shared::{Fault, Site};
use crate::program::{Access, Address};
use crate::registers::{LANES, Registers, Row, lanes};
use crate::report::{Kind, RawPlace, Space};

impl Machine<'_> {
    /// A load from shared memory that nothing has to be said about. False when it is not one.
    pub(super) fn read_lanes(
        &mut self,
        warp: &Warp,
        step: Step,
        access: &Access,
        addresses: &Row<u64>,
        values: &mut [u128; LANES],
    ) -> bool {
        let Some((offsets, len)) = self.plain_access(step, access, addresses) else { return false };
        let first = Site { warp: warp.index as u8, lane: 0, pc: step.pc };
        let now = self.clocks.now(warp.index);
        if self.options.checks && !self.shadow.read_lanes(first, &now, step.active, &offsets, len) {
            return false;
        }
        lanes(step.active).for_each(|lane| values[lane] = get(&self.shared, offsets[lane], len));
        true
    }

    /// A store to shared memory that nothing has to be said about. False when it is not one.
    pub(super) fn write_lanes(
        &mut self,
        warp: &Warp,
        step: Step,
        access: &Access,
        addresses: &Row<u64>,
        values: &[u128; LANES],
    ) -> bool {
        let Some((offsets, len)) = self.plain_access(step, access, addresses) else { return false };
        let first = Site { warp: warp.index as u8, lane: 0, pc: step.pc };
        let now = self.clocks.now(warp.index);
        if self.options.checks && !self.shadow.write_lanes(first, &now, step.active, (&offsets, len), false) {
            return false;
        }
        lanes(step.active).for_each(|lane| put(&mut self.shared, offsets[lane], len, values[lane]));
        true
    }

    /// Offsets and width of an access to shared memory, where its addresses are good.
    fn plain_access(&mut self, step: Step, access: &Access, addresses: &Row<u64>) -> Option<(Row<u32>, u32)> {
        if access.space != Space::Shared || access.strong {
            return None;
        }
        let len = access.width * access.registers.len() as u32;
        let addresses = std::array::from_fn(|lane| shared_address(addresses[lane]));
        Some((self.plain_offsets(&addresses, step.active, len)?, len))
    }

    /// Reads shared memory; nothing when the address is no good.
    #[inline]
    pub(super) fn read_shared(&mut self, at: RawPlace, address: u32, len: u32) -> Option<u128> {
        let offset = self.shared_offset(at, address, len, "read")?;
        if self.options.checks {
            let fault = self.shadow.read(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        Some(get(&self.shared, offset, len))
    }

    #[inline]
    pub(super) fn write_shared(&mut self, at: RawPlace, address: u32, len: u32, value: u128) {
        let Some(offset) = self.shared_offset(at, address, len, "write") else { return };
        if self.options.checks {
            let changes = get(&self.shared, offset, len) != value;
            let fault = self.shadow.write(site(at), &self.clocks.now(at.warp as usize), offset, len, changes);
            self.fault(at, fault, offset, len);
        }
        put(&mut self.shared, offset, len, value);
    }

    /// The read of an atomic operation.
    pub(super) fn touch_shared(&mut self, at: RawPlace, address: u32, len: u32) -> Option<u128> {
        let offset = self.shared_offset(at, address, len, "atomic access")?;
        if self.options.checks {
            let fault = self.shadow.atomic(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        Some(get(&self.shared, offset, len))
    }

    /// A write that is atomic.
    pub(super) fn put_shared(&mut self, at: RawPlace, address: u32, len: u32, value: u128) {
        let Some(offset) = self.shared_offset(at, address, len, "atomic access") else { return };
        if self.options.checks {
            let fault = self.shadow.atomic_write(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        put(&mut self.shared, offset, len, value);
    }

    /// The offset of an address in shared memory, where all bytes of the access are inside and aligned.
    #[inline]
    pub(super) fn shared_offset(&mut self, at: RawPlace, address: u32, len: u32, what: &str) -> Option<u32> {
        let offset = address.wrapping_sub(self.program.shared_base);
        let end = u64::from(offset) + u64::from(len);
        if end <= self.shared.len() as u64 && address & (len - 1) == 0 {
            self.peak_shared = self.peak_shared.max(end as u32);
            return Some(offset);
        }
        let kind = if end <= self.shared.len() as u64 { Kind::Misaligned } else { Kind::OutOfBounds };
        self.memory_fault(kind, at, (Space::Shared, address.into(), len), what);
        None
    }

    /// The offsets of addresses in shared memory, where all of them are inside and aligned.
    pub(super) fn plain_offsets(&mut self, addresses: &Row<u32>, active: u32, len: u32) -> Option<Row<u32>> {
        let base = self.program.shared_base;
        let end = (self.shared.len() as u32).checked_sub(len)?;
        let offsets: Row<u32> = std::array::from_fn(|lane| addresses[lane].wrapping_sub(base));
        let (mut last, mut bits) = (0, 0);
        for lane in lanes(active) {
            last = offsets[lane].max(last);
            bits |= addresses[lane];
        }
        if last > end || bits & (len - 1) != 0 {
            return None;
        }
        self.peak_shared = self.peak_shared.max(last + len);
        Some(offsets)
    }

    /// Reads whole lines of 16 bytes by neighbouring lanes from `first` on.
    pub(super) fn read_lines(&mut self, first: RawPlace, addresses: &[u32; 8]) -> [u128; 8] {
        let base = self.program.shared_base;
        let offsets = addresses.map(|address| address.wrapping_sub(base));
        let end = self.shared.len().saturating_sub(16) as u32;
        let last = offsets.iter().copied().max().unwrap_or(0);
        let bits = addresses.iter().fold(0, |bits, address| bits | address);
        let plain = last <= end && bits & 15 == 0 && self.shared.len() >= 16;
        let now = self.clocks.now(first.warp as usize);
        if plain && (!self.options.checks || self.shadow.read_lines(site(first), &now, &offsets)) {
            self.peak_shared = self.peak_shared.max(last + 16);
            return offsets.map(|offset| get(&self.shared, offset, 16));
        }
        std::array::from_fn(|row| {
            let at = RawPlace { lane: first.lane + row as u32, ..first };
            self.read_shared(at, addresses[row], 16).unwrap_or(u128::MAX)
        })
    }

    /// Addresses in shared memory of all lanes.
    pub(super) fn shared_addresses(&self, registers: &Registers, address: &Address) -> Row<u32> {
        let addresses = addresses(registers, address);
        std::array::from_fn(|lane| shared_address(addresses[lane]))
    }

    #[inline]
    pub(super) fn fault(&mut self, at: RawPlace, fault: Option<Fault>, offset: u32, len: u32) {
        let Some(fault) = fault else { return };
        let with = fault.with().map(|with| {
            // Behind the warps come the mbarriers, whose copies have an issuer.
            let mbarrier = usize::from(with.warp).checked_sub(self.clocks.warps());
            let warp = mbarrier.map_or(usize::from(with.warp), |mbarrier| self.mbarriers.get(mbarrier).issuer as usize);
            self.place(warp, with.lane.into(), with.pc)
        });
        let address = u64::from(self.program.shared_base + offset);
        self.findings.add(fault.kind(), at, with, Some((Space::Shared, address, len)), || fault.to_string());
    }
}

/// An address in shared memory has 32 bits; others are outside of it.
#[inline(always)]
pub(super) fn shared_address(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

pub(super) fn site(at: RawPlace) -> Site {
    Site { warp: at.warp as u8, lane: at.lane as u8, pc: at.pc }
}
