//! An access in one word, and the order of accesses.

use super::{Fault, Site};
use crate::check::Order;
use crate::check::clock::{AGENTS, Actor, Now, Passes};

/// An access in one word, from the top: in flight (1 bit), asynchronous (1), clock (26), pc (20), agent (9), whole (1),
/// several (1), lane (5). Greater words have greater clocks; asynchronous writes are greater than others, and those in
/// flight greater than everything else. Of an asynchronous access, which is never of a warp as a whole, that bit says
/// that it is of the generic proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event(u64);

const CLOCK_SHIFT: u32 = 36;
const PC_SHIFT: u32 = 16;
const AGENT_SHIFT: u32 = 7;
const IN_FLIGHT: u64 = 1 << 63;
const ASYNC: u64 = 1 << 62;
const WHOLE: u64 = 1 << 6;
const SEVERAL: u64 = 1 << 5;
const LANE: u64 = 0x1f;
const PC: u32 = 0xf_ffff;
/// Agent, several and lane.
const WHO: u64 = ((1 << PC_SHIFT) - 1) & !WHOLE;

impl Event {
    /// Not an access, and greater than all of them.
    pub const NONE: Self = Self(u64::MAX);

    #[inline(always)]
    pub fn new(at: Site, clock: u32) -> Self {
        let whole = if at.whole { WHOLE } else { 0 };
        let who = u64::from(at.warp) << AGENT_SHIFT | whole | u64::from(at.lane);
        Self(u64::from(clock) << CLOCK_SHIFT | u64::from(at.pc & PC) << PC_SHIFT | who)
    }

    /// The least one of a clock.
    #[inline(always)]
    pub fn at_clock(clock: u32) -> Self {
        Self(u64::from(clock) << CLOCK_SHIFT)
    }

    /// The same, by a lane; this one is of lane 0.
    #[inline(always)]
    pub fn by_lane(self, lane: usize) -> Self {
        Self(self.0 + lane as u64)
    }

    /// The same, issued and not waited for.
    #[inline(always)]
    pub fn in_flight(self) -> Self {
        Self(self.0 | IN_FLIGHT)
    }

    /// The same, done by other lanes too: the one that is named was the last.
    #[inline(always)]
    pub fn of_several(self) -> Self {
        Self(self.0 | SEVERAL)
    }

    /// The same, where an earlier one of the warp, which is forgotten, may be of a lane alone.
    #[inline(always)]
    pub fn after(self, earlier: Self) -> Self {
        Self(self.0 & (earlier.0 | !WHOLE))
    }

    /// The same, by the asynchronous proxy; the agent is an mbarrier, and the clock its phase.
    pub fn of_async_proxy(self) -> Self {
        Self(self.0 | ASYNC)
    }

    /// The same, by `st.async`, which is of the generic proxy; agent and clock are those of an mbarrier too.
    pub fn of_async_store(self) -> Self {
        Self(self.0 | ASYNC | WHOLE)
    }

    /// The initialisation of an mbarrier that lives here.
    pub fn of_mbarrier(self) -> Self {
        Self(self.0 | IN_FLIGHT | SEVERAL)
    }

    pub fn is_in_flight(self) -> bool {
        self.0 & IN_FLIGHT != 0
    }

    pub fn is_async(self) -> bool {
        self.0 & ASYNC != 0
    }

    pub fn is_of_async_proxy(self) -> bool {
        self.0 & (ASYNC | WHOLE) == ASYNC
    }

    pub fn is_of_mbarrier(self) -> bool {
        self.0 & (IN_FLIGHT | SEVERAL) == IN_FLIGHT | SEVERAL
    }

    #[inline(always)]
    pub fn clock(self) -> u32 {
        ((self.0 & !(IN_FLIGHT | ASYNC)) >> CLOCK_SHIFT) as u32
    }

    fn is_whole(self) -> bool {
        self.0 & (ASYNC | WHOLE) == WHOLE
    }

    /// A warp, or of an asynchronous access an mbarrier, which come behind the warps.
    #[inline(always)]
    pub fn agent(self) -> usize {
        (self.0 >> AGENT_SHIFT) as usize % AGENTS
    }

    #[inline(always)]
    pub fn lane(self) -> u8 {
        self.0 as u8 % 32
    }

    pub fn site(self) -> Site {
        let whole = self.is_whole();
        Site { warp: self.agent() as u16, lane: self.lane(), whole, pc: (self.0 >> PC_SHIFT) as u32 & PC }
    }

    /// Who did it.
    pub fn actor(self) -> Actor {
        let (several, whole) = (self.0 & SEVERAL != 0, self.is_whole());
        Actor { agent: self.agent(), lane: self.lane().into(), several, whole }
    }

    /// Whether both are of one lane, and of no other.
    #[inline(always)]
    pub fn is_same_lane(self, other: Self) -> bool {
        (self.0 ^ other.0) & WHO == 0
    }

