//! `st.async`: values that a thread stores to another block, and the mbarrier there that tells when they have come.

use crate::common::{Kernel, gives, kernel, refused};
use ptx_sim::{Delivery, Finding, Kind};

/// In every schedule a finding of one of these kinds, which is at the line with a mark if one is given.
#[track_caller]
fn finds(kernel: &Kernel, kinds: &[Kind], mark: Option<&str>) {
    for kernel in kernel.schedules() {
        let run = kernel.run();
        let line = mark.map(|mark| run.line(mark));
        let is_one =
            |finding: &Finding| kinds.contains(&finding.kind) && line.is_none_or(|line| finding.at.line == line);
        assert!(run.report.findings.iter().any(is_one), "none of {kinds:?} at {mark:?}\n{}", run.report);
    }
}

const MEET: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;";
/// What is wrong with bytes that nothing orders.
const UNORDERED: [Kind; 2] = [Kind::SharedRace, Kind::AsyncInFlight];

/// Two blocks of a warp, each with an mbarrier in `%r0` that expects one arrival and, zeroed before, 16 bytes a thread in
/// `%r1`; the other block's are `%r5` and `%r6`, and `%r4` is its rank. `%p1` holds in thread 0 of each block, `%p2` in block 0, `%p3` in thread 0 of
/// that.
fn pair(body: &str) -> Kernel {
    let text = format!(
        "mov.u32 %r0, bar; mov.u32 %r1, data; mad.lo.u32 %r1, %t, 16, %r1; mov.u32 %r4, %cluster_ctarank;
         setp.eq.u32 %p1, %t, 0; setp.eq.u32 %p2, %r4, 0; and.pred %p3, %p1, %p2; xor.b32 %r4, %r4, 1;
         mapa.shared::cluster.u32 %r5, %r0, %r4; mapa.shared::cluster.u32 %r6, %r1, %r4;
         mov.u32 %r20, 0; st.shared.v4.b32 [%r1], {{%r20, %r20, %r20, %r20}};
         @%p1 mbarrier.init.shared::cta.b64 [%r0], 1;
         @%p1 fence.mbarrier_init.release.cluster;
         {MEET} // all have begun
         {body}
         {MEET} // none ends before"
    );
    let module = ".shared .align 8 .b8 bar[8]; .shared .align 16 .b8 data[512];";
    kernel(&text).module(module).blocks(2).cluster([2, 1, 1])
}

const SEND: &str = "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r6], %thread, [%r5]; //! send\n";
const EXPECT: &str = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 128;\n";
const WAIT: &str = "W: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], 0; @!%p4 bra W;\n";
const READ: &str = "ld.shared.u32 %r8, [%r1]; //! read\n st.global.u32 [%out], %r8;\n";

/// Every thread sends its number to the same thread of the other block.
fn exchange() -> Kernel {
    pair(&[EXPECT, SEND, WAIT, READ].concat())
}

#[test]
fn a_value_is_there_when_the_phase_is_over() {
    gives(&exchange(), |thread| thread ^ 32);
    gives(&exchange().replace("parity.", "parity.acquire.cluster."), |thread| thread ^ 32);
    gives(&exchange().replace("try_wait", "test_wait"), |thread| thread ^ 32);
    gives(&exchange().replace("st.async.", "st.async.weak."), |thread| thread ^ 32);
    // The bytes may come before they are expected.
    gives(&pair(&[SEND, MEET, EXPECT, WAIT, READ].concat()), |thread| thread ^ 32);
    // To the own block, by the addresses it has anyway.
    gives(&exchange().replace("[%r6], %thread, [%r5]", "[%r1], %thread, [%r0]"), |thread| thread);
    gives(&exchange().replace("[%r6], %thread, [%r5]", "[%r1], %thread, [bar]"), |thread| thread);
}

