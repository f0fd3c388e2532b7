//! Logic, shifts, bit fields, and the moving of bytes.

use crate::common::{Operands, check, check_at, refused, table};

#[test]
fn logic_works_on_every_bit() {
    check("and.b16", |(a, b): (u16, u16)| a & b);
    check("or.b32", |(a, b): (u32, u32)| a | b);
    check("xor.b64", |(a, b): (u64, u64)| a ^ b);
    check("and.b64", |(a, b): (u64, u64)| a & b);
    check("not.b16", |(a,): (u16,)| !a);
    check("not.b32", |(a,): (u32,)| !a);
    check("not.b64", |(a,): (u64,)| !a);
    check("cnot.b16", |(a,): (u16,)| u16::from(a == 0));
    check("cnot.b32", |(a,): (u32,)| u32::from(a == 0));
    check("cnot.b64", |(a,): (u64,)| u64::from(a == 0));
}

#[test]
fn lop3_looks_each_bit_up() {
    let triples = [(0xf0f0_f0f0u32, 0xcccc_cccc_u32, 0xaaaa_aaaau32), (0x1234_5678, 0x9abc_def0, 0x0f1e_2d3c)];
    for lut in [0x00u32, 0x80, 0x96, 0xe8, 0xca, 0x1b, 0xfe, 0xff] {
        let bit = |a: u32, b: u32, c: u32| lut >> (4 * a + 2 * b + c) & 1;
        check_at(&format!("lop3.b32 %d, %a, %b, %c, {lut:#x};"), &triples, |(a, b, c): (u32, u32, u32)| {
            (0..32).fold(0, |d, i| d | bit(a >> i & 1, b >> i & 1, c >> i & 1) << i)
        });
    }
}

#[test]
fn shifts_by_the_width_or_more_leave_nothing() {
    check("shl.b16", |(a, b): (u16, u32)| a.checked_shl(b).unwrap_or(0));
    check("shl.b32", |(a, b): (u32, u32)| a.checked_shl(b).unwrap_or(0));
    check("shl.b64", |(a, b): (u64, u32)| a.checked_shl(b).unwrap_or(0));
    check("shr.u16", |(a, b): (u16, u32)| a.checked_shr(b).unwrap_or(0));
    check("shr.b32", |(a, b): (u32, u32)| a.checked_shr(b).unwrap_or(0));
    check("shr.u64", |(a, b): (u64, u32)| a.checked_shr(b).unwrap_or(0));
}

#[test]
fn signed_shifts_by_the_width_or_more_leave_the_sign() {
    check("shr.s16", |(a, b): (i16, u32)| a >> b.min(15));
    check("shr.s32", |(a, b): (i32, u32)| a >> b.min(31));
    check("shr.s64", |(a, b): (i64, u32)| a >> b.min(63));
}

#[test]
fn funnel_shifts_wrap_or_clamp() {
    let both = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    check("shf.l.wrap.b32", |(a, b, c): (u32, u32, u32)| ((both(a, b) << (c & 31)) >> 32) as u32);
    check("shf.r.wrap.b32", |(a, b, c): (u32, u32, u32)| (both(a, b) >> (c & 31)) as u32);
    check("shf.l.clamp.b32", |(a, b, c): (u32, u32, u32)| if c > 31 { a } else { ((both(a, b) << c) >> 32) as u32 });
    check("shf.r.clamp.b32", |(a, b, c): (u32, u32, u32)| if c > 31 { b } else { (both(a, b) >> c) as u32 });
}

/// The pseudocode of the PTX ISA for `bfe`.
fn extract(a: u64, b: u32, c: u32, width: u32, signed: bool) -> u64 {
    let (msb, pos, len) = (width - 1, b & 0xff, c & 0xff);
    let sign = if !signed || len == 0 { 0 } else { a >> (pos + len - 1).min(msb) & 1 };
    (0..width).fold(0, |d, i| d | if i < len && pos + i <= msb { a >> (pos + i) & 1 } else { sign } << i)
}

/// The pseudocode of the PTX ISA for `bfi`.
fn insert(a: u64, b: u64, c: u32, d: u32, width: u32) -> u64 {
    let (pos, len) = (c & 0xff, d & 0xff);
    let inside = |i: u32| i >= pos && i - pos < len;
    (0..width).fold(0, |f, i| f | if inside(i) { a >> (i - pos) & 1 } else { b >> i & 1 } << i)
}

/// Starts and lengths of fields, some beyond the register, some beyond the 8 bits that count.
fn fields() -> impl Iterator<Item = (u32, u32)> {
    let edges = [0, 1, 5, 31, 32, 33, 63, 64, 200, 255, 256, 257];
    edges.into_iter().flat_map(move |start| edges.map(move |len| (start, len)))
}

#[test]
fn bfe_takes_a_field_and_extends_it() {
    let words: Vec<_> = fields().flat_map(|(s, l)| [0x8765_4321u32, 0x7fff_fffe].map(|a| (a, s, l))).collect();
    check_at("bfe.u32", &words, |(a, b, c): (u32, u32, u32)| extract(a.into(), b, c, 32, false) as u32);
    check_at("bfe.s32", &words, |(a, b, c): (u32, u32, u32)| extract(a.into(), b, c, 32, true) as u32);
    let longs: Vec<_> = words.iter().map(|&(a, s, l)| (u64::from(a) << 31 | 5, s, l)).collect();
    check_at("bfe.u64", &longs, |(a, b, c): (u64, u32, u32)| extract(a, b, c, 64, false));
    check_at("bfe.s64", &longs, |(a, b, c): (u64, u32, u32)| extract(a, b, c, 64, true));
}

