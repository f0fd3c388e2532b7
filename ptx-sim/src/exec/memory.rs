//! Loads, stores, atomics and asynchronous copies, each checked.

use super::Machine;
use super::copies::Copy;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::{global_sectors, shared_wavefronts};
use crate::check::blocks::BlockRace;
use crate::check::global::Look;
use crate::check::shared::{Fault, Site};
use crate::decode::MODULE_WINDOW;
use crate::decode::body::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::ops::atomic::Atomic;
use crate::options::Delivery;
use crate::program::{Access, Action, Address, AnyReg, CpAsync};
use crate::registers::{LANES, Registers, Row, lanes};
use crate::report::{Kind, RawPlace, Space};

/// How an access to global memory stands to those of other blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Plain,
    /// Atomic, volatile or with an explicit order; whether it publishes what came before.
    Strong {
        releases: bool,
    },
}

impl Machine<'_> {
    pub(super) fn access(&mut self, warp: &mut Warp, step: Step) {
        match &step.inst.action {
            Action::Load(access) => self.load(warp, step, access),
            Action::Store(access) => self.store(warp, step, access),
            Action::Atomic(atomic) => self.atomic(warp, step, atomic),
            Action::CpAsync(copy) => self.cp_async(warp, step, copy),
            Action::CommitGroup => warp.copies.commit(step.active),
            Action::WaitGroup(open) => {
                let arrived = match open {
                    Some(open) => warp.copies.wait(step.active, *open),
                    None => warp.copies.wait_all(step.active),
                };
                for copy in &arrived {
                    self.arrive(warp.index, copy);
                }
                warp.copies.recycle(arrived);
            }
            _ => {}
        }
    }

    fn load(&mut self, warp: &mut Warp, step: Step, access: &Access) {
        let len = access.width * access.registers.len() as u32;
        let addresses = addresses(&warp.registers, &access.address);
        self.count_access(step, access.space, &addresses, len);
        let mut values = [0u128; LANES];
        // Parameters and constants are mostly the same for all.
        let uniform = access.space == Space::Param && access.address.base.is_none();
        let read = self.read_lanes(warp, step, access, &addresses, &mut values);
        let readers = if read {
            0
        } else if uniform {
            step.active & step.active.wrapping_neg()
        } else {
            step.active
        };
        for lane in lanes(readers) {
            let at = self.place(warp.index, lane, step.pc);
            values[lane] =
                self.read(warp, at, (access.space, addresses[lane], len), order(access)).unwrap_or(u128::MAX);
        }
        if uniform {
            values = [values[readers.trailing_zeros() as usize]; LANES];
        }
        for (element, register) in access.registers.iter().enumerate() {
            let shift = 8 * access.width * element as u32;
            let value = |lane: usize| extend((values[lane] >> shift) as u64, access.width, access.signed);
            match register {
                // The usual one.
                Some(AnyReg::Word(word)) if access.width == 4 => {
                    let index = element as u32 * 32;
                    warp.registers.set(*word, step.active, &std::array::from_fn(|lane| (values[lane] >> index) as u32));
                }
                Some(AnyReg::Word(word)) => {
                    warp.registers.set(*word, step.active, &std::array::from_fn(|lane| value(lane) as u32));
                }
                Some(AnyReg::Long(long)) => warp.registers.set(*long, step.active, &std::array::from_fn(value)),
                None => {}
            }
        }
    }

    fn store(&mut self, warp: &mut Warp, step: Step, access: &Access) {
        let len = access.width * access.registers.len() as u32;
        let addresses = addresses(&warp.registers, &access.address);
        self.count_access(step, access.space, &addresses, len);
        let mut values = [0u128; LANES];
        for (element, register) in access.registers.iter().enumerate() {
            let shift = 8 * access.width * element as u32;
            let cut = |value: u64| u128::from(extend(value, access.width, false)) << shift;
            for (lane, value) in values.iter_mut().enumerate() {
                *value |= match register {
                    Some(AnyReg::Word(word)) => cut(warp.registers.get(*word)[lane].into()),
                    Some(AnyReg::Long(long)) => cut(warp.registers.get(*long)[lane]),
                    None => 0,
                };
            }
        }
        if self.write_lanes(warp, step, access, &addresses, &values) {
            return;
        }
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            self.write(warp, at, (access.space, addresses[lane], len), values[lane], order(access));
        }
    }

    /// A load from shared memory that nothing has to be said about. False when it is not one.
    fn read_lanes(
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
    fn write_lanes(
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

    fn atomic(&mut self, warp: &mut Warp, step: Step, atomic: &Atomic) {
        let addresses = addresses(&warp.registers, &atomic.address);
        self.count_access(step, atomic.space, &addresses, atomic.width);
        let value = |registers: &Registers, register: AnyReg, lane: usize| match register {
            AnyReg::Word(word) => extend(registers.get(word)[lane].into(), atomic.width, false),
            AnyReg::Long(long) => registers.get(long)[lane],
        };
        let mut old = [0; LANES];
        let order = Order::Strong { releases: atomic.releases };
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            let memory = (atomic.space, addresses[lane], atomic.width);
            let Some(found) = self.read(warp, at, memory, order) else { continue };
            old[lane] = found as u64;
            let operand = value(&warp.registers, atomic.operand, lane);
            let second = atomic.second.map_or(0, |second| value(&warp.registers, second, lane));
            let new = (atomic.update)(old[lane], operand, second);
            self.write(warp, at, memory, new.into(), order);
        }
        match atomic.old {
            Some(AnyReg::Word(word)) => {
                warp.registers.set(word, step.active, &std::array::from_fn(|lane| old[lane] as u32));
            }
            Some(AnyReg::Long(long)) => warp.registers.set(long, step.active, &old),
            None => {}
        }
    }

    fn cp_async(&mut self, warp: &mut Warp, step: Step, copy: &CpAsync) {
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
        let first = Site { warp: warp.index as u8, lane: 0, pc };
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
                None => match self.shared_offset(at, destinations[lane], copy.bytes, "copy to") {
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
    fn arrive(&mut self, warp: usize, copy: &Copy) {
        let late = self.options.delivery == Delivery::Late;
        if late {
            for lane in lanes(copy.lanes) {
                put(&mut self.shared, copy.destinations[lane], copy.bytes, copy.values[lane]);
            }
        }
        if !self.options.checks {
            return;
        }
        let (first, now) = (Site { warp: warp as u8, lane: 0, pc: copy.pc }, self.clocks.now(warp));
        if copy.bytes == 16 {
            self.shadow.end_async_lines(first, &now, copy.lanes, &copy.destinations);
        } else {
            for lane in lanes(copy.lanes) {
                let site = Site { lane: lane as u8, ..first };
                self.shadow.end_async(site, &now, copy.destinations[lane], copy.bytes);
            }
        }
    }

    /// Reads up to 16 bytes for one lane; nothing when the address is no good.
    #[inline]
    fn read(
        &mut self,
        warp: &Warp,
        at: RawPlace,
        (space, address, len): (Space, u64, u32),
        order: Order,
    ) -> Option<u128> {
        let (space, address) = resolve(space, address);
        match (space, order) {
            (Space::Shared, Order::Plain) => self.read_shared(at, shared_address(address), len),
            (Space::Shared, _) => self.touch_shared(at, shared_address(address), len),
            (Space::Local | Space::Param, _) => {
                let memory = if space == Space::Local { self.local(warp, at.lane as usize) } else { self.params };
                if let Err(kind) = inside(memory.len() as u64, address, len) {
                    self.memory_fault(kind, at, (space, address, len), "read");
                    return None;
                }
                Some(get(memory, address as u32, len))
            }
            _ => self.read_global(at, address, len, order),
        }
    }

    fn read_global(&mut self, at: RawPlace, address: u64, len: u32, order: Order) -> Option<u128> {
        if let Some(range) = self.image_range(address, len) {
            return Some(get(self.image, range.start as u32, len));
        }
        let look = match self.memory.look(address, len) {
            Ok(look) => look,
            Err(kind) => {
                self.memory_fault(kind, at, (Space::Global, address, len), "read");
                return None;
            }
        };
        let (value, shared) = (get(look.bytes, 0, len), !look.read_only);
        if !look.written {
            self.memory_fault(Kind::UninitializedMemory, at, (Space::Global, address, len), "read");
        }
        if shared && self.options.checks {
            let race = match order {
                Order::Plain => self.global.read(self.number, at.pc, address, len),
                Order::Strong { .. } => {
                    self.global.acquire(self.number, address);
                    self.global.atomic(self.number, at.pc, address, len)
                }
            };
            self.block_race(at, race, address, len);
        }
        Some(value)
    }

    /// Writes up to 16 bytes for one lane.
    #[inline]
    fn write(
        &mut self,
        warp: &mut Warp,
        at: RawPlace,
        (space, address, len): (Space, u64, u32),
        value: u128,
        order: Order,
    ) {
        let (space, address) = resolve(space, address);
        match (space, order) {
            (Space::Shared, Order::Plain) => self.write_shared(at, shared_address(address), len, value),
            (Space::Shared, _) => self.put_shared(at, shared_address(address), len, value),
            (Space::Local, _) => {
                let size = self.program.local_bytes;
                match inside(size.into(), address, len) {
                    Ok(()) => put(&mut warp.local, at.lane * size + address as u32, len, value),
                    Err(kind) => self.memory_fault(kind, at, (space, address, len), "write"),
                }
            }
            (Space::Param | Space::Const, _) => {
                self.memory_fault(Kind::ReadOnlyWrite, at, (space, address, len), "write");
            }
            _ => self.write_global(at, address, len, value, order),
        }
    }

    fn write_global(&mut self, at: RawPlace, address: u64, len: u32, value: u128, order: Order) {
        if let Some(range) = self.image_range(address, len) {
            return put(self.image, range.start as u32, len, value);
        }
        if let Err(kind) = self.memory.write(address, &value.to_le_bytes()[..len as usize]) {
            return self.memory_fault(kind, at, (Space::Global, address, len), "write");
        }
        if self.options.checks {
            let race = match order {
                Order::Plain => self.global.write(self.number, at.pc, address, len),
                Order::Strong { releases } => {
                    let race = self.global.atomic(self.number, at.pc, address, len);
                    if releases {
                        self.global.release(self.number, address);
                    } else {
                        self.global.publish(self.number, address);
                    }
                    race
                }
            };
            self.block_race(at, race, address, len);
        }
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
    fn touch_shared(&mut self, at: RawPlace, address: u32, len: u32) -> Option<u128> {
        let offset = self.shared_offset(at, address, len, "atomic access")?;
        if self.options.checks {
            let fault = self.shadow.atomic(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        Some(get(&self.shared, offset, len))
    }

    /// A write that is atomic.
    fn put_shared(&mut self, at: RawPlace, address: u32, len: u32, value: u128) {
        let Some(offset) = self.shared_offset(at, address, len, "atomic access") else { return };
        if self.options.checks {
            let fault = self.shadow.atomic_write(site(at), &self.clocks.now(at.warp as usize), offset, len);
            self.fault(at, fault, offset, len);
        }
        put(&mut self.shared, offset, len, value);
    }

    /// The offset of an address in shared memory, where all bytes of the access are inside and aligned.
    #[inline]
    fn shared_offset(&mut self, at: RawPlace, address: u32, len: u32, what: &str) -> Option<u32> {
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
    fn plain_offsets(&mut self, addresses: &Row<u32>, active: u32, len: u32) -> Option<Row<u32>> {
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

    fn local<'w>(&self, warp: &'w Warp, lane: usize) -> &'w [u8] {
        let size = self.program.local_bytes as usize;
        &warp.local[lane * size..][..size]
    }

    /// Where an address lies among the variables of the module.
    fn image_range(&self, address: u64, len: u32) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(address.checked_sub(MODULE_WINDOW)?).ok()?;
        let end = start.checked_add(len as usize)?;
        (end <= self.image.len()).then_some(start..end)
    }

    /// Reports an access that the memory does not allow.
    fn memory_fault(&mut self, kind: Kind, at: RawPlace, memory: (Space, u64, u32), what: &str) {
        let Self { findings, memory: global, program, shared, .. } = self;
        let (space, address, len) = memory;
        let elsewhere = match resolve(Space::Generic, address) {
            (own @ (Space::Shared | Space::Local), _) if space == Space::Global => Some(own),
            _ => None,
        };
        let kind = if elsewhere.is_some() { Kind::WrongSpace } else { kind };
        findings.add(kind, at, None, Some(memory), || {
            let place = match space {
                _ if let Some(own) = elsewhere => format!("{address:#x}, a generic address of {own} memory"),
                Space::Global | Space::Generic => global.describe(address),
                Space::Shared => {
                    let offset = address as i64 - i64::from(program.shared_base);
                    format!("offset {offset} of {} bytes of shared memory", shared.len())
                }
                _ => format!("address {address}"),
            };
            format!("{what} of {len} bytes: {place}")
        });
    }

    #[inline]
    fn fault(&mut self, at: RawPlace, fault: Option<Fault>, offset: u32, len: u32) {
        let Some(fault) = fault else { return };
        let with = fault.with().map(|with| self.place(with.warp.into(), with.lane.into(), with.pc));
        let address = u64::from(self.program.shared_base + offset);
        self.findings.add(fault.kind(), at, with, Some((Space::Shared, address, len)), || fault.to_string());
    }

    fn block_race(&mut self, at: RawPlace, race: Option<BlockRace>, address: u64, len: u32) {
        let Some(race) = race else { return };
        let [x, y, _] = self.size.grid;
        let block = [race.block % x, race.block / x % y, race.block / x / y];
        let with = RawPlace { block, warp: 0, lane: 0, pc: race.pc };
        let message = || format!("{} of another block, nothing orders them", race.order);
        self.findings.add(Kind::GlobalRace, at, Some(with), Some((Space::Global, address, len)), message);
    }

    fn count_access(&mut self, step: Step, space: Space, addresses: &Row<u64>, bytes: u32) {
        let first = addresses[step.active.trailing_zeros() as usize];
        let counters = &mut self.counters[step.pc as usize];
        match resolve(space, first).0 {
            Space::Shared => {
                let (ideal, real) =
                    shared_wavefronts(&std::array::from_fn(|lane| addresses[lane] as u32), step.active, bytes);
                counters.wavefronts_ideal += u64::from(ideal);
                counters.wavefronts += u64::from(real);
            }
            Space::Global => {
                let (ideal, real) = global_sectors(addresses, step.active, bytes);
                counters.sectors_ideal += u64::from(ideal);
                counters.sectors += u64::from(real);
            }
            _ => {}
        }
    }
}

fn order(access: &Access) -> Order {
    if access.strong { Order::Strong { releases: access.releases } } else { Order::Plain }
}

/// The space that a generic address is in, and the address there.
fn resolve(space: Space, address: u64) -> (Space, u64) {
    let inside = |window: u64| address.wrapping_sub(window) < WINDOW_BYTES;
    match space {
        Space::Generic if inside(SHARED_WINDOW) => (Space::Shared, address - SHARED_WINDOW),
        Space::Generic if inside(LOCAL_WINDOW) => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic => (Space::Global, address),
        other => (other, address),
    }
}

/// Whether an access lies in a memory of `size` bytes, and at a multiple of its width.
fn inside(size: u64, address: u64, len: u32) -> Result<(), Kind> {
    if address.checked_add(len.into()).is_none_or(|end| end > size) {
        return Err(Kind::OutOfBounds);
    }
    if address.is_multiple_of(len.into()) { Ok(()) } else { Err(Kind::Misaligned) }
}

/// The address of each lane.
fn addresses(registers: &Registers, address: &Address) -> Row<u64> {
    let offset = address.offset as u64;
    let mut row = [offset; LANES];
    match address.base {
        Some(AnyReg::Word(word)) => {
            for (address, base) in row.iter_mut().zip(registers.get(word)) {
                *address = u64::from(base.wrapping_add(offset as u32));
            }
        }
        Some(AnyReg::Long(long)) => {
            for (address, base) in row.iter_mut().zip(registers.get(long)) {
                *address = base.wrapping_add(offset);
            }
        }
        None => {}
    }
    row
}

/// An address in shared memory has 32 bits; others are outside of it.
#[inline(always)]
fn shared_address(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

fn site(at: RawPlace) -> Site {
    Site { warp: at.warp as u8, lane: at.lane as u8, pc: at.pc }
}

/// The low `width` bytes of a value, extended to 64 bits.
#[inline(always)]
fn extend(value: u64, width: u32, signed: bool) -> u64 {
    let shift = 64 - 8 * width;
    if signed { ((value << shift) as i64 >> shift) as u64 } else { value << shift >> shift }
}

/// The `len` bytes at `offset`, 1 to 16 and a power of two.
#[inline(always)]
fn get(memory: &[u8], offset: u32, len: u32) -> u128 {
    fn chunk<const N: usize>(memory: &[u8]) -> [u8; N] {
        memory.first_chunk().copied().unwrap_or([0xff; N])
    }
    let from = &memory[offset as usize..];
    match len {
        16 => u128::from_le_bytes(chunk(from)),
        8 => u64::from_le_bytes(chunk(from)).into(),
        4 => u32::from_le_bytes(chunk(from)).into(),
        2 => u16::from_le_bytes(chunk(from)).into(),
        _ => u8::from_le_bytes(chunk(from)).into(),
    }
}

/// Sets the `len` bytes at `offset`, 1 to 16 and a power of two.
#[inline(always)]
fn put(memory: &mut [u8], offset: u32, len: u32, value: u128) {
    fn chunk<const N: usize>(memory: &mut [u8], bytes: [u8; N]) {
        if let Some(chunk) = memory.first_chunk_mut() {
            *chunk = bytes;
        }
    }
    let to = &mut memory[offset as usize..];
    match len {
        16 => chunk(to, value.to_le_bytes()),
        8 => chunk(to, (value as u64).to_le_bytes()),
        4 => chunk(to, (value as u32).to_le_bytes()),
        2 => chunk(to, (value as u16).to_le_bytes()),
        _ => chunk(to, (value as u8).to_le_bytes()),
    }
}
