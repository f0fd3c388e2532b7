//! What a plan has to know about a GPU.

use evo_sdpa_kernels::config::Kernel;

/// The figures of a GPU that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    /// Compute capability, major * 10 + minor: 89 for an L4, 90 for an H200.
    pub compute_capability: u32,
    /// Number of streaming multiprocessors.
    pub sm_count: u32,
    /// Shared memory that one block may have after opting in, bytes.
    pub shared_per_block: u32,
    /// Shared memory of one SM, bytes; each resident block takes 1 KiB beside its own.
    pub shared_per_sm: u32,
}

impl DeviceSpec {
    /// NVIDIA A100: 108 SMs, 164 KiB of shared memory each.
    pub const A100: Self =
        Self { compute_capability: 80, sm_count: 108, shared_per_block: 163 << 10, shared_per_sm: 164 << 10 };
    /// NVIDIA L4: 58 SMs, 100 KiB of shared memory each.
    pub const L4: Self =
        Self { compute_capability: 89, sm_count: 58, shared_per_block: 99 << 10, shared_per_sm: 100 << 10 };
    /// NVIDIA H200: 132 SMs, 228 KiB of shared memory each.
    pub const H200: Self =
        Self { compute_capability: 90, sm_count: 132, shared_per_block: 227 << 10, shared_per_sm: 228 << 10 };

    /// A typical device of a compute capability, for planning where no device is at hand.
    pub const fn typical(compute_capability: u32) -> Option<Self> {
        match compute_capability {
            80 => Some(Self::A100),
            89 => Some(Self::L4),
            90 => Some(Self::H200),
            _ => None,
        }
    }

    /// What the driver calls the device of [`DeviceSpec::typical`].
    pub const fn typical_name(compute_capability: u32) -> Option<&'static str> {
        match compute_capability {
            80 => Some("NVIDIA A100-SXM4-80GB"),
            89 => Some("NVIDIA L4"),
            90 => Some("NVIDIA H200"),
            _ => None,
        }
    }

    /// Whether the machine code of `kernel` runs here: `fwd_sm90` is for compute capability 9.0 and no later one, as the
    /// instructions that it is made of ended with Hopper; `fwd_fp8` is from 8.9 on.
    pub const fn runs(&self, kernel: Kernel) -> bool {
        match kernel {
            Kernel::FwdSm90(_) => self.compute_capability == 90,
            Kernel::FwdFp8(_) => self.compute_capability >= 89,
            Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::Decode(_) => self.compute_capability >= 80,
        }
    }

    /// Blocks of `kernel` that one SM holds at a time, by its register budget and its shared memory.
    pub fn resident_blocks(&self, kernel: Kernel) -> u32 {
        kernel.min_blocks_per_sm().min(self.shared_per_sm / shared_taken(kernel.shared_bytes())).max(1)
    }
}

/// Bytes that a block with this much shared memory takes of an SM.
pub(crate) const fn shared_taken(shared_bytes: u32) -> u32 {
    shared_bytes + 1024
}
