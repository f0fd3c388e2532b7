//! Runs a decoded kernel, cluster after cluster. Where the launch has none, each block is a cluster of its own.

mod async_store;
mod barriers;
mod bulk;
mod bytes;
mod cluster;
mod completion;
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
mod window;

use crate::check::blocks::GlobalShadow;
use crate::check::clock::Clocks;
use crate::check::global::Memory;
use crate::check::shared::Shadow;
use crate::options::{Options, WarpOrder};
use crate::program::Program;
use crate::report::{Collector, Counters, Kind, LineCounters, RawPlace, Report, Space};
use cluster::Block;
use mbarriers::Mbarriers;
use operand::Bench;
use warp::{State, Warp};
use window::Windows;

/// Instructions that a warp executes before another one gets a turn, so that a warp may spin until another has done
/// its part.
const SLICE: u32 = 100_000;

/// The size of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Blocks, a multiple of those of a cluster along each axis.
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Blocks of a cluster, where the kernel or the launch gives them.
    pub cluster: Option<[u32; 3]>,
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
    /// Of all blocks of a cluster.
    shared: Vec<u8>,
    windows: Windows,
    shadow: Shadow,
    clocks: Clocks,
    global: GlobalShadow,
    bench: Bench,
    mbarriers: Mbarriers,
    /// Tests of mbarriers since the last one that found a phase complete.
    idle_tests: u32,
    /// The warp has to let others go on.
    turn_over: bool,
    /// The cluster that runs, along each axis, and its blocks by rank.
    cluster: [u32; 3],
    blocks: Vec<Block>,
    /// Warps of a block.
    warps: usize,
    /// The block whose turn it is.
    rank: usize,
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
        let blocks = size.cluster().iter().product::<u32>();
        let windows = Windows::new(program.shared_base, bytes, blocks);
        let (all_warps, all_bytes) = (warps * blocks as usize, windows.stride * blocks);
        Self {
            program,
            options,
            size,
            params,
            memory,
            image,
            shared: vec![0xff; all_bytes as usize],
            windows,
            shadow: Shadow::new(all_bytes, program.shared_granule, all_warps, blocks as usize),
            clocks: Clocks::new(all_warps),
            global: GlobalShadow::new(program.global_granule),
            bench: Bench::default(),
            mbarriers: Mbarriers::default(),
            idle_tests: 0,
            turn_over: false,
            cluster: [0; 3],
            blocks: (0..blocks).map(|_| Block::default()).collect(),
            warps,
            rank: 0,
            counters: vec![Counters::default(); program.code.len()],
            findings: Collector::new(),
            executed: 0,
            peak_shared: 0,
            random: options.seed,
            stopped: false,
        }
    }

    /// Runs every cluster.
    pub fn run(mut self) -> Report {
        let (program, per_block) = (self.program, self.warps);
        let mut warps: Vec<Warp> =
            (0..self.blocks.len() * per_block).map(|index| Warp::new(program, index, per_block)).collect();
        let [x, y, z] = self.size.clusters();
        for cluster in (0..z).flat_map(|z| (0..y).flat_map(move |y| (0..x).map(move |x| [x, y, z]))) {
            self.begin_cluster(cluster, &mut warps);
            self.run_cluster(&mut warps);
            if self.stopped {
                break;
            }
        }
        self.report()
    }

    fn begin_cluster(&mut self, cluster: [u32; 3], warps: &mut [Warp]) {
        self.cluster = cluster;
        let places = self.size.blocks(cluster);
        self.blocks.iter_mut().zip(places).for_each(|(block, (at, number))| block.begin(at, number));
        self.shared.fill(0xff);
        self.shadow.clear();
        self.clocks.reset();
        self.global.begin_cluster();
        self.mbarriers.clear();
        self.idle_tests = 0;
        let threads: u32 = self.size.block.iter().product();
        warps.iter_mut().for_each(|warp| warp.start(threads - 32 * warp.number as u32));
    }

    fn run_cluster(&mut self, warps: &mut [Warp]) {
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
                self.enter(warps[index].rank);
                let left = self.options.max_instructions.saturating_sub(self.executed).saturating_add(1);
                self.run_warp(&mut warps[index], u64::from(SLICE).min(left) as u32);
                if self.stopped {
                    return;
                }
                let number = warps[index].number;
                let block = &mut warps[index - number..][..self.warps];
                self.finish_products(block, number);
                self.open_barriers(block);
                self.end_block(block);
            }
            if self.blocks.iter().all(|block| block.ended) {
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

    /// Lane and instruction of a warp, by its number in the cluster.
    fn place(&self, warp: usize, lane: usize, pc: u32) -> RawPlace {
        let rank = if self.blocks.len() == 1 { 0 } else { warp / self.warps };
        RawPlace { block: self.blocks[rank].at, warp: warp as u32, lane: lane as u32, pc }
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
            findings: findings.into_findings(self.warps as u32, resolve),
            total,
            lines,
            peak_shared: self.peak_shared,
        }
    }
}
