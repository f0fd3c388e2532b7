//! Loads, stores, atomics and asynchronous copies, each checked.

use super::Machine;
use super::copies::Copy;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::{global_sectors, shared_wavefronts};
use crate::check::blocks::BlockRace;
use crate::check::shared::{Fault, Site};
use crate::decode::MODULE_WINDOW;
use crate::decode::body::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::ops::atomic::Atomic;
use crate::options::Delivery;
use crate::program::{Access, Action, Address, AnyReg, CpAsync};
use crate::registers::{LANES, Registers, Row, lanes};
use crate::report::{Kind, RawPlace, Space};

/// The most bytes that a lane moves at once.
const MAX_BYTES: usize = 16;

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
                for copy in arrived {
                    self.arrive(warp.index, copy);
                }
            }
            _ => {}
        }
    }

    fn load(&mut self, warp: &mut Warp, step: Step, access: &Access) {
        let elements = access.registers.len();
        let bytes = access.width as usize * elements;
        let addresses = addresses(&warp.registers, &access.address);
        self.count_access(step, access.space, &addresses, bytes as u32);
        let mut values = [[0u64; LANES]; 4];
        for lane in lanes(step.active) {
            let mut buffer = [0xff; MAX_BYTES];
            self.read(warp, lane, step.pc, (access.space, addresses[lane]), &mut buffer[..bytes], order(access));
            for (element, values) in values.iter_mut().take(elements).enumerate() {
                values[lane] =
                    extend(&buffer[element * access.width as usize..][..access.width as usize], access.signed);
            }
        }
        for (register, values) in access.registers.iter().zip(&values) {
            match register {
                Some(AnyReg::Word(word)) => warp.registers.set(*word, step.active, &values.map(|value| value as u32)),
                Some(AnyReg::Long(long)) => warp.registers.set(*long, step.active, values),
                None => {}
            }
        }
    }

    fn store(&mut self, warp: &mut Warp, step: Step, access: &Access) {
        let width = access.width as usize;
        let bytes = width * access.registers.len();
        let addresses = addresses(&warp.registers, &access.address);
        self.count_access(step, access.space, &addresses, bytes as u32);
        for lane in lanes(step.active) {
            let mut buffer = [0; MAX_BYTES];
            for (element, register) in access.registers.iter().enumerate() {
                let value = match register {
                    Some(AnyReg::Word(word)) => u64::from(warp.registers.get(*word)[lane]),
                    Some(AnyReg::Long(long)) => warp.registers.get(*long)[lane],
                    None => 0,
                };
                buffer[element * width..][..width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            self.write(warp, lane, step.pc, (access.space, addresses[lane]), &buffer[..bytes], order(access));
        }
    }

    fn atomic(&mut self, warp: &mut Warp, step: Step, atomic: &Atomic) {
        let addresses = addresses(&warp.registers, &atomic.address);
        self.count_access(step, atomic.space, &addresses, atomic.width);
        let width = atomic.width as usize;
        let value = |registers: &Registers, register: AnyReg, lane: usize| match register {
            AnyReg::Word(word) => u64::from(registers.get(word)[lane]) & u64::MAX >> (64 - 8 * width.min(8)),
            AnyReg::Long(long) => registers.get(long)[lane],
        };
        let mut old = [0u64; LANES];
        let order = Order::Strong { releases: atomic.releases };
        for lane in lanes(step.active) {
            let at = (atomic.space, addresses[lane]);
            let mut buffer = [0; 8];
            if !self.read(warp, lane, step.pc, at, &mut buffer[..width], order) {
                continue;
            }
            old[lane] = u64::from_le_bytes(buffer);
            let operand = value(&warp.registers, atomic.operand, lane);
            let second = atomic.second.map_or(0, |second| value(&warp.registers, second, lane));
            let new = (atomic.update)(old[lane], operand, second);
            self.write(warp, lane, step.pc, at, &new.to_le_bytes()[..width], order);
        }
        match atomic.old {
            Some(AnyReg::Word(word)) => warp.registers.set(word, step.active, &old.map(|old| old as u32)),
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
        for lane in lanes(active) {
            let mut source_bytes = if ignored >> lane & 1 == 1 { 0 } else { copy.bytes };
            if let Some(given) = copy.source_bytes {
                let given = warp.registers.get(given)[lane];
                if given > copy.bytes {
                    let at = self.place(warp.index, lane, pc);
                    let most = copy.bytes;
                    self.find(Kind::InvalidOperand, at, None, || format!("{given} source bytes, allowed: 0 to {most}"));
                }
                source_bytes = given.min(copy.bytes);
            }
            let Some(offset) = self.shared_offset(warp.index, lane, pc, destinations[lane], copy.bytes, "copy to")
            else {
                continue;
            };
            if !self.source_is_good(warp, lane, pc, sources[lane], source_bytes, copy.bytes) {
                source_bytes = 0;
            }
            if self.options.checks {
                let site = Site { warp: warp.index as u8, lane: lane as u8, pc };
                let fault = self.shadow.begin_async(site, &self.clocks.now(warp.index), offset, copy.bytes);
                self.fault(site, fault, offset, copy.bytes);
            }
            let issued = Copy {
                lane: lane as u8,
                pc,
                destination: offset,
                source: sources[lane],
                bytes: copy.bytes as u8,
                source_bytes: source_bytes as u8,
            };
            match self.options.delivery {
                // NaN in every format until it arrives.
                Delivery::Late => self.shared[offset as usize..][..copy.bytes as usize].fill(0xff),
                Delivery::Immediate => self.deliver(issued),
            }
            warp.copies.issue(issued);
        }
    }

    /// Checks the source of a copy when it is issued.
    fn source_is_good(&mut self, warp: &Warp, lane: usize, pc: u32, address: u64, bytes: u32, align: u32) -> bool {
        if bytes == 0 {
            return true;
        }
        let at = self.place(warp.index, lane, pc);
        if !address.is_multiple_of(u64::from(align)) {
            self.memory_fault(Kind::Misaligned, at, (Space::Global, address, bytes), "copy from");
            return false;
        }
        let mut buffer = [0; MAX_BYTES];
        self.read(warp, lane, pc, (Space::Global, address), &mut buffer[..bytes as usize], Order::Plain)
    }

    /// The copy was waited for.
    fn arrive(&mut self, warp: usize, copy: Copy) {
        if self.options.delivery == Delivery::Late {
            self.deliver(copy);
        }
        if self.options.checks {
            let site = Site { warp: warp as u8, lane: copy.lane, pc: copy.pc };
            self.shadow.end_async(site, &self.clocks.now(warp), copy.destination, copy.bytes.into());
        }
    }

    fn deliver(&mut self, copy: Copy) {
        let mut buffer = [0; MAX_BYTES];
        let source_bytes = usize::from(copy.source_bytes);
        if source_bytes > 0 {
            // What is wrong with the source was said when the copy was issued.
            let _ = self.memory.read(copy.source, &mut buffer[..source_bytes]);
        }
        self.shared[copy.destination as usize..][..copy.bytes.into()].copy_from_slice(&buffer[..copy.bytes.into()]);
    }

    /// Reads `out.len()` bytes for one lane; false when nothing could be read.
    fn read(
        &mut self,
        warp: &Warp,
        lane: usize,
        pc: u32,
        (space, address): (Space, u64),
        out: &mut [u8],
        order: Order,
    ) -> bool {
        let at = self.place(warp.index, lane, pc);
        let len = out.len() as u32;
        let (space, address) = resolve(space, address);
        match space {
            Space::Shared => {
                return match order {
                    Order::Plain => self.read_shared(warp.index, lane, pc, address as u32, out),
                    Order::Strong { .. } => self.touch_shared(warp.index, lane, pc, address as u32, out),
                };
            }
            Space::Local | Space::Param => {
                let memory = if space == Space::Local { self.local(warp, lane) } else { self.params };
                let start = address as usize;
                let Some(bytes) = start.checked_add(out.len()).and_then(|end| memory.get(start..end)) else {
                    self.memory_fault(Kind::OutOfBounds, at, (space, address, len), "read");
                    return false;
                };
                out.copy_from_slice(bytes);
                return true;
            }
            _ => {}
        }
        if !address.is_multiple_of(u64::from(len.next_power_of_two())) {
            self.memory_fault(Kind::Misaligned, at, (space, address, len), "read");
            return false;
        }
        if let Some(bytes) = self.image_range(address, len) {
            out.copy_from_slice(&self.image[bytes]);
            return true;
        }
        if let Err(kind) = self.memory.read(address, out) {
            self.memory_fault(kind, at, (space, address, len), "read");
            return kind == Kind::UninitializedMemory;
        }
        if self.options.checks && !self.memory.is_read_only(address) {
            let race = match order {
                Order::Plain => self.global.read(self.number, pc, address, len),
                Order::Strong { .. } => {
                    self.global.acquire(self.number, address);
                    self.global.atomic(self.number, pc, address, len)
                }
            };
            self.block_race(at, race, address, len);
        }
        true
    }

    /// Writes bytes for one lane.
    fn write(
        &mut self,
        warp: &mut Warp,
        lane: usize,
        pc: u32,
        (space, address): (Space, u64),
        bytes: &[u8],
        order: Order,
    ) {
        let at = self.place(warp.index, lane, pc);
        let len = bytes.len() as u32;
        let (space, address) = resolve(space, address);
        match space {
            Space::Shared => match order {
                Order::Plain => return self.write_shared(warp.index, lane, pc, address as u32, bytes),
                // The read that belongs to it was checked as an atomic.
                Order::Strong { .. } => return self.put_shared(warp.index, lane, pc, address as u32, bytes),
            },
            Space::Local => {
                let size = self.program.local_bytes as usize;
                let start = address as usize;
                match start.checked_add(bytes.len()).filter(|end| *end <= size) {
                    Some(_) => warp.local[lane * size + start..][..bytes.len()].copy_from_slice(bytes),
                    None => self.memory_fault(Kind::OutOfBounds, at, (space, address, len), "write"),
                }
                return;
            }
            Space::Param | Space::Const => {
                return self.memory_fault(Kind::ReadOnlyWrite, at, (space, address, len), "write");
            }
            _ => {}
        }
        if !address.is_multiple_of(u64::from(len.next_power_of_two())) {
            return self.memory_fault(Kind::Misaligned, at, (space, address, len), "write");
        }
        if let Some(range) = self.image_range(address, len) {
            self.image[range].copy_from_slice(bytes);
            return;
        }
        if let Err(kind) = self.memory.write(address, bytes) {
            return self.memory_fault(kind, at, (space, address, len), "write");
        }
        if self.options.checks {
            let race = match order {
                Order::Plain => self.global.write(self.number, pc, address, len),
                Order::Strong { releases } => {
                    let race = self.global.atomic(self.number, pc, address, len);
                    if releases || self.fenced {
                        self.global.release(self.number, address);
                    }
                    race
                }
            };
            self.block_race(at, race, address, len);
        }
    }

    /// Reads shared memory; false when the address is no good.
    pub(super) fn read_shared(&mut self, warp: usize, lane: usize, pc: u32, address: u32, out: &mut [u8]) -> bool {
        let len = out.len() as u32;
        let Some(offset) = self.shared_offset(warp, lane, pc, address, len, "read") else { return false };
        out.copy_from_slice(&self.shared[offset as usize..][..out.len()]);
        if self.options.checks {
            let site = Site { warp: warp as u8, lane: lane as u8, pc };
            let fault = self.shadow.read(site, &self.clocks.now(warp), offset, len);
            self.fault(site, fault, offset, len);
        }
        true
    }

    pub(super) fn write_shared(&mut self, warp: usize, lane: usize, pc: u32, address: u32, bytes: &[u8]) {
        let len = bytes.len() as u32;
        let Some(offset) = self.shared_offset(warp, lane, pc, address, len, "write") else { return };
        let place = &mut self.shared[offset as usize..][..bytes.len()];
        let changes = place != bytes;
        place.copy_from_slice(bytes);
        if self.options.checks {
            let site = Site { warp: warp as u8, lane: lane as u8, pc };
            let fault = self.shadow.write(site, &self.clocks.now(warp), offset, len, changes);
            self.fault(site, fault, offset, len);
        }
    }

    /// The read of an atomic operation.
    fn touch_shared(&mut self, warp: usize, lane: usize, pc: u32, address: u32, out: &mut [u8]) -> bool {
        let len = out.len() as u32;
        let Some(offset) = self.shared_offset(warp, lane, pc, address, len, "atomic access") else { return false };
        out.copy_from_slice(&self.shared[offset as usize..][..out.len()]);
        if self.options.checks {
            let site = Site { warp: warp as u8, lane: lane as u8, pc };
            let fault = self.shadow.atomic(site, &self.clocks.now(warp), offset, len);
            self.fault(site, fault, offset, len);
        }
        true
    }

    /// The write of an atomic operation.
    fn put_shared(&mut self, warp: usize, lane: usize, pc: u32, address: u32, bytes: &[u8]) {
        let len = bytes.len() as u32;
        if let Some(offset) = self.shared_offset(warp, lane, pc, address, len, "atomic access") {
            self.shared[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The offset of an address in shared memory, where all bytes of the access are inside and aligned.
    #[inline]
    fn shared_offset(&mut self, warp: usize, lane: usize, pc: u32, address: u32, len: u32, what: &str) -> Option<u32> {
        let offset = address.wrapping_sub(self.program.shared_base);
        let fits = offset.checked_add(len).is_some_and(|end| end as usize <= self.shared.len());
        let aligned = address.is_multiple_of(len);
        if fits && aligned {
            self.peak_shared = self.peak_shared.max(offset + len);
            return Some(offset);
        }
        let kind = if fits { Kind::Misaligned } else { Kind::OutOfBounds };
        let at = self.place(warp, lane, pc);
        self.memory_fault(kind, at, (Space::Shared, address.into(), len), what);
        None
    }

    /// Addresses in shared memory of all lanes.
    pub(super) fn shared_addresses(&self, registers: &Registers, address: &Address) -> Row<u32> {
        addresses(registers, address).map(|address| address as u32)
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
        let (space, address, len) = memory;
        let shared = (self.program.shared_base, self.shared.len());
        let place = match space {
            Space::Global | Space::Generic => self.memory.describe(address),
            Space::Shared => {
                let offset = address as i64 - i64::from(shared.0);
                format!("offset {offset} of {} bytes of shared memory", shared.1)
            }
            _ => format!("address {address}"),
        };
        self.find(kind, at, Some(memory), || format!("{what} of {len} bytes at {place}"));
    }

    fn fault(&mut self, site: Site, fault: Option<Fault>, offset: u32, len: u32) {
        let Some(fault) = fault else { return };
        let with = fault.with().map(|with| self.raw(with));
        let address = u64::from(self.program.shared_base + offset);
        let at = self.raw(site);
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
                let (ideal, real) = shared_wavefronts(&addresses.map(|address| address as u32), step.active, bytes);
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

/// The address of each lane.
fn addresses(registers: &Registers, address: &Address) -> Row<u64> {
    let offset = address.offset as u64;
    match address.base {
        Some(AnyReg::Word(word)) => registers.get(word).map(|base| u64::from(base.wrapping_add(offset as u32))),
        Some(AnyReg::Long(long)) => registers.get(long).map(|base| base.wrapping_add(offset)),
        None => [offset; LANES],
    }
}

/// A value of up to 8 bytes, extended to 64 bits.
fn extend(bytes: &[u8], signed: bool) -> u64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    let value = u64::from_le_bytes(whole);
    let shift = 64 - 8 * bytes.len() as u32;
    if signed { ((value << shift) as i64 >> shift) as u64 } else { value }
}
