//! Atomic operations on global and shared memory.

use crate::common::{kernel, refused};
use half::{bf16, f16};

/// What one thread reads as the old value, and what is there afterwards.
#[track_caller]
fn atom<const N: usize>(space: &str, code: &str, before: [u32; N]) -> ([u32; N], [u32; N]) {
    let width = 32 * N;
    let (old, load) = match N {
        1 => ("%r0", "mov.u32 %r1, 0;"),
        _ => ("%d0", "mov.b64 {%r0, %r1}, %d0;"),
    };
    let base = if space == "shared" { "dynamic" } else { "%d5" };
    let read = if N == 1 { "mov.u32 %r3, 0; mov.b32 %r2, %r5;" } else { "mov.b64 {%r2, %r3}, %d6;" };
    let register = if N == 1 { "%r5" } else { "%d6" };
    let instruction = code.replace("SPACE", space).replace("OLD", old).replace("AT", &format!("[{base}]"));
    let body = format!(
        "mov.u64 %d5, %in; ld.global.b{width} {register}, [%in]; st.shared.b{width} [dynamic], {register};
         {instruction} ld.{space}.b{width} {register}, [{base}]; {load} {read}
         st.global.v4.u32 [%out], {{%r0, %r1, %r2, %r3}};"
    );
    let run = kernel(&body).input(&before).threads(1).shared(16).clean();
    let out = run.of(0);
    (std::array::from_fn(|i| out[i]), std::array::from_fn(|i| out[2 + i]))
}

#[track_caller]
fn words(code: &str, before: u32, after: u32) {
    for space in ["global", "shared"] {
        assert_eq!(atom(space, code, [before]), ([before], [after]), "{code} in {space}");
    }
}

#[track_caller]
fn longs(code: &str, before: u64, after: u64) {
    let halves = |long: u64| [long as u32, (long >> 32) as u32];
    for space in ["global", "shared"] {
        assert_eq!(atom(space, code, halves(before)), (halves(before), halves(after)), "{code} in {space}");
    }
}

#[test]
fn integers_are_updated() {
    words("atom.SPACE.add.u32 OLD, AT, 7;", u32::MAX, 6);
    words("atom.SPACE.add.s32 OLD, AT, -7;", 3, -4i32 as u32);
    words("atom.SPACE.min.s32 OLD, AT, -7;", 3, -7i32 as u32);
    words("atom.SPACE.min.u32 OLD, AT, -7;", 3, 3);
    words("atom.SPACE.max.s32 OLD, AT, -7;", 3, 3);
    words("atom.SPACE.max.u32 OLD, AT, -7;", 3, -7i32 as u32);
    words("atom.SPACE.and.b32 OLD, AT, 0xf0;", 0x3c, 0x30);
    words("atom.SPACE.or.b32 OLD, AT, 0xf0;", 0x3c, 0xfc);
    words("atom.SPACE.xor.b32 OLD, AT, 0xf0;", 0x3c, 0xcc);
    words("atom.SPACE.exch.b32 OLD, AT, 5;", 9, 5);
}

#[test]
fn wide_integers_are_updated() {
    longs("atom.SPACE.add.u64 OLD, AT, 7;", u64::MAX, 6);
    longs("atom.SPACE.min.s64 OLD, AT, -7;", 3, -7i64 as u64);
    longs("atom.SPACE.max.u64 OLD, AT, -7;", 3, -7i64 as u64);
    longs("atom.SPACE.exch.b64 OLD, AT, -1;", 3, u64::MAX);
    longs("atom.SPACE.and.b64 OLD, AT, 0xff;", 0x1234_5678_9abc_def0, 0xf0);
    longs("atom.SPACE.cas.b64 OLD, AT, 3, 8;", 3, 8);
}

#[test]
fn cas_writes_where_the_old_value_is_as_expected() {
    words("atom.SPACE.cas.b32 OLD, AT, 5, 6;", 5, 6);
    words("atom.SPACE.cas.b32 OLD, AT, 5, 6;", 4, 4);
    words("atom.acq_rel.gpu.SPACE.cas.b32 OLD, AT, 5, 6;", 5, 6);
}

