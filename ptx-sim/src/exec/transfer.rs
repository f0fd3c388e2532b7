//! Asynchronous copies: issued, and arrived.

use super::Machine;
use super::bytes::{get, put};
use super::copies::Copy;
use super::memory::{Order, addresses};
use super::shared::site;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::{global_sectors, shared_wavefronts};
use crate::check::clock::{Knowledge, Now};
use crate::check::global::Look;
use crate::check::shared::{Shadow, Site};
use crate::options::Delivery;
use crate::program::CpAsync;
use crate::registers::{LANES, Row, lanes};
use crate::report::{Kind, RawPlace, Space};

impl Machine<'_> {
    pub(super) fn cp_async(&mut self, warp: &mut Warp, step: Step, copy: &CpAsync) {
        let destinations = self.shared_addresses(&warp.registers, &copy.destination);
        let sources = addresses(&warp.registers, &copy.source);
        let Step { active, pc, .. } = step;
        let ignored = copy.ignore.map_or(0, |ignore| warp.registers.predicate(ignore));
        let (ideal, real) = shared_wavefronts(&destinations, active, copy.bytes);
        let (sectors_ideal, sectors) = global_sectors(&sources, active & !ignored, copy.bytes);
        let counters = &mut self.counters[pc as usize];
        counters.wavefronts_ideal += u64::from(ideal);
        counters.wavefronts += u64::from(real);
        counters.sectors_ideal += u64::from(sectors_ideal);
        counters.sectors += u64::from(sectors);
        // Most copies have nothing to be said about: then the shadow takes them all at once.
        let offsets = self.plain_offsets(&destinations, active, copy.bytes);
        let first = Site { warp: warp.index as u16, lane: 0, whole: false, pc };
        let begun = offsets.filter(|offsets| {
            let (now, places) = (self.clocks.now(warp.index), (offsets, copy.bytes));
            !self.options.checks || self.shadow.write_lanes(first, &now, active, places, true)
        });
        let issued = warp.copies.issue(pc, copy.bytes);
        // Until it arrives there is NaN in every format.
        let late = self.options.delivery == Delivery::Late;
        let readers = active & !ignored;
        if let (Some(offsets), 16, None) = (&begun, copy.bytes, copy.source_bytes)
            && let Some(values) = self.inputs(&sources, readers)
        {
            for lane in lanes(active) {
                put(&mut self.shared, offsets[lane], 16, if late { u128::MAX } else { values[lane] });
            }
            (issued.lanes, issued.destinations, issued.values) = (active, *offsets, values);
            return;
        }
        for lane in lanes(active) {
            let at = self.place(warp.index, lane, pc);
            let mut source_bytes = if ignored >> lane & 1 == 1 { 0 } else { copy.bytes };
            if let Some(given) = copy.source_bytes {
                let given = warp.registers.get(given)[lane];
                if given > copy.bytes {
                    let most = copy.bytes;
                    self.find(Kind::InvalidOperand, at, None, || format!("{given} source bytes, allowed: 0 to {most}"));
                }
                source_bytes = given.min(copy.bytes);
            }
            let offset = match &begun {
                Some(offsets) => offsets[lane],
                None => match self.shared_offset(at, (Space::Shared, destinations[lane]), copy.bytes, "copy to") {
                    Some(offset) => offset,
                    None => continue,
                },
            };
            let value = match source_bytes {
                0 => 0,
                16 => match self.memory.look(sources[lane], 16) {
                    // Inputs, mostly.
                    Ok(Look { bytes, written: true, read_only: true }) => get(bytes, 0, 16),
                    _ => self.copy_source(at, sources[lane], 16, 16),
                },
                _ => self.copy_source(at, sources[lane], source_bytes, copy.bytes),
            };
            if self.options.checks && begun.is_none() {
                let fault = self.shadow.begin_async(site(at), &self.clocks.now(warp.index), offset, copy.bytes);
                self.fault(at, fault, offset, copy.bytes);
            }
            put(&mut self.shared, offset, copy.bytes, if late { u128::MAX } else { value });
            issued.lanes |= 1 << lane;
            issued.destinations[lane] = offset;
            issued.values[lane] = value;
        }
    }

    /// What the lanes in `mask` read, 16 bytes each, where that lies in one buffer of inputs; zero for the others.
    fn inputs(&self, addresses: &Row<u64>, mask: u32) -> Option<Row<u128>> {
        let (mut first, mut last, mut bits) = (u64::MAX, 0, 0);
        for lane in lanes(mask) {
            first = first.min(addresses[lane]);
            last = last.max(addresses[lane]);
            bits |= addresses[lane];
        }
        let mut values = [0; LANES];
        if mask == 0 {
            return Some(values);
        }
        let (start, bytes) =
            self.memory.inputs(first, last.checked_sub(first)?.checked_add(16)?).filter(|_| bits & 15 == 0)?;
        lanes(mask).for_each(|lane| values[lane] = get(bytes, (addresses[lane] - start) as u32, 16));
        Some(values)
    }

    /// What a copy brings: its first bytes, and zeros.
    fn copy_source(&mut self, at: RawPlace, address: u64, bytes: u32, align: u32) -> u128 {
        if !address.is_multiple_of(u64::from(align)) {
            self.memory_fault(Kind::Misaligned, at, (Space::Global, address, bytes), "copy from");
            return 0;
        }
        if bytes.is_power_of_two() {
            return self.read_global(at, address, bytes, Order::Plain).unwrap_or(0);
        }
        let byte = |machine: &mut Self, byte: u32| {
            machine.read_global(at, address + u64::from(byte), 1, Order::Plain).unwrap_or(0) << (8 * byte)
        };
        (0..bytes).fold(0, |value, index| value | byte(self, index))
    }

    /// The copy was waited for.
    pub(super) fn arrive(&mut self, warp: usize, copy: &Copy) {
        self.land(copy);
        if self.options.checks {
            let now = self.clocks.now(warp);
            end_copy(&mut self.shadow, &now, warp, copy);
        }
    }

    /// The copy has come that an arrival of a warp waited for, which knew this then, at that clock.
    pub(super) fn arrive_known(&mut self, warp: usize, copy: &Copy, (clock, known): (u32, &Knowledge)) {
        self.land(copy);
        if self.options.checks {
            let now = self.clocks.then(clock, known);
            end_copy(&mut self.shadow, &now, warp, copy);
        }
    }

    fn land(&mut self, copy: &Copy) {
        let late = self.options.delivery == Delivery::Late;
        if late {
            for lane in lanes(copy.lanes) {
                put(&mut self.shared, copy.destinations[lane], copy.bytes, copy.values[lane]);
            }
        }
    }
}

fn end_copy(shadow: &mut Shadow, now: &Now, warp: usize, copy: &Copy) {
    let first = Site { warp: warp as u16, lane: 0, whole: false, pc: copy.pc };
    if copy.bytes == 16 {
        shadow.end_async_lines(first, now, copy.lanes, &copy.destinations);
    } else {
        for lane in lanes(copy.lanes) {
            shadow.end_async(Site { lane: lane as u8, ..first }, now, copy.destinations[lane], copy.bytes);
        }
    }
}
