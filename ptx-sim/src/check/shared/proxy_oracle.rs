//! The shadow and its clocks against sets of everything that somebody knows, where bulk copies and asynchronous stores take
//! part.

use super::*;
use crate::check::clock::{Clocks, Knowledge, Passes};
use crate::registers::ALL;

const WARPS: usize = 3;
const MBARRIERS: usize = 2;
const LINES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Read,
    Write,
    /// A bulk copy to here.
    Load,
    /// A bulk copy from here.
    Store,
    /// `st.async` to here.
    Send,
}

struct Past {
    does: Does,
    at: Site,
    /// Of what completes on an mbarrier.
    by: Completion,
    lines: Range<u32>,
    /// A bulk copy or a store that nobody has waited for.
    in_flight: bool,
}

impl Past {
    fn completes_on(&self, mbarrier: usize) -> bool {
        matches!(self.does, Does::Load | Does::Send) && usize::from(self.by.agent) == WARPS + mbarrier
    }
}

/// Sets of accesses, by their places in the list: which are ordered before what comes, and of which no more is known than that they are done.
#[derive(Clone, Copy, Default)]
struct Known {
    past: u64,
    done: u64,
}

impl Known {
    fn add(&mut self, more: Self) {
        (self.past, self.done) = (self.past | more.past, self.done | more.done);
    }

    fn weak(self) -> Self {
        Self { past: 0, done: self.past | self.done }
    }
}

/// Whether an access is wrong after all of these, by somebody who knows so much.
fn is_wrong(past: &[Past], does: Does, known: Known, lines: &Range<u32>) -> bool {
    let reads = matches!(does, Does::Read | Does::Store);
    let is_known = |index: usize| {
        // Every write is fenced behind it.
        let for_async_proxy = matches!(past[index].does, Does::Load | Does::Store | Does::Write);
        let known = if does == Does::Load && for_async_proxy { known.past | known.done } else { known.past };
        known >> index & 1 == 1 && !past[index].in_flight
    };
    lines.clone().any(|line| {
        let of_line = |index: &usize| past[*index].lines.contains(&line);
        let is_write = |index: &usize| matches!(past[*index].does, Does::Write | Does::Load | Does::Send);
        let last = (0..past.len()).rev().filter(of_line).find(is_write);
        let mut read = (0..past.len()).filter(of_line).filter(|index| !is_write(index));
        // No fence passes a store on that no lane has done.
        let is_unseen = |last: usize| past[last].does == Does::Send && matches!(does, Does::Load | Does::Store);
        last.map_or(reads, |last| !is_known(last) || is_unseen(last)) || !reads && read.any(|index| !is_known(index))
    })
}