#[test]
fn values_have_every_width_and_type() {
    let one = 1f32.to_bits();
    for (ty, value, bytes, words) in [
        ("b32", "%r10", 4, [7, 0, 0, 0]),
        ("s32", "-3", 4, [0xffff_fffd, 0, 0, 0]),
        ("f32", "%f0", 4, [one, 0, 0, 0]),
        ("f32", "{%f0}", 4, [one, 0, 0, 0]),
        ("v2.u32", "{%r10, 9}", 8, [7, 9, 0, 0]),
        ("v4.b32", "{%r10, 9, %r10, -1}", 16, [7, 9, 7, u32::MAX]),
        ("v4.f32", "{%f0, %f0, 0f40000000, %f0}", 16, [one, one, 2f32.to_bits(), one]),
        ("b64", "%d0", 8, [3, 5, 0, 0]),
        ("u64", "8589934593", 8, [1, 2, 0, 0]),
        ("s64", "-2", 8, [u32::MAX - 1, u32::MAX, 0, 0]),
        ("f64", "0d3ff0000000000000", 8, [0, 0x3ff0_0000, 0, 0]),
        ("v2.s64", "{%d0, 1}", 16, [3, 5, 1, 0]),
    ] {
        let body = format!(
            "mov.u32 %r10, 7; mov.f32 %f0, 0f3f800000; mov.b64 %d0, 21474836483;
             @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], {bytes};
             @%p1 st.async.shared::cluster.mbarrier::complete_tx::bytes.{ty} [%r6], {value}, [%r5];
             {WAIT} ld.shared.v4.u32 {{%r11, %r12, %r13, %r14}}, [%r1];
             st.global.v4.u32 [%out], {{%r11, %r12, %r13, %r14}};"
        );
        for kernel in pair(&body).schedules() {
            let run = kernel.clean();
            assert_eq!((run.of(0), run.of(32), run.of(1)), (words, words, [0; 4]), "{ty} {value}");
        }
    }
}

#[test]
fn a_value_that_is_not_waited_for_is_found() {
    finds(&exchange().replace(WAIT, ""), &UNORDERED, None);
    let run = exchange().replace(WAIT, "").options(|options| options.delivery = Delivery::Late).run();
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::AsyncUnfinished), "{}", run.report);
    // A wait that orders no memory, and one for another phase.
    finds(&exchange().replace("parity.", "parity.relaxed.cta."), &[Kind::SharedRace], Some("//! read"));
    finds(&exchange().replace("[%r0], 0;", "[%r0], 1;"), &UNORDERED, None);
    // The end of the thread, or a barrier, is no wait.
    finds(&exchange().replace(WAIT, MEET), &UNORDERED, Some("//! read"));
}

#[test]
fn what_was_written_before_is_not_ordered() {
    // The last word of each thread is written by an ordinary store.
    let before = "st.shared::cluster.u32 [%r6+12], 5; fence.acq_rel.cluster;\n";
    let read = "ld.shared.u32 %r9, [%r1+12]; //! other\n";
    finds(&pair(&[EXPECT, before, SEND, WAIT, READ, read].concat()), &[Kind::SharedRace], Some("//! other"));
}

#[test]
fn a_store_follows_what_was_there_as_a_thread_does() {
    let before = |what: &str| pair(&[what, EXPECT, SEND, WAIT, READ].concat());
    for access in ["st.shared.u32 [%r1], 1;", "ld.shared.u32 %r9, [%r1];"] {
        finds(&before(access), &UNORDERED, None);
        let relaxed = MEET.replace("arrive", "arrive.relaxed");
        finds(&before(&format!("{access} {relaxed}")), &[Kind::SharedRace], Some("//! send"));
        // It takes no fence between the proxies.
        gives(&before(&format!("{access} {MEET}")), |thread| thread ^ 32);
    }
    let late = |what: &str| pair(&[EXPECT, SEND, what, WAIT, READ].concat());
    finds(&late("st.shared.u32 [%r1], 1;"), &UNORDERED, None);
    finds(&late("st.shared::cluster.u32 [%r6], 1; //! again\n"), &[Kind::AsyncInFlight, Kind::SharedRace], None);
    finds(&late(&SEND.replace("send", "again")), &[Kind::AsyncInFlight], Some("//! again"));
    // Two lanes, one place.
    let one = SEND.replace("%r6", "%r9");
    let same = pair(&["mapa.shared::cluster.u32 %r9, data, %r4;", EXPECT, &one, WAIT].concat());
    finds(&same, &[Kind::AsyncInFlight], Some("//! send"));
}

