use super::*;

/// What a kernel reads, and whether it may.
fn read_to(memory: &mut Memory, address: u64, out: &mut [u8]) -> Result<(), Kind> {
    let look = memory.look(address, out.len() as u32)?;
    out.copy_from_slice(look.bytes);
    if look.written { Ok(()) } else { Err(Kind::UninitializedMemory) }
}

fn read(memory: &mut Memory, address: u64, len: usize) -> Result<(), Kind> {
    read_to(memory, address, &mut [0; 64][..len])
}

#[test]
fn what_is_written_is_read() {
    let mut memory = Memory::default();
    let (a, b) = (memory.upload(&[1; 64], false), memory.upload(&[2; 64], true));
    for len in [1, 2, 4, 8, 16] {
        assert_eq!(memory.write(a + 16, &[len as u8; 16][..len]), Ok(()));
        let mut out = [0; 16];
        assert_eq!(read_to(&mut memory, a + 16, &mut out[..len]), Ok(()));
        assert_eq!(out[..len], [len as u8; 16][..len]);
        assert_eq!(read_to(&mut memory, b, &mut out[..len]), Ok(()));
        assert_eq!(out[..len], [2; 16][..len]);
    }
    assert_eq!(memory.download(a).map(|bytes| (bytes[15], bytes[16], bytes[32])), Some((1, 16, 1)));
}

#[test]
fn buffers_are_apart_and_aligned() {
    let mut memory = Memory::default();
    let lens = [1, 0, 255, 4096, 4097, 100_000];
    let addresses = lens.map(|len| memory.alloc(len));
    for (address, len) in addresses.into_iter().zip(lens) {
        assert_eq!(address % 256, 0);
        assert!(address > u64::from(u32::MAX) && address < 1 << 47);
        for near in 1..=4096 {
            assert_eq!(memory.write(address - near, &[0]), Err(Kind::OutOfBounds));
            assert_eq!(memory.write(address + len as u64 + near - 1, &[0]), Err(Kind::OutOfBounds));
        }
        if len > 0 {
            assert_eq!(memory.write(address, &[0]), Ok(()));
            assert_eq!(memory.write(address + len as u64 - 1, &[0]), Ok(()));
        }
    }
}

#[test]
fn an_access_over_the_end_is_out_of_bounds() {
    let mut memory = Memory::default();
    let address = memory.upload(&[0; 20], false);
    assert_eq!(read(&mut memory, address + 16, 4), Ok(()));
    assert_eq!(read(&mut memory, address + 16, 8), Err(Kind::OutOfBounds));
    for wild in [0, 8, u64::MAX - 15, 1 << 63, BASE - 16, BASE + (1 << 40)] {
        assert_eq!(read(&mut memory, wild & !15, 16), Err(Kind::OutOfBounds));
    }
}

#[test]
fn an_access_is_aligned_to_its_width() {
    let mut memory = Memory::default();
    let address = memory.upload(&[0; 64], false);
    for len in [2, 4, 8, 16] {
        assert_eq!(read(&mut memory, address + len / 2, len as usize), Err(Kind::Misaligned));
        assert_eq!(read(&mut memory, address + len, len as usize), Ok(()));
    }
    assert_eq!(read(&mut memory, address + 3, 1), Ok(()));
}

#[test]
fn freed_memory_stays_freed() {
    let mut memory = Memory::default();
    let address = memory.upload(&[0; 64], false);
    assert!(memory.free(address));
    assert!(!memory.free(address));
    assert!(memory.download(address).is_none() && !memory.host_write(address, &[1]));
    assert_ne!(memory.alloc(64), address);
    assert_eq!(read(&mut memory, address, 4), Err(Kind::UseAfterFree));
    assert_eq!(memory.write(address + 60, &[0; 4]), Err(Kind::UseAfterFree));
    assert_eq!(read(&mut memory, address + 64, 4), Err(Kind::OutOfBounds));
}

#[test]
fn memory_that_is_only_read_is_not_written() {
    let mut memory = Memory::default();
    let (fixed, free) = (memory.upload(&[7; 4], true), memory.upload(&[7; 4], false));
    assert!(
        memory.look(fixed, 1).is_ok_and(|look| look.read_only)
            && memory.look(fixed + 3, 1).is_ok_and(|look| look.read_only)
    );
    assert!(
        !memory.look(free, 1).is_ok_and(|look| look.read_only) && !memory.look(0, 1).is_ok_and(|look| look.read_only)
    );
    assert_eq!(memory.write(fixed, &[0; 4]), Err(Kind::ReadOnlyWrite));
    assert_eq!(memory.download(fixed), Some([7; 4].as_slice()));
    assert!(memory.host_write(fixed, &[8; 4]));
    assert_eq!(memory.download(fixed), Some([8; 4].as_slice()));
}

#[test]
fn bytes_that_nobody_wrote_are_found_one_by_one() {
    let mut memory = Memory::default();
    let address = memory.alloc(200);
    assert_eq!(read(&mut memory, address, 1), Err(Kind::UninitializedMemory));
    assert_eq!(memory.write(address + 62, &[5; 2]), Ok(()));
    assert_eq!(read(&mut memory, address + 62, 2), Ok(()));
    assert_eq!(read(&mut memory, address + 64, 1), Err(Kind::UninitializedMemory));
    // The data comes anyway.
    let mut out = [9; 4];
    assert_eq!(read_to(&mut memory, address + 60, &mut out), Err(Kind::UninitializedMemory));
    assert_eq!(out, [0xff, 0xff, 5, 5]);
}

#[test]
fn a_buffer_that_was_written_at_last_is_whole() {
    let mut memory = Memory::default();
    let address = memory.alloc(200);
    assert!(memory.host_write(address, &[1; 100]));
    for at in (96..200).step_by(8) {
        assert_eq!(read(&mut memory, address + at, 8), Err(Kind::UninitializedMemory));
        assert_eq!(memory.write(address + at, &[1; 8]), Ok(()));
    }
    assert_eq!((memory.allocations[0].missing, memory.allocations[0].written.len()), (0, 0));
    assert_eq!(read(&mut memory, address + 96, 8), Ok(()));
}

#[test]
fn a_host_copy_that_is_too_long_is_refused() {
    let mut memory = Memory::default();
    let address = memory.alloc(4);
    assert!(!memory.host_write(address, &[0; 5]) && !memory.host_write(address + 1, &[0]));
}

#[test]
fn addresses_are_described_by_the_nearest_buffer() {
    let mut memory = Memory::default();
    let (a, b) = (memory.alloc(4096), memory.alloc(16));
    memory.free(b);
    let cases = [
        (a + 8, format!("byte 8 of the 4096-byte buffer at {a:#x}")),
        (a + 4096, format!("directly behind the 4096-byte buffer at {a:#x}")),
        (a + 4108, format!("12 bytes behind the 4096-byte buffer at {a:#x}")),
        (b - 1, format!("1 byte before the freed 16-byte buffer at {b:#x}")),
        (b + 4, format!("byte 4 of the freed 16-byte buffer at {b:#x}")),
        (16, "0x10, a null pointer or near one".to_string()),
        (1 << 40, "0x10000000000, far from every buffer".to_string()),
    ];
    for (address, description) in cases {
        assert_eq!(memory.describe(address), description);
    }
}
