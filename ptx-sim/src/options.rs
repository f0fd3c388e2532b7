//! How a launch is simulated.

/// An architecture whose tensor cores are imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Ampere, A100.
    Sm80,
    /// Ada, L4.
    Sm89,
    /// Hopper, H100 and H200.
    Sm90,
}

/// How matrix instructions and approximations round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mma {
    /// f32 additions in the order of k, rounded to nearest: fast, and as good as the hardware.
    #[default]
    Fast,
    /// As the hardware does it.
    Exact(Arch),
}

/// When the bytes of an asynchronous copy arrive, and when an asynchronous matrix product is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// When a wait demands it: shows data that is used too early.
    #[default]
    Late,
    /// At once: shows data that is overwritten while it is still needed.
    Immediate,
}

/// Which warp of a block goes on when one has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WarpOrder {
    /// The next by number.
    #[default]
    RoundRobin,
    /// The next by number, from the last to the first.
    Reverse,
    /// A seeded choice.
    Random,
}

/// Where the lanes of a warp that went separate ways meet again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reconvergence {
    /// As soon as the control flow allows.
    #[default]
    Early,
    /// Only where the program says so: at `.sync` instructions with a member mask, barriers, and the end.
    Late,
}

/// How a launch is simulated; the default is fast and strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Rounding of matrix instructions.
    pub mma: Mma,
    /// Arrival of asynchronous copies and products.
    pub delivery: Delivery,
    /// Order of warps.
    pub warp_order: WarpOrder,
    /// Meeting of diverged lanes.
    pub reconvergence: Reconvergence,
    /// Seed of every choice above that is random, and of `jitter`.
    pub seed: u64,
    /// Changes the results of approximate instructions (`ex2.approx`, `lg2.approx`, ...) by up to this many units in
    /// the last place, at random: shows a test that leans on their bits.
    pub jitter: u8,
    /// Checks memory accesses for races, uninitialised reads and conflicts in time.
    pub checks: bool,
    /// Warp instructions of a launch before it is given up as endless.
    pub max_instructions: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mma: Mma::Fast,
            delivery: Delivery::Late,
            warp_order: WarpOrder::RoundRobin,
            reconvergence: Reconvergence::Early,
            seed: 0,
            jitter: 0,
            checks: true,
            max_instructions: 10_000_000_000,
        }
    }
}