#[test]
fn bulk_copies_neither_see_a_store_nor_read_on_below_one() {
    let copy = "@%p3 cp.async.bulk.global.shared::cta.bulk_group [%in], [data], 512; //! copy
        @%p3 cp.async.bulk.commit_group;\n";
    let (end, read_end) = ("@%p3 cp.async.bulk.wait_group 0;\n", "@%p3 cp.async.bulk.wait_group.read 0;\n");
    let with = |text: &[&str]| {
        let fenced = format!("fence.proxy.async.shared::cta; {MEET} // all have begun");
        pair(&text.concat()).input(&[0; 128]).replace(&format!("{MEET} // all have begun"), &fenced)
    };
    // What no lane has written, no lane can fence.
    for fence in ["", "fence.proxy.async.shared::cta; bar.warp.sync -1;\n"] {
        finds(&with(&[EXPECT, SEND, WAIT, fence, copy, end]), &[Kind::ProxyFence], Some("//! copy"));
    }
    let met = format!("{MEET}\n");
    gives(&with(&[copy, read_end, &met, EXPECT, SEND, WAIT, READ, end]), |thread| thread ^ 32);
    finds(&with(&[copy, &met, EXPECT, SEND, WAIT, READ, end]), &[Kind::AsyncInFlight], Some("//! send"));
    let relaxed = met.replace("arrive", "arrive.relaxed");
    finds(&with(&[copy, read_end, &relaxed, EXPECT, SEND, WAIT, READ, end]), &UNORDERED, None);
}

#[test]
fn bytes_that_are_not_as_expected_are_found() {
    for bytes in [124, 132, 64, 256] {
        finds(&exchange().replace("[%r0], 128;", &format!("[%r0], {bytes};")), &[Kind::Deadlock], None);
    }
    let none =
        exchange().replace("arrive.expect_tx.shared::cta.b64 _, [%r0], 128;", "arrive.shared::cta.b64 _, [%r0];");
    finds(&none, &[Kind::Mbarrier, Kind::Deadlock, Kind::AsyncInFlight, Kind::SharedRace], None);
    finds(&exchange().replace(SEND, ""), &[Kind::Deadlock], None);
    finds(&exchange().replace(SEND, &format!("@!%p1 {SEND}")), &[Kind::Deadlock], None);
}

#[test]
fn an_address_that_is_no_good_is_found() {
    let with = |operands: &str| exchange().replace("[%r6], %thread, [%r5]", operands);
    finds(&with("[%r6], %thread, [%r0]"), &[Kind::InvalidOperand], Some("//! send"));
    finds(&with("[%r1], %thread, [%r5]"), &[Kind::InvalidOperand], Some("//! send"));
    finds(&with("[%r6+2], %thread, [%r5]"), &[Kind::Misaligned], Some("//! send"));
    finds(&with("[%r6], %thread, [%r5+4]"), &[Kind::Misaligned], Some("//! send"));
    finds(&with("[%r6+65536], %thread, [%r5]"), &[Kind::OutOfBounds], Some("//! send"));
    finds(&with("[%r6], %thread, [%r5+65536]"), &[Kind::OutOfBounds], Some("//! send"));
    finds(&with("[%r6], %thread, [%r6]"), &[Kind::Mbarrier], Some("//! send"));
    // To a block that there is not.
    finds(&with("[%r6+33554432], %thread, [%r5]"), &[Kind::OutOfBounds], Some("//! send"));
    // Over an mbarrier.
    finds(&with("[%r5], %thread, [%r5]"), &[Kind::Mbarrier], Some("//! send"));
    for (vector, value) in [("v2.u32", "{%t, %t}"), ("u64", "%d0"), ("v4.b32", "{%t, %t, %t, %t}")] {
        let wide = with(&format!("[%r6+4], {value}, [%r5]")).replace("bytes.u32", &format!("bytes.{vector}"));
        finds(&wide.replace("W: ", "mov.b64 %d0, 0; W: "), &[Kind::Misaligned], Some("//! send"));
    }
}

#[test]
fn the_initialisation_must_be_known() {
    let met = format!("{MEET} // all have begun");
    finds(&exchange().replace(&met, ""), &[Kind::SharedRace, Kind::Mbarrier, Kind::AbsentBlock], None);
    // The fence of mbarriers is for who hears no more than that, and for bulk copies.
    gives(&exchange().replace("@%p1 fence.mbarrier_init.release.cluster;", ""), |thread| thread ^ 32);
    let relaxed = exchange().replace(&met, &met.replace("arrive", "arrive.relaxed")).replace("st.shared.v4.b32", "// ");
    relaxed.schedules().for_each(|kernel| drop(kernel.clean()));
    finds(&relaxed.replace("@%p1 fence.mbarrier_init.release.cluster;", ""), &[Kind::SharedRace], Some("//! send"));
}

