//! Shared memory of the cluster: accesses of a lane, and of whole warps where nothing has to be said about any lane.

use super::Machine;
use super::bytes::{get, put};
use super::memory::addresses;
use super::step::Step;
use super::warp::Warp;
use crate::check::shared::{Fault, Site};
use crate::decode::body::RANK_SHIFT;
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
        let first = Site { warp: warp.index as u16, lane: 0, whole: false, pc: step.pc };
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
        let first = Site { warp: warp.index as u16, lane: 0, whole: false, pc: step.pc };
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
    pub(super) fn read_shared(&mut self, at: RawPlace, address: (Space, u32), len: u32) -> Option<u128> {
        self.read_as(at, site(at), address, len)
    }

    #[inline]
    fn read_as(&mut self, at: RawPlace, site: Site, address: (Space, u32), len: u32) -> Option<u128> {
        let offset = self.shared_offset(at, address, len, "read")?;
        if self.options.checks {
            let fault = self.shadow.read(site, &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        Some(get(&self.shared, offset, len))
    }

    #[inline]
    pub(super) fn write_shared(&mut self, at: RawPlace, address: (Space, u32), len: u32, value: u128) {
        self.write_as(at, site(at), address, len, value);
    }

    /// Writes a line of 16 bytes for a warp as a whole.
    pub(super) fn write_line(&mut self, at: RawPlace, address: u32, value: u128) {
        self.write_as(at, Site { whole: true, ..site(at) }, (Space::Shared, address), 16, value);
    }

    #[inline]
    fn write_as(&mut self, at: RawPlace, site: Site, address: (Space, u32), len: u32, value: u128) {
        let Some(offset) = self.shared_offset(at, address, len, "write") else { return };
        if self.options.checks {
            let changes = get(&self.shared, offset, len) != value;
            let fault = self.shadow.write(site, &self.clocks.now(at.warp as usize), offset, len, changes);
            self.fault(at, fault, offset, len);
        }
        put(&mut self.shared, offset, len, value);
    }

    /// The read of an atomic operation.
    pub(super) fn touch_shared(&mut self, at: RawPlace, address: (Space, u32), len: u32) -> Option<u128> {
        let offset = self.shared_offset(at, address, len, "atomic access")?;
        if self.options.checks {
            let fault = self.shadow.atomic(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        Some(get(&self.shared, offset, len))
    }

    /// A write that is atomic.
    pub(super) fn put_shared(&mut self, at: RawPlace, address: (Space, u32), len: u32, value: u128) {
        let Some(offset) = self.shared_offset(at, address, len, "atomic access") else { return };
        if self.options.checks {
            let fault = self.shadow.atomic_write(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        put(&mut self.shared, offset, len, value);
    }

    /// The offset of an address in the memory of the cluster, where all bytes of the access are inside and aligned.
    #[inline]
    pub(super) fn shared_offset(&mut self, at: RawPlace, place: (Space, u32), len: u32, what: &str) -> Option<u32> {
        self.aligned_offset(at, place, (len, len), what)
    }

    /// The same for `len` bytes whose address must be a multiple of `align`.
    #[inline]
    pub(super) fn aligned_offset(
        &mut self,
        at: RawPlace,
        place: (Space, u32),
        (len, align): (u32, u32),
        what: &str,
    ) -> Option<u32> {
        let found = self.windows.locate(place, len, align);
        if let Ok((offset, end)) = found
            && (place.0 == Space::Shared || self.is_present(at, offset))
        {
            self.peak_shared = self.peak_shared.max(end);
            return Some(offset);
        }
        let own = place.1 >> RANK_SHIFT == self.rank as u32;
        let space = if own { Space::Shared } else { place.0 };
        self.memory_fault(found.err().unwrap_or(Kind::AbsentBlock), at, (space, place.1.into(), len), what);
        None
    }

    /// Whether the block that has an offset has not ended; says so where it may not have begun.
    fn is_present(&mut self, at: RawPlace, offset: u32) -> bool {
        let rank = self.windows.rank(offset);
        if rank != self.rank && self.options.checks && !self.knows_of(at.warp as usize, rank) {
            let [x, y, z] = self.blocks[rank].at;
            self.find(Kind::AbsentBlock, at, None, || {
                format!(
                    "access to shared memory of block ({x},{y},{z}), which may not have begun: nothing waits for that"
                )
            });
        }
        !self.blocks[rank].ended
    }

    /// The offsets of addresses in the own block's shared memory, where all of them are inside and aligned.
    pub(super) fn plain_offsets(&mut self, addresses: &Row<u32>, active: u32, len: u32) -> Option<Row<u32>> {
        let (base, start) = self.windows.own();
        let end = self.windows.bytes.checked_sub(len)?;
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
        Some(offsets.map(|offset| start.wrapping_add(offset)))
    }

    /// Reads whole lines of 16 bytes by neighbouring lanes from `first` on.
    pub(super) fn read_lines(&mut self, first: RawPlace, addresses: &[u32; 8]) -> [u128; 8] {
        let (base, start) = self.windows.own();
        let offsets = addresses.map(|address| address.wrapping_sub(base));
        let end = self.windows.bytes.saturating_sub(16);
        let last = offsets.iter().copied().max().unwrap_or(0);
        let bits = addresses.iter().fold(0, |bits, address| bits | address);
        let plain = last <= end && bits & 15 == 0 && self.windows.bytes >= 16;
        let offsets = offsets.map(|offset| start.wrapping_add(offset));
        let now = self.clocks.now(first.warp as usize);
        if plain && (!self.options.checks || self.shadow.read_lines(site(first), &now, &offsets)) {
            self.peak_shared = self.peak_shared.max(last + 16);
            return offsets.map(|offset| get(&self.shared, offset, 16));
        }
        std::array::from_fn(|row| {
            let at = RawPlace { lane: first.lane + row as u32, ..first };
            self.read_as(at, Site { whole: true, ..site(at) }, (Space::Shared, addresses[row]), 16).unwrap_or(u128::MAX)
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
        let with = fault.with().map(|with| self.place_of(with));
        let space = if self.windows.rank(offset) == self.rank { Space::Shared } else { Space::Cluster };
        let address = u64::from(self.windows.address(offset));
        self.findings.add(fault.kind(), at, with, Some((space, address, len)), || fault.to_string());
    }

    /// The place of an earlier access.
    pub(super) fn place_of(&self, site: Site) -> RawPlace {
        // Behind the warps come the mbarriers, whose copies have an issuer.
        let mbarrier = usize::from(site.warp).checked_sub(self.clocks.warps());
        let warp = mbarrier.map_or(usize::from(site.warp), |mbarrier| self.mbarriers.get(mbarrier).issuer as usize);
        self.place(warp, site.lane.into(), site.pc)
    }
}

/// An address in shared memory has 32 bits; others are outside of it.
#[inline(always)]
pub(super) fn shared_address(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

pub(super) fn site(at: RawPlace) -> Site {
    Site { warp: at.warp as u16, lane: at.lane as u8, whole: false, pc: at.pc }
}