    /// Whether both are of one warp and clock, and alike but for the lane and the instruction.
    #[inline(always)]
    pub fn is_same_time(self, other: Self) -> bool {
        (self.0 ^ other.0) & !((u64::from(PC) << PC_SHIFT) | LANE) == 0
    }

    /// Whether both are of one lane and instruction, whenever.
    pub fn is_same_site(self, other: Self) -> bool {
        (self.0 ^ other.0) << (64 - CLOCK_SHIFT) == 0
    }

    /// Whether both are of one warp, instruction and clock.
    pub fn is_same_instruction(self, other: Self) -> bool {
        (self.0 ^ other.0) >> AGENT_SHIFT == 0
    }
}

/// An access that happens, and what is ordered before it.
pub(super) struct Present<'a> {
    pub event: Event,
    /// The least event of this cluster: written, by nobody in particular. Its clock is the one that clocks count from.
    pub first: Event,
    /// Up to this event everything is ordered before the access.
    pub floor: Event,
    /// From this event on the warp's own accesses are ordered only with those of the same lane.
    pub since: Event,
    /// Whether it is a write of the asynchronous proxy, for which it is enough to know that operations of the proxy are
    /// done.
    is_async_write: bool,
    now: Now<'a>,
}

impl<'a> Present<'a> {
    #[inline(always)]
    pub fn new(at: Site, now: &Now<'a>, base: u32) -> Self {
        Self {
            event: Event::new(at, base + now.clock),
            first: Event::at_clock(base),
            floor: Event(Event::at_clock(base + now.floor + 1).0 - 1),
            since: Event::at_clock(base + now.seen[usize::from(at.warp)] + 1),
            is_async_write: false,
            now: *now,
        }
    }

    /// The same, of a write of the asynchronous proxy.
    #[inline(always)]
    pub fn of_async_write(mut self) -> Self {
        self.is_async_write = true;
        self
    }

    /// Whether the event is of this cluster, not in flight, and ordered before this one by clocks alone.
    #[inline(always)]
    pub fn surely_follows(&self, event: Event) -> bool {
        event.0.wrapping_sub(self.first.0) <= self.floor.0 - self.first.0
    }

    /// Whether the event is of an earlier cluster.
    pub fn is_stale(&self, event: Event) -> bool {
        event.clock() < self.first.clock()
    }

    /// Whether the event, which is not in flight, is ordered before this one.
    pub fn follows(&self, event: Event) -> bool {
        event.is_same_lane(self.event)
            || self.now.knows(self.clock_of(event), || event.actor(), event.agent())
            || event.is_of_async_proxy() && self.follows_end_of(event)
    }

    /// Whether a read of the asynchronous proxy, which was waited for, is ordered before this one.
    pub fn follows_async_read(&self, event: Event) -> bool {
        self.follows(event) || self.follows_end_of(event)
    }

    /// Whether this one is a write of the asynchronous proxy, and whoever begins it knows that the event, a write by a thread, was
    /// fenced for the proxy.
    pub fn follows_fenced(&self, write: Event) -> bool {
        self.is_async_write
            && !write.is_async()
            && self.now.has_passed_by_then((write.agent(), write.lane().into(), self.clock_of(write)))
    }

    /// Whether both are of the asynchronous proxy, this one a write, and whoever begins it knows that the other is done.
    fn follows_end_of(&self, event: Event) -> bool {
        self.is_async_write && self.now.knows_done(self.clock_of(event), || event.actor(), event.agent())
    }

    /// The clock in this cluster: events of clusters before are known as well.
    fn clock_of(&self, event: Event) -> u32 {
        event.clock().saturating_sub(self.first.clock())
    }

    /// Whether the asynchronous proxy sees a write that is ordered before this access. No fence is one of who did
    /// `st.async`.
    pub fn sees(&self, write: Event) -> bool {
        if write.is_async() {
            return write.is_of_async_proxy();
        }
        let who = (write.agent(), u32::from(write.site().lane), write.clock() - self.first.clock());
        let unknown = write == self.first;
        unknown || self.now.has_passed(Passes::Writes, who, write.is_same_lane(self.event))
    }

    /// The lanes whose writes at the time of this one are ordered before this access, and seen by the asynchronous
    /// proxy: all, where the write is its own.
    pub fn seen_lanes(&self, write: Event) -> u32 {
        if self.is_stale(write) || write.is_in_flight() {
            return 0;
        }
        let clock = write.clock() - self.first.clock();
        let known = match write.actor() {
            Actor { several: false, whole: false, agent, .. } => self.now.known_lanes(agent, clock),
            who if self.now.knows(clock, || who, who.agent) => u32::MAX,
            _ => 0,
        };
        if known == 0 || write.is_async() {
            return if write.is_of_async_proxy() { known } else { 0 };
        }
        known & self.now.lanes_passed(write.agent(), clock)
    }

    pub fn race(&self, event: Event, order: Order) -> Fault {
        let with = event.site();
        if event.is_async() {
            return Fault::Unwaited { with, order };
        }
        Fault::Race { with, same_warp: event.agent() == self.event.agent(), order }
    }
}