#[test]
fn a_block_must_not_end_before_a_store_to_it() {
    let ends = |body: &str| pair(body).replace(&format!("{MEET} // none ends before"), "");
    // Who waits for the phase does not.
    gives(&ends(&[EXPECT, SEND, WAIT, READ].concat()), |thread| thread ^ 32);
    finds(&ends(&[EXPECT, SEND].concat()), &[Kind::AbsentBlock, Kind::AsyncUnfinished], Some("//! send"));
    finds(
        &ends(&[EXPECT, SEND, &MEET.replace("arrive", "arrive.relaxed")].concat()),
        &[Kind::AsyncUnfinished, Kind::AbsentBlock],
        Some("//! send"),
    );
    // Block 1 has ended for long.
    let late = "@!%p2 bra end; mov.u32 %r9, 0;
        spin: add.u32 %r9, %r9, 1; setp.lt.u32 %p5, %r9, 100000; @%p5 bra spin;\n";
    finds(&ends(&[late, SEND, "end:"].concat()), &[Kind::AbsentBlock], Some("//! send"));
}

/// How many tickets are handed out.
const TICKETS: u32 = 37;

/// Block 0 hands out numbers, one at a time in the same 4 bytes of block 1, which adds them up; the last says that it was the
/// last.
fn tickets() -> Kernel {
    let text = format!(
        "mov.u32 %r0, full; mov.u32 %r1, empty; mov.u32 %r2, slot; mov.u32 %r3, %cluster_ctarank;
         setp.eq.u32 %p0, %t, 0; setp.eq.u32 %p1, %r3, 0;
         @%p0 mbarrier.init.shared::cta.b64 [%r0], 1; @%p0 mbarrier.init.shared::cta.b64 [%r1], 1;
         @%p0 fence.mbarrier_init.release.cluster;
         barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;
         mapa.shared::cluster.u32 %r4, %r0, 1; mapa.shared::cluster.u32 %r5, %r2, 1;
         mapa.shared::cluster.u32 %r6, %r1, 0; mov.u32 %r7, 0; mov.u32 %r8, 0; mov.u32 %r10, 0;
         @!%p1 bra receive;
         give: setp.eq.u32 %p3, %r7, 0; sub.u32 %r9, %r7, 1; and.b32 %r9, %r9, 1; @%p3 bra send;
         {EMPTY}
         send: mad.lo.u32 %r10, %r7, %r7, 3; setp.eq.u32 %p5, %r7, {TICKETS}; selp.u32 %r10, -1, %r10, %p5;
         {TICKET}
         add.u32 %r7, %r7, 1; setp.le.u32 %p6, %r7, {TICKETS}; @%p6 bra give;
         bra end;
         receive: and.b32 %r9, %r7, 1;
         {EXPECTED}
         {FULL}
         {TAKE}
         shfl.sync.idx.b32 %r10, %r10, 0, 31, -1;
         {ACK}
         setp.eq.u32 %p5, %r10, -1; @%p5 bra end;
         add.u32 %r8, %r8, %r10; add.u32 %r7, %r7, 1; bra receive;
         end: st.global.v2.u32 [%out], {{%r7, %r8}};
         barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    );
    let module = ".shared .align 8 .b8 full[8]; .shared .align 8 .b8 empty[8]; .shared .align 8 .b8 slot[8];";
    kernel(&text).module(module).blocks(2).cluster([2, 1, 1]).options(|options| options.max_instructions = 100_000)
}

const EMPTY: &str = "E: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p4, [%r1], %r9; @!%p4 bra E;\n";
const TICKET: &str = "@%p0 st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r5], %r10, [%r4]; //! ticket\n";
const EXPECTED: &str = "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r0], 4;\n";
const FULL: &str = "F: mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r0], %r9; @!%p4 bra F;\n";
const TAKE: &str = "@%p0 ld.shared.u32 %r10, [%r2]; //! take\n";
const ACK: &str = "@%p0 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r6];\n";

#[track_caller]
fn passes_all(kernel: &Kernel) {
    for kernel in kernel.schedules_of_lanes() {
        let run = kernel.clean();
        let sum = (0..TICKETS).map(|ticket| ticket * ticket + 3).sum();
        assert!((32..64).all(|thread| run.of(thread)[..2] == [TICKETS, sum]), "{:?}", run.of(32));
    }
}