#[test]
fn the_first_fault_is_where_sets_of_what_is_known_have_it() {
    let mut random = 1u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    let (mut shadow, mut spared) = (Shadow::new(16 * LINES, 4, WARPS, 1), 0);
    let mut clocks = Clocks::new(WARPS);
    clocks.with_mbarriers(MBARRIERS);
    for program in 0..80_000 {
        shadow.clear();
        clocks.reset();
        let (mut past, mut known) = (Vec::<Past>::new(), [Known::default(); WARPS]);
        let (mut messages, mut phases) = (Vec::<(Knowledge, Known)>::new(), [0; MBARRIERS]);
        for pc in 0..60 {
            let (warp, mbarrier) = (draw(WARPS), draw(MBARRIERS));
            let does = match draw(25) {
                0 => {
                    clocks.join(0, 0b110);
                    let other = known[2];
                    known[1].add(other);
                    known[2] = known[1];
                    continue;
                }
                1..5 => {
                    messages.push((clocks.release(warp, ALL), known[warp]));
                    continue;
                }
                5 => {
                    if let [(first, set), .., (last, more)] = messages.as_mut_slice() {
                        first.add(last);
                        set.add(*more);
                    }
                    continue;
                }
                6..11 if !messages.is_empty() => {
                    let (message, set) = &messages[draw(messages.len())];
                    let way = draw(3);
                    match way {
                        0 => clocks.acquire(warp, message),
                        1 => clocks.acquire(warp, &message.weak()),
                        _ => clocks.acquire_weakly(warp, message),
                    }
                    known[warp].add(if way == 0 { *set } else { set.weak() });
                    continue;
                }
                // A phase is complete.
                11..13 => {
                    phases[mbarrier] += 1;
                    let of_phase = |load: &&mut Past| load.in_flight && load.completes_on(mbarrier);
                    for load in past.iter_mut().filter(of_phase) {
                        shadow.end_async_write(load.at, load.by, bytes(&load.lines));
                        load.in_flight = false;
                    }
                    continue;
                }
                // Somebody waits for it, or for stores.
                13..16 => {
                    let ended = |(_, load): &(usize, &Past)| !load.in_flight && load.completes_on(mbarrier);
                    let loads = past.iter().enumerate().filter(ended).fold(0, |set, (index, _)| set | 1 << index);
                    let set = Known { past: loads, done: 0 };
                    if draw(2) == 0 {
                        clocks.acquire_phase(warp, mbarrier, phases[mbarrier]);
                        known[warp].add(set);
                    } else {
                        clocks.acquire_phase_weakly(warp, mbarrier, phases[mbarrier]);
                        known[warp].add(set.weak());
                    }
                    continue;
                }
                16..18 => {
                    let now = clocks.now(warp);
                    let own = |past: &Past| past.does == Does::Store && past.at.warp == warp as u16;
                    for (index, store) in past.iter_mut().enumerate().filter(|(_, past)| past.in_flight && own(past)) {
                        let (offset, len) = bytes(&store.lines);
                        shadow.end_async_read(store.at, &now, offset, len);
                        store.in_flight = false;
                        known[warp].past |= 1 << index;
                    }
                    continue;
                }
                18 => Does::Read,
                19 => Does::Write,
                20 => Does::Store,
                21 => Does::Send,
                _ => Does::Load,
            };
            let at = Site { warp: warp as u16, lane: 0, whole: false, pc };
            let (agent, phase) = ((WARPS + mbarrier) as u16, phases[mbarrier] + 1);
            let by = Completion { agent, phase, is_store: does == Does::Send };
            let first = draw(LINES as usize) as u32;
            let is_bulk = matches!(does, Does::Load | Does::Store);
            let lines = first..if is_bulk { LINES.min(first + 1 + draw(2) as u32) } else { first + 1 };
            let wrong = is_wrong(&past, does, known[warp], &lines);
            // Most programs are to go on.
            if wrong && draw(8) > 0 {
                continue;
            }
            let (now, (offset, len)) = (clocks.now(warp), bytes(&lines));
            let fault = match does {
                Does::Read => shadow.read(at, &now, offset, len),
                Does::Write => shadow.write(at, &now, offset, len, true),
                Does::Load | Does::Send => shadow.begin_async_write(at, &now, by, (offset, len)),
                Does::Store => shadow.begin_async_read(at, &now, offset, len),
            };
            assert_eq!(fault.is_some(), wrong, "program {program}, instruction {pc}: {fault:?}");
            if wrong {
                break;
            }
            spared += usize::from(is_wrong(&past, does, Known { done: 0, ..known[warp] }, &lines));
            if does == Does::Write {
                clocks.fence(warp, ALL, Passes::Writes);
            }
            let in_flight = is_bulk || does == Does::Send;
            known[warp].past |= u64::from(!in_flight) << past.len();
            past.push(Past { does, at, by, lines, in_flight });
        }
    }
    assert!(spared > 5000, "{spared} loads were right only because operations were known to be done");
}

fn bytes(lines: &Range<u32>) -> (u32, u32) {
    (16 * lines.start, 16 * (lines.end - lines.start))
}
