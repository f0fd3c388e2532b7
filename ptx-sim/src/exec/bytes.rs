//! Numbers in a piece of memory, in the byte order of the GPU.

/// The `len` bytes at `offset`, 1 to 16 and a power of two.
#[inline(always)]
pub(super) fn get(memory: &[u8], offset: u32, len: u32) -> u128 {
    fn chunk<const N: usize>(memory: &[u8]) -> [u8; N] {
        memory.first_chunk().copied().unwrap_or([0xff; N])
    }
    let from = &memory[offset as usize..];
    match len {
        16 => u128::from_le_bytes(chunk(from)),
        8 => u64::from_le_bytes(chunk(from)).into(),
        4 => u32::from_le_bytes(chunk(from)).into(),
        2 => u16::from_le_bytes(chunk(from)).into(),
        _ => u8::from_le_bytes(chunk(from)).into(),
    }
}

/// Sets the `len` bytes at `offset`, 1 to 16 and a power of two.
#[inline(always)]
pub(super) fn put(memory: &mut [u8], offset: u32, len: u32, value: u128) {
    fn chunk<const N: usize>(memory: &mut [u8], bytes: [u8; N]) {
        if let Some(chunk) = memory.first_chunk_mut() {
            *chunk = bytes;
        }
    }
    let to = &mut memory[offset as usize..];
    match len {
        16 => chunk(to, value.to_le_bytes()),
        8 => chunk(to, (value as u64).to_le_bytes()),
        4 => chunk(to, (value as u32).to_le_bytes()),
        2 => chunk(to, (value as u16).to_le_bytes()),
        _ => chunk(to, (value as u8).to_le_bytes()),
    }
}
