//! The simulated device: memory and launches.

use crate::check::global::Memory;
use crate::error::{LaunchError, MemoryError};
use crate::exec::{Machine, Size};
use crate::module::Module;
use crate::options::Options;
use crate::report::Report;
use crate::syntax::ast::Cluster;
use std::collections::HashMap;

/// A piece of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    address: u64,
    len: usize,
}

impl Buffer {
    /// The address that a kernel uses.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What to run, how wide, and with which parameters.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Name of the entry point.
    pub entry: &'a str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Blocks of a cluster along each axis, where the launch gives them.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// The parameters as the entry point declares them, each at its own alignment.
    pub params: &'a [u8],
    /// How to simulate.
    pub options: Options,
}

/// Threads of a block, at most.
const MAX_THREADS: u32 = 1024;
/// Blocks of a cluster, at most: what compute capability 9.0 takes where a kernel allows more than 8.
const MAX_CLUSTER: u32 = 16;
/// Shared memory of a block, at most: that of compute capability 9.0.
const MAX_SHARED: u32 = 227 * 1024;

/// Device memory, and launches on it.
#[derive(Debug, Default)]
pub struct Device {
    memory: Memory,
    /// Variables of the modules that have been launched.
    images: HashMap<u64, Vec<u8>>,
}

impl Device {
    /// A device with no memory in use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory of `len` bytes that nobody has written: a kernel that reads it is reported.
    pub fn alloc(&mut self, len: usize) -> Buffer {
        Buffer { address: self.memory.alloc(len), len }
    }

    /// Memory with these bytes.
    pub fn upload(&mut self, bytes: &[u8]) -> Buffer {
        Buffer { address: self.memory.upload(bytes, false), len: bytes.len() }
    }

    /// Memory with these bytes, which kernels may not write.
    pub fn upload_read_only(&mut self, bytes: &[u8]) -> Buffer {
        Buffer { address: self.memory.upload(bytes, true), len: bytes.len() }
    }

    /// The bytes of a buffer; those that nobody wrote have every bit set, which is NaN in every format.
    ///
    /// # Errors
    /// [`MemoryError::Gone`] when it was freed or belongs to another device.
    pub fn download(&self, buffer: Buffer) -> Result<Vec<u8>, MemoryError> {
        let bytes = self.memory.download(buffer.address).filter(|bytes| bytes.len() == buffer.len);
        bytes.map(<[u8]>::to_vec).ok_or(MemoryError::Gone { address: buffer.address })
    }

    /// Writes all bytes of a buffer, also of one that kernels may not write.
    ///
    /// # Errors
    /// [`MemoryError::Length`] when `bytes` is not as long as the buffer, [`MemoryError::Gone`] when the buffer was
    /// freed or belongs to another device.
    pub fn write(&mut self, buffer: Buffer, bytes: &[u8]) -> Result<(), MemoryError> {
        if bytes.len() < buffer.len {
            return Err(MemoryError::Length { bytes: bytes.len(), len: buffer.len });
        }
        self.write_start(buffer, bytes)
    }

    /// Writes the first bytes of a buffer; others stay as they are, written or not.
    ///
    /// # Errors
    /// As [`Device::write`], for more bytes than the buffer has.
    pub fn write_start(&mut self, buffer: Buffer, bytes: &[u8]) -> Result<(), MemoryError> {
        if bytes.len() > buffer.len {
            return Err(MemoryError::Length { bytes: bytes.len(), len: buffer.len });
        }
        if self.memory.host_write(buffer.address, bytes) {
            Ok(())
        } else {
            Err(MemoryError::Gone { address: buffer.address })
        }
    }

    /// Gives a buffer back. A kernel that uses it afterwards is reported; its addresses are not given out again.
    ///
    /// # Errors
    /// [`MemoryError::Gone`] when it was freed before or belongs to another device.
    pub fn free(&mut self, buffer: Buffer) -> Result<(), MemoryError> {
        if self.memory.free(buffer.address) { Ok(()) } else { Err(MemoryError::Gone { address: buffer.address }) }
    }

