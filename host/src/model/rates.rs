//! How fast a GPU is: the figures that the time model takes, each with its source.

use crate::device::DeviceSpec;

/// Rates of a device. What one SM does is counted by the clock, what all SMs share by the microsecond.
///
/// Sources: `M` measured on the H200 of the README; `P` published by NVIDIA (data sheets, architecture papers, the
/// throughput tables of the CUDA programming guide); `B` published measurements of github.com/te42kyfo/gpu-benches
/// (`gpu-l2-cache`, `gpu-stream`); `A` assumed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Clock of the SMs, clocks a microsecond.
    pub clock: f64,
    /// `mma.sync` m16n8k16 with f32 accumulators, FLOP per SM and clock.
    pub tensor: f64,
    /// `mma.sync` m16n8k32 of e4m3 with f32 accumulators, the same; on Hopper, which has no such instruction, ptxas makes it of
    /// conversions to f16 and products of f16.
    pub fp8: f64,
    /// `wgmma` with f32 accumulators, FLOP per SM and clock; 0 where there is none.
    pub wgmma: f64,
    /// `ex2.approx.f32`, results per SM and clock.
    pub exponentials: f64,
    /// Shared memory, bytes per SM and clock.
    pub shared: f64,
    /// What one SM takes from L2 where the others leave it room, bytes per clock.
    pub copy: f64,
    /// What all SMs together take from L2, bytes a microsecond.
    pub l2: f64,
    /// Capacity of L2, bytes.
    pub l2_capacity: f64,
    /// A copy within device memory, bytes read and written a microsecond.
    pub dram: f64,
    /// Reads of device memory alone, bytes a microsecond.
    pub reads: f64,
    /// An empty kernel in a graph of back-to-back launches, microseconds.
    pub launch: f64,
    /// Share of `tensor` that matrix products sustain at the power limit; 1 where no limit is known.
    pub sustained: f64,
    /// The same of `wgmma`.
    pub wgmma_sustained: f64,
}

impl Rates {
    /// A100 with 40 GB: `clock`, `tensor`, `l2_capacity` P (1.41 GHz, 312 TFLOP/s, 40 MB); `l2` and `dram` B
    /// (5.4 TB/s, 1375 of 1555 GB/s); `reads` A, as much above a copy as on the H200; `launch` A, the H200's.
    const A100: Self = Self {
        clock: 1410.0,
        tensor: 2048.0,
        fp8: 0.0,
        wgmma: 0.0,
        exponentials: 16.0,
        shared: 128.0,
        copy: 64.0,
        l2: 5.4e6,
        l2_capacity: 40e6,
        dram: 1.375e6,
        reads: 1.47e6,
        launch: 0.75,
        sustained: 1.0,
        wgmma_sustained: 1.0,
    };

    /// L4: `clock`, `tensor`, `fp8`, `l2_capacity` P (2.04 GHz, 121 and 242 TFLOP/s, 48 MB); `l2` B, from an L40's 5.2 TB/s, half
    /// of it for half the L2 and 0.82 of that for the clock; `dram` P, of 300 GB/s the 0.92 that an L40 reaches (B);
    /// `reads` A, no more than 0.95 of them; `launch` A, the H200's. `sustained`: cuBLAS is reported at 70 TFLOP/s where
    /// the operands fit L2, as keys and values do, and at 53 to 59 beyond
    /// (github.com/zzc0721/torch-performance-test-data, issue 120); 72 W.
    const L4: Self = Self {
        clock: 2040.0,
        tensor: 1024.0,
        fp8: 2048.0,
        wgmma: 0.0,
        exponentials: 16.0,
        shared: 128.0,
        copy: 64.0,
        l2: 2.1e6,
        l2_capacity: 48e6,
        dram: 0.275e6,
        reads: 0.285e6,
        launch: 0.75,
        sustained: 0.58,
        wgmma_sustained: 1.0,
    };

    /// H200: `tensor` M (624 TFLOP/s) at `clock`, which is what products run at and not the boost of 1.98 GHz;
    /// `fp8` A, from two products of f16, four additions and three conversions for each instruction;
    /// `wgmma` P (989 TFLOP/s); `exponentials` P, and M gives 4.1 T/s; `dram` and `launch` M; `reads` M, by `decode` on 537 MB of keys and values;
    /// `l2` B; `l2_capacity` P. Its power limit shows in the clock of long head-dim-128 launches: with `mma.sync` by 3 %, which
    /// is not modelled, with `wgmma` by more (`wgmma_sustained`, fitted to `fwd_sm90`).
    const H200: Self = Self {
        clock: 1830.0,
        tensor: 2580.0,
        fp8: 1500.0,
        wgmma: 4096.0,
        exponentials: 16.0,
        shared: 128.0,
        copy: 64.0,
        l2: 10.2e6,
        l2_capacity: 50e6,
        dram: 4.215e6,
        reads: 4.51e6,
        launch: 0.75,
        sustained: 1.0,
        wgmma_sustained: 0.86,
    };

    /// The rates of `device`: those of the typical device of its family, where what all SMs share goes with their
    /// number. Compute capabilities up to 8.5 count as an A100, up to 8.9 as an L4, and above as an H200.
    pub fn of(device: &DeviceSpec) -> Self {
        let (typical, rates) = &Self::FAMILIES[Self::family(device)];
        let size = f64::from(device.sm_count) / f64::from(typical.sm_count);
        Self {
            l2: rates.l2 * size,
            l2_capacity: rates.l2_capacity * size,
            dram: rates.dram * size,
            reads: rates.reads * size,
            ..*rates
        }
    }

    /// The typical device of each family. The rates of one SM are the same in all of a family.
    pub(super) const FAMILIES: [(DeviceSpec, Self); 3] =
        [(DeviceSpec::A100, Self::A100), (DeviceSpec::L4, Self::L4), (DeviceSpec::H200, Self::H200)];

    /// Which of [`Rates::FAMILIES`] a device belongs to.
    pub(super) fn family(device: &DeviceSpec) -> usize {
        match device.compute_capability {
            ..=85 => 0,
            86..=89 => 1,
            90.. => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_whole_devices_are_the_published_ones() {
        let tflops = |device: DeviceSpec| {
            let rates = Rates::of(&device);
            rates.tensor * rates.clock * f64::from(device.sm_count) / 1e6
        };
        for (device, published) in [(DeviceSpec::A100, 312.0), (DeviceSpec::L4, 121.0), (DeviceSpec::H200, 624.0)] {
            assert!((tflops(device) / published - 1.0).abs() < 0.01, "{device:?}: {}", tflops(device));
        }
    }

    #[test]
    fn half_a_device_has_half_of_what_its_sms_share() {
        let whole = Rates::of(&DeviceSpec::H200);
        let half = Rates::of(&DeviceSpec { sm_count: DeviceSpec::H200.sm_count / 2, ..DeviceSpec::H200 });
        let (l2, dram, reads) = (whole.l2 / 2.0, whole.dram / 2.0, whole.reads / 2.0);
        assert_eq!(half, Rates { l2, l2_capacity: 25e6, dram, reads, ..whole });
    }
}
