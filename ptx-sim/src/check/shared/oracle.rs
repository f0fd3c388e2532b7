//! The shadow against a list of everything that happened.

use super::*;
use crate::check::clock::{Clocks, Now, Passes};

#[derive(Clone, Copy, PartialEq)]
enum Does {
    Read,
    Write,
    Atomic,
    Begin,
}

struct Past {
    does: Does,
    at: Site,
    clock: u32,
    bytes: std::ops::Range<u32>,
    /// A copy that was not waited for.
    in_flight: bool,
}

/// Whether an access is wrong after all of these.
fn is_wrong(past: &[Past], does: Does, at: Site, now: &Now, bytes: &std::ops::Range<u32>) -> bool {
    let needs_value = matches!(does, Does::Read | Does::Atomic);
    let written =
        |byte| past.iter().any(|past| matches!(past.does, Does::Write | Does::Begin) && past.bytes.contains(&byte));
    let overlaps = |past: &&Past| past.bytes.start < bytes.end && bytes.start < past.bytes.end;
    let collides = |past: &Past| {
        let harmless = past.does == does && needs_value;
        let same_lane = past.at.warp == at.warp && past.at.lane == at.lane;
        let ordered = past.clock <= now.seen[past.at.warp as usize] || same_lane;
        past.in_flight || !harmless && !ordered
    };
    needs_value && !bytes.clone().all(written) || past.iter().filter(overlaps).any(collides)
}

#[test]
fn the_first_fault_is_where_a_search_through_everything_finds_it() {
    let mut random = 1u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((random >> 33) % below) as u32
    };
    let mut shadows = [1, 2, 4].map(|granule| Shadow::new(32, granule, 3, 1));
    for program in 0..60_000 {
        let granule = program % 3;
        let shadow = &mut shadows[granule];
        let mut clocks = Clocks::new(3);
        shadow.clear();
        let mut past: Vec<Past> = Vec::new();
        if draw(4) > 0 {
            let at = Site { warp: 0, lane: 0, whole: false, pc: 0 };
            for start in [0, 16] {
                assert_eq!(shadow.write(at, &clocks.now(0), start, 16, true), None);
                past.push(Past { does: Does::Write, at, clock: 1, bytes: start..start + 16, in_flight: false });
            }
            clocks.join(0, 0b111);
        }
        for pc in 0..40 {
            let (warp, lane) = (draw(3), draw(2));
            let at = Site { warp: warp as u16, lane: lane as u8, whole: false, pc };
            match draw(16) {
                0..5 => clocks.join(0, [0b111, 0b111, 0b11, 0b110, 0b101][draw(5) as usize]),
                5 if draw(2) == 0 => clocks.tick(warp as usize),
                5 => clocks.fence(warp as usize, 0b11, Passes::Writes),
                6 => {
                    let released = clocks.release(warp as usize, u32::MAX);
                    clocks.acquire(draw(3) as usize, &released);
                }
                7 => {
                    for copy in past.iter_mut().filter(|past| past.in_flight) {
                        let now = clocks.now(copy.at.warp as usize);
                        shadow.end_async(copy.at, &now, copy.bytes.start, copy.bytes.end - copy.bytes.start);
                        (copy.clock, copy.in_flight) = (now.clock, false);
                    }
                }
                choice => {
                    let does = match choice {
                        8..11 => Does::Read,
                        11..14 => Does::Write,
                        14 => Does::Atomic,
                        _ => Does::Begin,
                    };
                    let now = clocks.now(warp as usize);
                    let len = [1 << granule, 4, 8, 16, 16][draw(5) as usize];
                    let offset = draw(u64::from(32 / len)) * len;
                    let fault = match does {
                        Does::Read => shadow.read(at, &now, offset, len),
                        Does::Write => shadow.write(at, &now, offset, len, true),
                        Does::Atomic => shadow.atomic(at, &now, offset, len),
                        Does::Begin => shadow.begin_async(at, &now, offset, len),
                    };
                    let bytes = offset..offset + len;
                    let wrong = is_wrong(&past, does, at, &now, &bytes);
                    assert_eq!(fault.is_some(), wrong, "program {program}, instruction {pc}: {fault:?}");
                    if wrong {
                        break;
                    }
                    past.push(Past { does, at, clock: now.clock, bytes, in_flight: does == Does::Begin });
                }
            }
        }
    }
}