    /// Runs a kernel to its end. What the kernel does wrong is in the report.
    ///
    /// # Errors
    /// What a driver would refuse: an entry point that does not exist, a size that is not possible, parameters of the
    /// wrong length.
    pub fn launch(&mut self, module: &Module, launch: &Launch) -> Result<Report, LaunchError> {
        let refuse = |field, value: String, allowed: String| Err(LaunchError { field, value, allowed });
        let Some(program) = module.program(launch.entry) else {
            let names: Vec<_> = module.entries().collect();
            return refuse("entry", launch.entry.into(), names.join(", "));
        };
        let [x, y, z] = launch.block;
        let threads = u64::from(x) * u64::from(y) * u64::from(z);
        let limit = program.max_threads.map_or(MAX_THREADS, |[x, y, z]| x.saturating_mul(y).saturating_mul(z));
        if threads == 0 || threads > u64::from(limit.min(MAX_THREADS)) {
            return refuse("block", format!("{:?}", launch.block), format!("1 to {limit} threads"));
        }
        if let Some(required) = program.required_threads.filter(|required| *required != launch.block) {
            return refuse("block", format!("{:?}", launch.block), format!("{required:?}"));
        }
        let [x, y, z] = launch.grid;
        if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
            return refuse("grid", format!("{:?}", launch.grid), "1 to 2147483647, 65535 and 65535 blocks".into());
        }
        let cluster = cluster(&program.cluster, launch)?;
        let fixed = program.dynamic_shared - program.shared_base;
        if launch.shared_bytes > MAX_SHARED || program.static_shared + launch.shared_bytes > MAX_SHARED {
            let left = MAX_SHARED.saturating_sub(fixed);
            return refuse("shared_bytes", launch.shared_bytes.to_string(), format!("0 to {left}"));
        }
        if launch.params.len() != program.param_bytes as usize {
            let (given, needed) = (launch.params.len(), program.param_bytes);
            return refuse("params", format!("{given} bytes"), format!("{needed} bytes"));
        }
        let image = self.images.entry(module.id()).or_insert_with(|| module.image().to_vec());
        let Launch { grid, block, shared_bytes, .. } = *launch;
        let size = Size { grid, block, cluster, shared_bytes };
        Ok(Machine::new(program, launch.options, size, launch.params, &mut self.memory, image).run())
    }
}

/// Blocks of a cluster along each axis, where the kernel or the launch gives them.
fn cluster(asked: &Cluster, launch: &Launch) -> Result<Option<[u32; 3]>, LaunchError> {
    let given = launch.cluster;
    let refuse = |value: String, allowed: String| Err(LaunchError { field: "cluster", value, allowed });
    if let (Some(given), Some(required)) = (given, asked.required.filter(|required| Some(*required) != given)) {
        return refuse(format!("{given:?}"), format!("{required:?}"));
    }
    let Some(cluster) = given.or(asked.required) else {
        if asked.explicit {
            return refuse("none".into(), "a number of blocks, the kernel is .explicitcluster".into());
        }
        return Ok(None);
    };
    let most = asked.max.unwrap_or(MAX_CLUSTER).min(MAX_CLUSTER);
    let blocks = cluster.iter().fold(1, |blocks: u32, axis| blocks.saturating_mul(*axis));
    if blocks == 0 || blocks > most {
        return refuse(format!("{cluster:?}"), format!("1 to {most} blocks"));
    }
    if launch.grid.iter().zip(&cluster).any(|(blocks, cluster)| !blocks.is_multiple_of(*cluster)) {
        let (value, allowed) = (format!("{:?}", launch.grid), format!("multiples of the cluster, {cluster:?}"));
        return Err(LaunchError { field: "grid", value, allowed });
    }
    Ok(Some(cluster))
}