/// `inc` begins again at 0 behind its limit, `dec` at the limit behind 0.
#[test]
fn inc_and_dec_go_round() {
    words("atom.SPACE.inc.u32 OLD, AT, 9;", 8, 9);
    words("atom.SPACE.inc.u32 OLD, AT, 9;", 9, 0);
    words("atom.SPACE.inc.u32 OLD, AT, 9;", 12, 0);
    words("atom.SPACE.dec.u32 OLD, AT, 9;", 8, 7);
    words("atom.SPACE.dec.u32 OLD, AT, 9;", 0, 9);
    words("atom.SPACE.dec.u32 OLD, AT, 9;", 12, 9);
}

#[test]
fn floats_are_added() {
    words("mov.b32 %r9, 0f3FC00000; atom.SPACE.add.f32 OLD, AT, %r9;", 2.25f32.to_bits(), 3.75f32.to_bits());
    longs("mov.b64 %d9, 0d3FF8000000000000; atom.SPACE.add.f64 OLD, AT, %d9;", 2.25f64.to_bits(), 3.75f64.to_bits());
    let pair = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
    let f16s = |a: f32, b: f32| pair(f16::from_f32(a).to_bits(), f16::from_f32(b).to_bits());
    let bf16s = |a: f32, b: f32| pair(bf16::from_f32(a).to_bits(), bf16::from_f32(b).to_bits());
    let code =
        |format: &str, operand: u32| format!("mov.b32 %r9, {operand:#x}; atom.SPACE.add.noftz.{format} OLD, AT, %r9;");
    words(&code("f16x2", f16s(0.5, -2.0)), f16s(1.0, 7.0), f16s(1.5, 5.0));
    words(&code("bf16x2", bf16s(0.5, -2.0)), bf16s(1.0, 7.0), bf16s(1.5, 5.0));
}

#[test]
fn every_thread_of_every_block_is_counted_once() {
    let run = kernel("atom.global.add.u32 %r0, [%in], 1; st.global.u32 [%out], %r0; red.global.add.u32 [%in+4], %t;")
        .input(&[0, 0])
        .threads(96)
        .blocks(3)
        .clean();
    assert_eq!(run.input, [288, 3 * (95 * 96 / 2)]);
    let mut tickets = run.results();
    tickets.sort_unstable();
    assert_eq!(tickets, (0..288).collect::<Vec<_>>());
}

#[test]
fn lanes_may_take_turns_at_shared_counters() {
    let body = "setp.lt.u32 %p1, %t, 4; mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0;
        @%p1 st.shared.u32 [%r1], 0; bar.sync 0;
        and.b32 %r2, %t, 3; mad.lo.u32 %r2, %r2, 4, %r0; red.shared.add.u32 [%r2], 1; bar.sync 0;
        ld.shared.u32 %r3, [%r2]; st.global.u32 [%out], %r3;";
    assert_eq!(kernel(body).threads(64).shared(16).clean().results(), [16; 64]);
}

#[test]
fn a_generic_atomic_finds_its_space() {
    let body = "st.shared.u32 [dynamic], 5; cvta.shared.u64 %d0, dynamic; atom.add.u32 %r0, [%d0], 2;
        ld.shared.u32 %r1, [dynamic]; atom.add.u32 %r2, [%in], 1; mov.u32 %r3, 0;
        st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};";
    let run = kernel(body).threads(1).input(&[9]).shared(4).clean();
    assert_eq!((run.of(0), run.input), ([5, 7, 9, 0], vec![10]));
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "atom.global.sub.u32 %r0, [%in], 1;",
        "atom.global.inc.s32 %r0, [%in], 1;",
        "atom.global.min.f32 %r0, [%in], %r1;",
        "atom.global.cas.b32 %r0, [%in], 1;",
        "red.global.add.u32 %r0, [%in], 1;",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
