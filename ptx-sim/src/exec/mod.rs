//! Runs a decoded kernel, block after block.

mod barriers;
mod bulk;
mod bytes;
mod cluster;
mod copies;
mod descriptor;
mod faults;
mod groups;
mod matrix;
mod mbarriers;
mod memory;
mod operand;
mod phases;
mod products;
mod proxy;
mod shared;
mod step;
mod sync;
mod transfer;
mod warp;
mod warpgroup;

use crate::check::blocks::GlobalShadow;
use crate::check::clock::Clocks;
use crate::check::global::Memory;
use crate::check::shared::Shadow;
use crate::options::{Options, WarpOrder};
use crate::program::Program;
use crate::report::{Collector, Counters, Kind, LineCounters, RawPlace, Report, Space};
use barriers::{BARRIERS, Barrier};
use mbarriers::Mbarriers;
use operand::Bench;
use warp::{State, Warp};

/// Instructions that a warp executes before another one gets a turn, so that a warp may spin until another has done
/// its part.
const SLICE: u32 = 100_000;

/// The size of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

/// A launch while it runs.
pub(crate) struct Machine<'a> {
    program: &'a Program,
    options: Options,
    size: Size,
    params: &'a [u8],
    memory: &'a mut Memory,
    /// Variables of the module.
    image: &'a mut [u8],
    shared: Vec<u8>,
    shadow: Shadow,
    clocks: Clocks,
    global: GlobalShadow,
    barriers: [Barrier; BARRIERS],
    bench: Bench,
    mbarriers: Mbarriers,
    /// Tests of mbarriers since the last one that found a phase complete.
    idle_tests: u32,
    /// The warp has to let others go on.
    turn_over: bool,
    /// The block that runs, and its number.
    block: [u32; 3],
    number: u32,
    counters: Vec<Counters>,
    findings: Collector,
    executed: u64,
    peak_shared: u32,
    random: u64,
    /// Nothing sensible can follow.
    stopped: bool,
}

impl<'a> Machine<'a> {
    pub fn new(
        program: &'a Program,
        options: Options,
        size: Size,
        params: &'a [u8],
        memory: &'a mut Memory,
        image: &'a mut [u8],
    ) -> Self {
        let dynamic = program.dynamic_shared - program.shared_base + size.shared_bytes;
        let bytes = if size.shared_bytes > 0 { dynamic } else { program.static_shared };
        let threads: u32 = size.block.iter().product();
        let warps = threads.div_ceil(32) as usize;
        Self {
            program,
            options,
            size,
            params,
            memory,
            image,
            shared: vec![0xff; bytes as usize],
            shadow: Shadow::new(bytes, program.shared_granule, warps),
            clocks: Clocks::new(warps),
            global: GlobalShadow::new(program.global_granule),
            barriers: Default::default(),
            bench: Bench::default(),
            mbarriers: Mbarriers::default(),
            idle_tests: 0,
            turn_over: false,
            block: [0; 3],
            number: 0,
            counters: vec![Counters::default(); program.code.len()],
            findings: Collector::new(),
            executed: 0,
            peak_shared: 0,
            random: options.seed,
            stopped: false,
        }
    }

    /// Runs every block.
    pub fn run(mut self) -> Report {
        let threads: u32 = self.size.block.iter().product();
        let mut warps: Vec<Warp> =
            (0..threads.div_ceil(32) as usize).map(|index| Warp::new(self.program, index)).collect();
        let [x, y, z] = self.size.grid;
        let blocks = (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z])));
        for (number, block) in blocks.enumerate() {
            self.block = block;
            self.number = number as u32;
            self.run_block(&mut warps, threads);
            if self.stopped {
                break;
            }
        }
        self.report()
    }

    fn run_block(&mut self, warps: &mut [Warp], threads: u32) {
        self.shared.fill(0xff);
        self.shadow.clear();
        self.clocks.reset();
        self.barriers = Default::default();
        self.mbarriers.clear();
        self.idle_tests = 0;
        for (index, warp) in warps.iter_mut().enumerate() {
            warp.start(threads - 32 * index as u32);
        }
        loop {
            let mut progress = false;
            warps.iter_mut().for_each(|warp| warp.wake(self.mbarriers.completed));
            for turn in 0..warps.len() {
                let index = match self.options.warp_order {
                    WarpOrder::RoundRobin => turn,
                    WarpOrder::Reverse => warps.len() - 1 - turn,
                    WarpOrder::Random => self.choose(warps.len()),
                };
                if warps[index].state != State::Ready {
                    continue;
                }
                progress = true;
                let left = self.options.max_instructions.saturating_sub(self.executed).saturating_add(1);
                self.run_warp(&mut warps[index], u64::from(SLICE).min(left) as u32);
                if self.stopped {
                    return;
                }
                self.finish_products(warps, index);
                self.open_barriers(warps);
            }
            if warps.iter().all(|warp| warp.state == State::Done) {
                self.check_unfinished();
                self.check_register_limits(warps);
                return;
            }
            let ready =
                warps.iter().any(|warp| warp.state == State::Ready || warp.is_to_wake(self.mbarriers.completed));
            if !progress && !ready && !self.resolve(warps) {
                return;
            }
        }
    }

    /// One of `n`, at random.
    fn choose(&mut self, n: usize) -> usize {
        (self.random_bits() % n as u64) as usize
    }

    /// The next random bits (SplitMix64, Steele et al. 2014).
    fn random_bits(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn place(&self, warp: usize, lane: usize, pc: u32) -> RawPlace {
        RawPlace { block: self.block, warp: warp as u32, lane: lane as u32, pc }
    }

    /// Notes a defect.
    fn find(&mut self, kind: Kind, at: RawPlace, memory: Option<(Space, u64, u32)>, message: impl FnOnce() -> String) {
        self.findings.add(kind, at, None, memory, message);
    }

    fn report(self) -> Report {
        let Self { program, counters, findings, .. } = self;
        let source = &program.source;
        let text = |(start, len): (u32, u32)| {
            let text = source.text.get(start as usize..(start + len) as usize).unwrap_or_default();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let resolve = |pc: u32| {
            let inst = &program.code[pc as usize];
            (inst.line, text(inst.text), inst.loc.and_then(|loc| source.resolve(loc)))
        };
        let mut total = Counters::default();
        let mut lines: Vec<LineCounters> = Vec::new();
        for (inst, counters) in program.code.iter().zip(&counters) {
            if counters.instructions == 0 || inst.hidden {
                continue;
            }
            total += *counters;
            let source = inst.loc.and_then(|loc| source.resolve(loc));
            let (line, instruction, class) = (inst.line, text(inst.text), inst.class);
            lines.push(LineCounters { line, instruction, class, source, counters: *counters });
        }
        lines.sort_by_key(|line| line.line);
        Report {
            kernel: program.name.clone(),
            grid: self.size.grid,
            block: self.size.block,
            seed: self.options.seed,
            findings: findings.into_findings(resolve),
            total,
            lines,
            peak_shared: self.peak_shared,
        }
    }
}