#[test]
fn bfi_puts_a_field_in_and_leaves_the_rest() {
    for (start, len) in fields().filter(|(start, len)| start.max(len) < &256) {
        let words = [(0x8765_4321u32, 0x0f0f_0f0fu32), (u32::MAX, 0), (0, u32::MAX)];
        check_at(&format!("bfi.b32 %d, %a, %b, {start}, {len};"), &words, |(a, b): (u32, u32)| {
            insert(a.into(), b.into(), start, len, 32) as u32
        });
        let longs = [(0x8765_4321_0fed_cba9u64, 0x0f0f_0f0f_f0f0_f0f0u64), (u64::MAX, 0)];
        check_at(&format!("bfi.b64 %d, %a, %b, {start}, {len};"), &longs, |(a, b): (u64, u64)| {
            insert(a, b, start, len, 64)
        });
    }
}

#[test]
fn bfind_finds_the_highest_bit_that_is_no_sign() {
    let top = |differing: u64| if differing == 0 { u32::MAX } else { 63 - differing.leading_zeros() };
    check("bfind.u32", |(a,): (u32,)| top(a.into()));
    check("bfind.u64", |(a,): (u64,)| top(a));
    check("bfind.s32", |(a,): (i32,)| top(u64::from((a ^ a >> 31) as u32)));
    check("bfind.s64", |(a,): (i64,)| top((a ^ a >> 63) as u64));
    check("bfind.shiftamt.u32", |(a,): (u32,)| if a == 0 { u32::MAX } else { a.leading_zeros() });
    check("bfind.shiftamt.s64", |(a,): (i64,)| {
        let differing = a ^ a >> 63;
        if differing == 0 { u32::MAX } else { differing.leading_zeros() }
    });
}

#[test]
fn bits_are_counted_and_reversed() {
    check("popc.b32", |(a,): (u32,)| a.count_ones());
    check("popc.b64", |(a,): (u64,)| a.count_ones());
    check("clz.b32", |(a,): (u32,)| a.leading_zeros());
    check("clz.b64", |(a,): (u64,)| a.leading_zeros());
    check("brev.b32", |(a,): (u32,)| a.reverse_bits());
    check("brev.b64", |(a,): (u64,)| a.reverse_bits());
}

#[test]
fn prmt_picks_bytes_and_spreads_signs() {
    let (a, b) = (0x8332_1180u32, 0xf766_d544u32);
    let bytes: [u8; 8] = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let picks = |nibbles: [u32; 4]| {
        let byte = |nibble: u32| {
            let byte = bytes[nibble as usize & 7];
            if nibble & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
        };
        u32::from_le_bytes(nibbles.map(byte))
    };
    table(
        "prmt.b32",
        &[
            ((a, b, 0x3210u32), a),
            ((a, b, 0x7654), b),
            ((a, b, 0x5410), picks([0, 1, 4, 5])),
            ((a, b, 0xfedc), picks([12, 13, 14, 15])),
            ((a, b, 0x98b8), picks([8, 11, 8, 9])),
            ((a, b, 0xabcd_0123), picks([3, 2, 1, 0])),
        ],
    );
    // The table of the PTX ISA, from d.b0 to d.b3.
    type Mode = (&'static str, [[u32; 4]; 4]);
    let modes: [Mode; 6] = [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ];
    for (mode, rows) in modes {
        let cases: Vec<_> = (0..4u32).map(|c| ((a, b, c + 8), picks(rows[c as usize]))).collect();
        table(&format!("prmt.b32.{mode}"), &cases);
    }
}

#[test]
fn mov_packs_and_unpacks() {
    check("mov.b64 %d, {%a, %b};", |(a, b): (u32, u32)| u64::from(b) << 32 | u64::from(a));
    check("mov.b32 %d, {%a, %b};", |(a, b): (u16, u16)| u32::from(b) << 16 | u32::from(a));
    check("mov.b64 {%d, _}, %a;", |(a,): (u64,)| a as u32);
    check("mov.b64 {_, %d}, %a;", |(a,): (u64,)| (a >> 32) as u32);
    check("mov.b32 {%h1, %d}, %a;", |(a,): (u32,)| (a >> 16) as u16);
    let longs: Vec<_> = <(u64,)>::edges();
    let code = "mov.b64 {%h0, %h1, %h2, %h3}, %a; mov.b64 %d, {%h3, %h2, %h1, %h0};";
    check_at(code, &longs, |(a,): (u64,)| (0..4).fold(0, |d, i| d | (a >> (16 * i) & 0xffff) << (48 - 16 * i)));
}

#[test]
fn slct_chooses_by_sign_and_selp_by_predicate() {
    check("slct.b32.s32", |(a, b, c): (u32, u32, i32)| if c >= 0 { a } else { b });
    check("slct.u64.s32", |(a, b, c): (u64, u64, i32)| if c >= 0 { a } else { b });
    table(
        "slct.f32.f32",
        &[((1f32, 2f32, -0f32), 1f32), ((1., 2., f32::NAN), 2.), ((1., 2., -1e-40), 2.), ((1., 2., 3.), 1.)],
    );
    check("setp.ne.b32 %p, %c, 0; selp.b64 %d, %a, %b, %p;", |(a, b, c): (u64, u64, bool)| if c { a } else { b });
    check("setp.ne.b32 %p, %c, 0; selp.u16 %d, %a, %b, %p;", |(a, b, c): (u16, u16, bool)| if c { a } else { b });
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in ["shl.u32 %r1, %r2;", "bfe.u16 %r1, %r2, 1, 2;", "prmt.b64 %r1, %r2, %r3, 0;", "brev.b32.x %r1, %r2;"]
    {
        refused(wrong);
    }
}
