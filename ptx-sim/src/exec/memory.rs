//! Loads, stores and atomics, each checked: of any space here, of shared memory in [`super::shared`].

use super::Machine;
use super::bytes::{get, put};
use super::shared::shared_address;
use super::step::Step;
use super::warp::Warp;
use crate::check::banks::{global_sectors, shared_wavefronts};
use crate::decode::MODULE_WINDOW;
use crate::decode::body::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::ops::atomic::Atomic;
use crate::program::{Access, Action, Address, AnyReg};
use crate::registers::{LANES, Registers, Row, lanes};
use crate::report::{Kind, RawPlace, Space};

/// How an access to global memory stands to those of other blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Plain,
    /// Atomic, volatile or with an explicit order; whether it publishes what came before.
    Strong {
        releases: bool,
    },
}

impl Machine<'_> {
    pub(super) fn access(&mut self, warp: &mut Warp, step: Step) {
        if is_of_lanes_in_shared(&step.inst.action) {
            self.clocks.act(warp.index, step.active);
        }
        match &step.inst.action {
            Action::Load(access) => self.load(warp, step, access),
            Action::Store(access) => self.store(warp, step, access),
            Action::Atomic(atomic) => self.atomic(warp, step, atomic),
            Action::CpAsync(copy) => self.cp_async(warp, step, copy),
            Action::BulkLoad(load) => self.bulk_load(warp, step, load),
            Action::BulkStore(store) => self.bulk_store(warp, step, store),
            Action::BulkCommit => warp.stores.commit(step.active),
            Action::BulkWait(wait) => self.bulk_wait(warp, step, *wait),
            Action::AsyncStore(store) => self.async_store(warp, step, store),
            Action::MapAddress { d, a, rank, generic } => self.map_address(warp, step, (*d, *a), *rank, *generic),
            Action::BlockRank { d, a, generic } => self.block_rank(warp, step, *d, *a, *generic),
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
        let values = stored(&warp.registers, access);
        if self.write_lanes(warp, step, access, &addresses, &values) {
            return;
        }
        for lane in lanes(step.active) {
            let at = self.place(warp.index, lane, step.pc);
            self.write(warp, at, (access.space, addresses[lane], len), values[lane], order(access));
        }
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

    /// Reads up to 16 bytes for one lane; nothing when the address is no good.
    #[inline]
    pub(super) fn read(
        &mut self,
        warp: &Warp,
        at: RawPlace,
        (space, address, len): (Space, u64, u32),
        order: Order,
    ) -> Option<u128> {
        let (space, address) = resolve(space, address);
        match (space, order) {
            (Space::Shared | Space::Cluster, Order::Plain) => {
                self.read_shared(at, (space, shared_address(address)), len)
            }
            (Space::Shared | Space::Cluster, _) => self.touch_shared(at, (space, shared_address(address)), len),
            (Space::Local | Space::Param, _) => {
                let (memory, start) = match space {
                    Space::Local => (self.local(warp, at.lane as usize), 0),
                    _ => (self.params, self.program.param_base),
                };
                let offset = address.wrapping_sub(start.into());
                if let Err(kind) = inside(memory.len() as u64, offset, len) {
                    self.memory_fault(kind, at, (space, address, len), "read");
                    return None;
                }
                Some(get(memory, offset as u32, len))
            }
            _ => self.read_global(at, address, len, order),
        }
    }

    pub(super) fn read_global(&mut self, at: RawPlace, address: u64, len: u32, order: Order) -> Option<u128> {
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
            let number = self.blocks[self.rank].number;
            let race = match order {
                Order::Plain => self.global.read(number, at.pc, address, len),
                Order::Strong { .. } => {
                    self.global.acquire(number, address);
                    self.global.atomic(number, at.pc, address, len)
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
            (Space::Shared | Space::Cluster, Order::Plain) => {
                self.write_shared(at, (space, shared_address(address)), len, value);
            }
            (Space::Shared | Space::Cluster, _) => {
                self.put_shared(at, (space, shared_address(address)), len, value);
            }
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

    pub(super) fn write_global(&mut self, at: RawPlace, address: u64, len: u32, value: u128, order: Order) {
        if let Some(range) = self.image_range(address, len) {
            return put(self.image, range.start as u32, len, value);
        }
        if let Err(kind) = self.memory.write(address, &value.to_le_bytes()[..len as usize]) {
            return self.memory_fault(kind, at, (Space::Global, address, len), "write");
        }
        if self.options.checks {
            let number = self.blocks[self.rank].number;
            let race = match order {
                Order::Plain => self.global.write(number, at.pc, address, len),
                Order::Strong { releases } => {
                    let race = self.global.atomic(number, at.pc, address, len);
                    if releases {
                        self.global.release(number, address);
                    } else {
                        self.global.publish(number, address);
                    }
                    race
                }
            };
            self.block_race(at, race, address, len);
        }
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

    fn count_access(&mut self, step: Step, space: Space, addresses: &Row<u64>, bytes: u32) {
        let first = addresses[step.active.trailing_zeros() as usize];
        let counters = &mut self.counters[step.pc as usize];
        match resolve(space, first).0 {
            Space::Shared | Space::Cluster => {
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

/// Whether lanes use shared memory, each for itself.
fn is_of_lanes_in_shared(action: &Action) -> bool {
    match action {
        Action::Load(Access { space, .. })
        | Action::Store(Access { space, .. })
        | Action::Atomic(Atomic { space, .. }) => {
            matches!(space, Space::Shared | Space::Cluster | Space::Generic)
        }
        Action::MapAddress { .. } | Action::BlockRank { .. } | Action::CommitGroup | Action::BulkCommit => false,
        _ => true,
    }
}

fn order(access: &Access) -> Order {
    if access.strong { Order::Strong { releases: access.releases } } else { Order::Plain }
}

/// The space that a generic address is in, and the address there.
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    let inside = |window: u64| address.wrapping_sub(window) < WINDOW_BYTES;
    match space {
        Space::Generic if inside(SHARED_WINDOW) => (Space::Cluster, address - SHARED_WINDOW),
        Space::Generic if inside(LOCAL_WINDOW) => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic if inside(PARAM_WINDOW) => (Space::Param, address - PARAM_WINDOW),
        Space::Generic => (Space::Global, address),
        other => (other, address),
    }
}

/// The generic address of a place in shared memory.
pub(super) fn shared_window(address: u64) -> u64 {
    SHARED_WINDOW.wrapping_add(address)
}

/// Whether an access lies in a memory of `size` bytes, and at a multiple of its width.
fn inside(size: u64, address: u64, len: u32) -> Result<(), Kind> {
    if address.checked_add(len.into()).is_none_or(|end| end > size) {
        return Err(Kind::OutOfBounds);
    }
    if address.is_multiple_of(len.into()) { Ok(()) } else { Err(Kind::Misaligned) }
}

/// The address of each lane.
pub(super) fn addresses(registers: &Registers, address: &Address) -> Row<u64> {
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

/// The value that each lane stores.
pub(super) fn stored(registers: &Registers, access: &Access) -> Row<u128> {
    let mut values = [0; LANES];
    for (element, register) in access.registers.iter().enumerate() {
        let shift = 8 * access.width * element as u32;
        let cut = |value: u64| u128::from(extend(value, access.width, false)) << shift;
        for (lane, value) in values.iter_mut().enumerate() {
            *value |= match register {
                Some(AnyReg::Word(word)) => cut(registers.get(*word)[lane].into()),
                Some(AnyReg::Long(long)) => cut(registers.get(*long)[lane]),
                None => 0,
            };
        }
    }
    values
}

/// The low `width` bytes of a value, extended to 64 bits.
#[inline(always)]
fn extend(value: u64, width: u32, signed: bool) -> u64 {
    let shift = 64 - 8 * width;
    if signed { ((value << shift) as i64 >> shift) as u64 } else { value << shift >> shift }
}