#[test]
fn a_ticket_is_passed_along_many_times() {
    passes_all(&tickets());
    passes_all(&tickets().replace(FULL, &FULL.replace("parity.", "parity.acquire.cluster.")));
    // All lanes take it, and one says so.
    let all = tickets().replace(TAKE, "ld.shared.u32 %r10, [%r2]; bar.warp.sync -1;\n");
    passes_all(&all);
    let fenced = format!("@%p0 fence.acq_rel.cluster; {}", ACK.replace("release", "relaxed"));
    passes_all(&tickets().replace(ACK, &fenced));
}

#[test]
fn a_ticket_that_is_taken_too_early_is_found() {
    let kinds = [Kind::SharedRace, Kind::AsyncInFlight, Kind::UninitializedMemory];
    finds(&tickets().replace(FULL, ""), &kinds, None);
    let relaxed = FULL.replace("parity.", "parity.relaxed.cluster.");
    finds(&tickets().replace(FULL, &relaxed), &[Kind::SharedRace], Some("//! take"));
    // The other phase: the first wait is none.
    let other = FULL.replace("F:", "xor.b32 %r9, %r9, 1; F:");
    finds(&tickets().replace(FULL, &other), &[kinds.as_slice(), &[Kind::Deadlock]].concat(), None);
}

#[test]
fn a_ticket_over_one_that_may_not_have_been_taken_is_found() {
    let without = |from: &str, to: &str| finds(&tickets().replace(from, to), &UNORDERED, Some("//! ticket"));
    without(EMPTY, "");
    // Arrivals and waits that order no memory of another block, which do for bulk copies.
    without(ACK, &ACK.replace(".release.cluster", ""));
    without(ACK, &ACK.replace(".release", ".relaxed"));
    without(ACK, &ACK.replace(".release.cluster", ".release.cta"));
    without(EMPTY, &EMPTY.replace(".acquire.cluster", ""));
    without(EMPTY, &EMPTY.replace(".acquire", ".relaxed"));
    // The ticket is taken behind the arrival, or by other lanes than the one that arrives.
    finds(&tickets().replace(TAKE, "").replace(ACK, &[ACK, TAKE].concat()), &UNORDERED, None);
    without(TAKE, "ld.shared.u32 %r10, [%r2]; //! take\n");
    // The other phase.
    without(EMPTY, &EMPTY.replace("E:", "xor.b32 %r9, %r9, 1; E:"));
}

#[test]
fn a_ticket_that_is_lost_is_found() {
    for (from, to) in [
        (TICKET, ""),
        (EXPECTED, ""),
        (ACK, ""),
        (EXPECTED, &EXPECTED.replace(", 4;", ", 8;")),
        (EXPECTED, &EXPECTED.replace("[%r0], 4;", "[%r0], 2;")),
        (TICKET, &TICKET.replace("%r10, [%r4]", "%r10, [%r6]")),
        (TICKET, &TICKET.replace("bytes.u32 [%r5], %r10,", "bytes.v2.u32 [%r5], {%r10, %r10},")),
    ] {
        finds(&tickets().replace(from, to), &[Kind::Deadlock, Kind::InvalidOperand], None);
    }
    let none = EXPECTED.replace("[%r0], 4;", "[%r0], 0;");
    let kinds = [Kind::Mbarrier, Kind::Deadlock, Kind::SharedRace, Kind::AsyncInFlight, Kind::UninitializedMemory];
    finds(&tickets().replace(EXPECTED, &none), &kinds, None);
}

#[test]
fn what_does_not_exist_is_refused() {
    for wrong in [
        "st.async.mbarrier::complete_tx::bytes.u32 [%r0], %r1, [%r2];",
        "st.async.shared::cta.mbarrier::complete_tx::bytes.u32 [%r0], %r1, [%r2];",
        "st.async.global.mbarrier::complete_tx::bytes.u32 [%d0], %r1, [%r2];",
        "st.async.shared::cluster.u32 [%r0], %r1, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r0], %r1;",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r0], %r1, %r2;",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u16 [%r0], %h1, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.f16x2 [%r0], %r1, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%r0], %r1, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b64 [%r0], {%d0, %d0, %d0, %d0}, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%r0], %r1, [%r2];",
        "st.async.release.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r0], %r1, [%r2];",
    ] {
        refused(wrong);
    }
}
