//! Each kind of finding: where it is, what it says, how often it was seen; and what is no finding.

use crate::common::{Kernel, Run, kernel};
use ptx_sim::{Buffer, Class, Device, Finding, Kind, Reconvergence, Space, WarpOrder};

/// A pointer to a buffer, handed to a kernel as its input and loaded into `%d0`.
fn pointer(buffer: Buffer, body: &str) -> Kernel {
    let address = buffer.address();
    kernel(&format!("ld.global.u64 %d0, [%in];\n{body}")).input(&[address as u32, (address >> 32) as u32])
}

/// Block, warp and lane.
fn who(finding: &Finding) -> (u32, u32, u32) {
    (finding.at.block[0], finding.at.warp, finding.at.lane)
}

/// The only finding, which is at the line with `//!`, with its number.
#[track_caller]
fn marked(run: &Run, kind: Kind, count: u64) -> &Finding {
    let finding = run.finding(kind);
    assert_eq!((finding.at.line, finding.count), (run.line("//!"), count), "{}", run.report);
    finding
}

#[test]
fn a_finding_has_a_place_and_a_source() {
    let body = ".loc 1 41 3\nmov.u32 %r0, 1;\n.loc 1 42 7\n@%p1 st.global.u32   [%in+64],\n %r0; //!\nmov.u32 %r1, 1;";
    let body = format!("and.b32 %r2, %t, 33; setp.eq.u32 %p1, %r2, 33; setp.eq.and.u32 %p1, %cta, 1, %p1;\n{body}");
    let run = kernel(&body).input(&[0]).threads(64).blocks(2).run();
    let finding = run.finding(Kind::OutOfBounds);
    assert_eq!((finding.at.block, finding.at.warp, finding.at.lane), ([1, 0, 0], 1, 1));
    assert_eq!(finding.at.line, run.line("[%in+64]"));
    assert_eq!(finding.at.instruction, "@%p1 st.global.u32 [%in+64], %r0");
    let source = finding.at.source.as_ref().map(|source| (source.file.as_str(), source.line, source.column));
    assert_eq!(source, Some(("kernel.rs", 42, 7)));
    assert_eq!((finding.count, finding.with.as_ref()), (16, None));
    assert!(matches!(finding.memory, Some((Space::Global, _, 4))));
    assert!(run.report.to_string().contains("block (1,0,0) warp 1 lane 1 (thread 33)"), "{}", run.report);
    assert!(run.report.to_string().contains("kernel.rs:42:7"), "{}", run.report);
}

#[test]
fn out_of_bounds_says_how_far_from_which_buffer() {
    let run = kernel("ld.global.u32 %r0, [%in+8]; //!").input(&[0, 0]).run();
    assert!(marked(&run, Kind::OutOfBounds, 32).message.contains("directly behind"), "{}", run.report);
    let run = kernel("ld.global.u32 %r0, [%in+-12]; //!").input(&[0, 0]).threads(1).run();
    assert!(marked(&run, Kind::OutOfBounds, 1).message.contains("12 bytes before"), "{}", run.report);
    let run = kernel("mov.u64 %d0, 0; red.global.add.u32 [%d0], 1; //!").run();
    assert!(marked(&run, Kind::OutOfBounds, 32).message.contains("null"), "{}", run.report);
    // The last byte of a wide access counts.
    let run = kernel("ld.global.v2.u32 {%r0, %r1}, [%in]; //!").input(&[0]).threads(1).run();
    marked(&run, Kind::OutOfBounds, 1);
    kernel("ld.global.v2.u32 {%r0, %r1}, [%in];").input(&[0, 0]).clean();
}

#[test]
fn out_of_bounds_is_found_in_every_space() {
    let shared = kernel("st.shared.u32 [dynamic+64], 1; //!").shared(64).run();
    let finding = marked(&shared, Kind::OutOfBounds, 32);
    assert!(matches!(finding.memory, Some((Space::Shared, _, 4))), "{}", shared.report);
    marked(&kernel("ld.shared.u32 %r0, [dynamic]; //!").threads(1).run(), Kind::OutOfBounds, 1);
    let generic = "cvta.shared.u64 %d0, dynamic; ld.shared.u32 %r0, [%d0]; //!";
    marked(&kernel(generic).shared(64).run(), Kind::OutOfBounds, 32);
    let local = ".local .b32 here; mov.u64 %d0, here; ld.local.u32 %r0, [%d0+4]; //!";
    assert!(matches!(marked(&kernel(local).run(), Kind::OutOfBounds, 32).memory, Some((Space::Local, _, 4))));
    let matrix = "mov.u32 %r0, dynamic; mad.lo.u32 %r0, %lane, 16, %r0; st.shared.v4.u32 [%r0], {1, 2, 3, 4};
        bar.warp.sync -1;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0+448]; //!";
    assert_eq!(who(marked(&kernel(matrix).shared(512).run(), Kind::OutOfBounds, 4)), (0, 0, 4));
}

#[test]
fn use_after_free_is_told_from_out_of_bounds() {
    let mut device = Device::new();
    let buffer = device.upload(&[0; 8]);
    let kernel = pointer(buffer, "ld.global.u32 %r0, [%d0+4]; //!");
    assert!(kernel.run_on(&mut device).expect("a good launch").report.is_clean());
    device.free(buffer).expect("it is there");
    let run = kernel.run_on(&mut device).expect("a good launch");
    assert!(marked(&run, Kind::UseAfterFree, 32).message.contains("byte 4"), "{}", run.report);
}

#[test]
fn a_write_to_what_is_only_read_is_found() {
    let mut device = Device::new();
    let buffer = device.upload_read_only(&[7; 8]);
    let run = pointer(buffer, "ld.global.u32 %r0, [%d0];\nst.global.u32 [%d0], %lane; //!").run_on(&mut device);
    marked(&run.expect("a good launch"), Kind::ReadOnlyWrite, 32);
    assert_eq!(device.download(buffer), Ok(vec![7; 8]));
}

#[test]
fn an_address_of_another_space_is_found() {
    let run = kernel("cvta.shared.u64 %d0, dynamic; st.global.u32 [%d0], 1; //!").shared(4).run();
    assert!(marked(&run, Kind::WrongSpace, 32).message.contains("shared"), "{}", run.report);
    let run = kernel(".local .b32 x; cvta.local.u64 %d0, x; ld.global.u32 %r0, [%d0]; //!").run();
    assert!(marked(&run, Kind::WrongSpace, 32).message.contains("local"), "{}", run.report);
    kernel("cvta.shared.u64 %d0, dynamic; st.u32 [%d0], 1;").shared(4).threads(1).clean();
}

#[test]
fn misaligned_accesses_are_found() {
    marked(&kernel("ld.global.u32 %r0, [%in+2]; //!").input(&[0, 0]).run(), Kind::Misaligned, 32);
    let vector = "ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%in+8]; //!";
    marked(&kernel(vector).input(&[0; 8]).run(), Kind::Misaligned, 32);
    kernel("ld.global.v2.u32 {%r0, %r1}, [%in+8];").input(&[0; 8]).clean();
    marked(&kernel("st.shared.u64 [dynamic+4], 1; //!").shared(64).threads(1).run(), Kind::Misaligned, 1);
    marked(
        &kernel("cp.async.ca.shared.global [dynamic], [%in+4], 16; //!\ncp.async.wait_all;")
            .shared(16)
            .input(&[0; 8])
            .threads(1)
            .run(),
        Kind::Misaligned,
        1,
    );
    let local = ".local .align 8 .b8 here[16]; mov.u64 %d0, here; st.local.u32 [%d0+2], 1; //!";
    marked(&kernel(local).run(), Kind::Misaligned, 32);
    let matrix = "mov.u32 %r0, dynamic; mad.lo.u32 %r0, %lane, 8, %r0; st.shared.u64 [%r0], 1; bar.warp.sync -1;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0]; //!";
    assert_eq!(who(marked(&kernel(matrix).shared(512).run(), Kind::Misaligned, 4)), (0, 0, 1));
}

/// Dynamic shared memory is aligned as it is declared and no better.
#[test]
fn an_alignment_that_nobody_declared_is_found() {
    let body = "mov.u32 %r0, dynamic; and.b32 %r0, %r0, 31; st.global.u32 [%out], %r0;";
    assert_eq!(kernel(body).shared(64).clean().of(0)[0], 16);
}

#[test]
fn operands_that_are_not_allowed_are_found() {
    let message = |body: &str, count: u64| {
        let run = kernel(body).threads(64).shared(1024).input(&[0; 256]).run();
        marked(&run, Kind::InvalidOperand, count).message.clone()
    };
    assert!(message("mov.u32 %r0, 16; bar.sync %r0; //!", 2).contains("16"));
    assert!(message("mov.u32 %r0, 48; bar.sync 1, %r0; //!", 2).contains("48"));
    assert!(message("bar.sync 1, 96; //!", 2).contains("96"));
    let copy = "mov.u32 %r1, dynamic; mad.lo.u32 %r1, %t, 16, %r1; mov.u32 %r0, 17;
        cp.async.cg.shared.global [%r1], [%in], 16, %r0; //!\ncp.async.wait_all;";
    assert!(message(copy, 64).contains("17"));
    let switch = "targets: .branchtargets one, two; mov.u32 %r0, 2;\nbrx.idx %r0, targets; //!\none: two:";
    assert!(message(switch, 1).contains('2'));
    assert!(message("bar.warp.sync 1; //!", 2).contains("0x00000001"));
}

#[test]
fn a_trap_ends_the_launch() {
    let body = "setp.eq.u32 %p1, %t, 40; setp.eq.and.u32 %p1, %cta, 1, %p1; st.global.u32 [%out], 1;
        @%p1 trap; //!\n st.global.u32 [%out], 2;";
    let run = kernel(body).threads(64).blocks(3).run();
    assert_eq!(who(marked(&run, Kind::Trap, 1)), (1, 1, 8));
    assert_eq!((run.of(0)[0], run.of(128)[0]), (2, 0));
    kernel("setp.eq.u32 %p1, %t, 40; @%p1 trap;").clean();
}

#[test]
fn a_panic_is_a_trap() {
    let module = ".func _ZN4core9panicking5panic17h0E(.param .b64 p0) .noreturn;";
    let body = "{ .param .b64 p0; st.param.b64 [p0], 0;\ncall.uni _ZN4core9panicking5panic17h0E, (p0); //!\n}";
    let run = kernel(body).module(module).run();
    assert!(marked(&run, Kind::Trap, 1).message.contains("panicked"), "{}", run.report);
}

#[test]
fn a_deadlock_names_every_warp_that_waits() {
    let body = "setp.eq.u32 %p1, %warp, 0;\n@%p1 bar.sync 1, 64; //!\n@!%p1 bar.sync 2, 64;";
    let run = kernel(body).threads(64).run();
    let finding = marked(&run, Kind::Deadlock, 1);
    for waits in ["warp 0 at barrier 1", "warp 1 at barrier 2"] {
        assert!(finding.message.contains(waits), "{}", finding.message);
    }
    kernel(&body.replace("2, 64", "1, 64")).threads(64).clean();
}

#[test]
fn warps_that_disagree_about_a_barrier_are_found() {
    let body = "setp.eq.u32 %p1, %warp, 0; @%p1 bra zero;\nbar.sync 1, 64; //!\nbra done; zero: bar.sync 1, 96; done:";
    let run = kernel(body).threads(96).run();
    let findings = &run.report.findings;
    assert!(findings.iter().any(|finding| finding.kind == Kind::BarrierMismatch), "{}", run.report);
    let message = &findings.iter().find(|finding| finding.kind == Kind::BarrierMismatch).expect("found").message;
    assert!(message.contains("64") && message.contains("96"), "{message}");
}

#[test]
fn warps_that_ended_before_a_barrier_are_found() {
    let run = kernel("setp.eq.u32 %p1, %warp, 1; @%p1 exit;\nbar.sync 0; //!").threads(96).run();
    let finding = marked(&run, Kind::BarrierMismatch, 1);
    assert!(finding.message.contains("2 of 3 warps"), "{}", finding.message);
}

#[test]
fn lanes_that_are_missing_are_found() {
    let apart = "setp.lt.u32 %p1, %lane, 8; @%p1 bra low;\nbar.sync 0; //!\nbra done; low: bar.sync 1; done:";
    let run = kernel(apart).run();
    let finding = marked(&run, Kind::Diverged, 1);
    assert_eq!(who(finding), (0, 0, 8));
    let guarded = "mov.u32 %r0, 0; setp.lt.u32 %p1, %lane, 8; @%p1 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 \
        {%f0, %f1, %f2, %f3}, {%r0, %r0, %r0, %r0}, {%r0, %r0}, {%r0, %r0, %r0, %r0}; //!";
    assert!(marked(&kernel(guarded).run(), Kind::Diverged, 1).message.contains("0x000000ff are here"));
    let ended = "setp.ge.u32 %p1, %lane, 16; @%p1 exit;\nshfl.sync.bfly.b32 %r0, %lane, 1, 31, -1; //!";
    assert!(marked(&kernel(ended).run(), Kind::Diverged, 1).message.contains("0xffff0000 have ended"));
    // A warp that is not full has no such lanes either.
    let part = "shfl.sync.bfly.b32 %r0, %lane, 1, 31, -1; //!";
    assert!(marked(&kernel(part).threads(16).run(), Kind::Diverged, 1).message.contains("0xffff0000"));
}

/// Code that counts on lanes being together by accident works early, and is found late.
#[test]
fn late_meeting_finds_code_that_counts_on_early() {
    let body = "setp.lt.u32 %p1, %lane, 8; @%p1 bra low; mov.u32 %r5, 1; low: activemask.b32 %r0;
        shfl.sync.idx.b32 %r1, %lane, 0, 31, %r0;";
    kernel(body).clean();
    let late = kernel(body).options(|options| options.reconvergence = Reconvergence::Late).run();
    late.finding(Kind::Diverged);
}

#[test]
fn an_endless_loop_is_given_up() {
    let body = "again: add.u32 %t, %t, 1; bra again; //!";
    let run = kernel(body).options(|options| options.max_instructions = 1000).run();
    let finding = run.finding(Kind::Endless);
    assert!(finding.message.contains("1000"), "{}", finding.message);
    assert_eq!((finding.at.line, finding.count), (run.line("//!"), 1));
    assert!(run.report.total.instructions <= 1001);
    let ends = "mov.u32 %r0, 0; again: add.u32 %r0, %r0, 1; setp.lt.u32 %p1, %r0, 300; @%p1 bra again;";
    kernel(ends).options(|options| options.max_instructions = 1000).clean();
}

#[test]
fn access_to_a_copy_in_flight_is_found() {
    let access = |access: &str| {
        let body = format!("cp.async.ca.shared.global [dynamic], [%in], 4;\n{access} //!\ncp.async.wait_all;");
        kernel(&body).threads(1).shared(16).input(&[1]).run()
    };
    for code in [
        "ld.shared.u32 %r0, [dynamic];",
        "st.shared.u32 [dynamic], 1;",
        "cp.async.ca.shared.global [dynamic], [%in], 4;",
    ] {
        let run = access(code);
        let finding = marked(&run, Kind::AsyncInFlight, 1);
        assert_eq!(finding.with.as_ref().map(|with| with.line + 1), Some(finding.at.line), "{code}");
    }
    assert!(access("st.shared.u32 [dynamic+4], 1;").report.is_clean());
}

#[test]
fn a_race_in_shared_memory_names_both_sides() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %t, 4, %r0;
        st.shared.u32 [%r1], %t; // write\nxor.b32 %r2, %t, 32; mad.lo.u32 %r2, %r2, 4, %r0; bar.sync 0;
        st.shared.u32 [%r2], %t; // other\nld.shared.u32 %r3, [%r1]; //!";
    let run = kernel(body).threads(64).shared(256).run();
    let read = run.report.findings.iter().find(|finding| finding.at.line == run.line("//!")).expect("found");
    assert_eq!((read.kind, read.count, who(read)), (Kind::SharedRace, 32, (0, 1, 0)));
    let with = read.with.as_ref().expect("the write");
    assert_eq!((with.line, with.warp, with.lane), (run.line("// other"), 0, 0));
    assert!(read.message.contains("read after a write"), "{}", read.message);
    assert!(matches!(read.memory, Some((Space::Shared, _, 4))));
}

#[test]
fn a_race_in_a_warp_is_a_weaker_kind() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %lane, 4, %r0; st.shared.u32 [%r1], %t;
        BARRIER xor.b32 %r2, %lane, 1; mad.lo.u32 %r2, %r2, 4, %r0; ld.shared.u32 %r3, [%r2]; //!";
    let run = kernel(&body.replace("BARRIER", "")).shared(128).run();
    let finding = marked(&run, Kind::IntraWarpRace, 32);
    assert_eq!((who(finding), finding.with.as_ref().map(|with| with.lane)), ((0, 0, 0), Some(1)));
    kernel(&body.replace("BARRIER", "bar.warp.sync -1;")).shared(128).clean();
    // A lane does not race with itself.
    let own = "mov.u32 %r0, dynamic; mad.lo.u32 %r1, %lane, 4, %r0; st.shared.u32 [%r1], %t; ld.shared.u32 %r3, [%r1];";
    kernel(own).shared(128).clean();
}

#[test]
fn a_race_between_blocks_is_found() {
    let run = kernel("st.global.u32 [%in], %thread; //!").threads(1).blocks(3).input(&[0]).run();
    let finding = marked(&run, Kind::GlobalRace, 2);
    assert_eq!((who(finding), finding.with.as_ref().map(|with| with.block)), ((1, 0, 0), Some([0, 0, 0])));
    let run = kernel("setp.eq.u32 %p1, %cta, 1; @%p1 st.global.u32 [%in], 1; // write\nld.global.u32 %r0, [%in]; //!");
    let run = run.threads(1).blocks(3).input(&[0]).run();
    assert!(run.report.findings.iter().any(|finding| finding.message.contains("read after a write")), "{}", run.report);
    kernel("red.global.add.u32 [%in], 1;").blocks(3).input(&[0]).clean();
    kernel("ld.global.u32 %r0, [%in];").blocks(3).input(&[0]).clean();
}

/// The last block to come, as a counter tells it, may read what the others wrote behind a fence.
#[test]
fn a_fence_and_a_counter_order_blocks() {
    let body = "mad.wide.u32 %d0, %cta, 4, %in; st.global.u32 [%d0+4], %cta; FENCE
        atom.global.add.u32 %r0, [%in], 1; setp.ne.u32 %p1, %r0, 2; @%p1 exit; FENCE
        ld.global.u32 %r1, [%in+4]; ld.global.u32 %r2, [%in+8]; ld.global.u32 %r3, [%in+12];
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; st.global.u32 [%out], %r1;";
    let with = |fence: &str| kernel(&body.replace("FENCE", fence)).threads(1).blocks(3).input(&[0; 4]).run();
    let ordered = with("membar.gl;");
    assert!(ordered.report.is_clean(), "{}", ordered.report);
    assert_eq!(ordered.of(2)[0], 3);
    assert!(with("").report.findings.iter().all(|finding| finding.kind == Kind::GlobalRace));
    assert!(!with("").report.is_clean());
}

#[test]
fn memory_that_nobody_wrote_is_found() {
    let mut device = Device::new();
    let buffer = device.alloc(8);
    let run = pointer(buffer, "st.global.u32 [%d0], 1; ld.global.u32 %r0, [%d0];\nld.global.u32 %r1, [%d0+4]; //!");
    let run = run.threads(1).run_on(&mut device).expect("a good launch");
    assert!(matches!(marked(&run, Kind::UninitializedMemory, 1).memory, Some((Space::Global, _, 4))));
    let shared = "st.shared.u16 [dynamic], 1;\nld.shared.u32 %r0, [dynamic]; //!";
    let run = kernel(shared).threads(1).shared(4).run();
    assert!(matches!(marked(&run, Kind::UninitializedMemory, 1).memory, Some((Space::Shared, _, 4))));
}

/// Shared memory of the block before is not there any more.
#[test]
fn every_block_begins_with_shared_memory_that_nobody_wrote() {
    let body = "setp.eq.u32 %p1, %cta, 0; @%p1 st.shared.u32 [dynamic], 1;\nld.shared.u32 %r0, [dynamic]; //!";
    let run = kernel(body).threads(1).blocks(3).shared(4).run();
    assert_eq!(who(marked(&run, Kind::UninitializedMemory, 2)), (1, 0, 0));
}

#[test]
fn a_register_that_nobody_wrote_is_found() {
    let run = kernel("setp.lt.u32 %p1, %lane, 5; @%p1 mov.u32 %r0, 1;\nadd.u32 %r1, %r0, 1; //!").run();
    assert_eq!(who(marked(&run, Kind::UninitializedRegister, 1)), (0, 0, 5));
    marked(&kernel("@%p3 mov.u32 %r0, 1; //!").run(), Kind::UninitializedRegister, 1);
    marked(&kernel("st.global.f64 [%out], %d7; //!").run(), Kind::UninitializedRegister, 1);
    kernel("setp.lt.u32 %p1, %lane, 5; @%p1 mov.u32 %r0, 1; @!%p1 mov.u32 %r0, 2; add.u32 %r1, %r0, 1;").clean();
    kernel("setp.lt.u32 %p1, %lane, 5; @%p1 mov.u32 %r0, 1; @%p1 add.u32 %r1, %r0, 1;").clean();
}

#[test]
fn a_copy_that_nobody_waits_for_is_found() {
    let body = "mov.u32 %r0, dynamic; mad.lo.u32 %r0, %lane, 16, %r0;
        cp.async.cg.shared.global [%r0], [%in], 16; //!\ncp.async.commit_group;";
    let run = kernel(body).shared(512).input(&[0; 4]).run();
    assert_eq!(who(marked(&run, Kind::AsyncUnfinished, 1)), (0, 0, 0));
    kernel(&format!("{body} cp.async.wait_group 0;")).shared(512).input(&[0; 4]).clean();
}

#[test]
fn equal_findings_are_one_with_a_count_and_the_worst_come_first() {
    let body =
        "mov.u32 %r1, 0; again: ld.global.u32 %r0, [%in+64]; // far\nadd.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 3;
        @%p1 bra again;\nadd.u32 %r2, %r5, 1; st.global.u32 [%in+64], %r2;";
    let run = kernel(body).threads(64).input(&[0]).run();
    let found: Vec<_> = run.report.findings.iter().map(|finding| (finding.kind, finding.count)).collect();
    assert_eq!(found, [(Kind::OutOfBounds, 192), (Kind::OutOfBounds, 64), (Kind::UninitializedRegister, 2)]);
}

#[test]
fn without_checks_races_go_unseen_and_bounds_do_not() {
    let body = "mov.u32 %r0, dynamic; st.shared.u32 [%r0], %t; ld.global.u32 %r1, [%in+64]; //!";
    let run = kernel(body).threads(64).shared(4).input(&[0]).options(|options| options.checks = false).run();
    marked(&run, Kind::OutOfBounds, 64);
}

/// A kernel in which everything depends on the seed: order of warps, order of lanes, jitter.
#[test]
fn the_same_seed_gives_the_same_report() {
    let body = "st.shared.u32 [dynamic], %t; ld.shared.u32 %r0, [dynamic]; atom.global.add.u32 %r1, [%in], 1;
        bar.sync 0; setp.lt.u32 %p1, %lane, 7; @%p1 bra low; atom.global.add.u32 %r1, [%in], 1; low:
        atom.global.add.u32 %r2, [%in], 1; cvt.rn.f32.u32 %f0, %t; ex2.approx.f32 %f0, %f0; mov.b32 %r3, %f0;
        st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};";
    let with = |seed| {
        let kernel = kernel(body).threads(128).shared(4).input(&[0]);
        kernel.options(|options| {
            (options.seed, options.jitter) = (seed, 3);
            (options.warp_order, options.reconvergence) = (WarpOrder::Random, Reconvergence::Late);
        })
    };
    let (first, again) = (with(5).run(), with(5).run());
    assert_eq!((first.report.clone(), &first.out), (again.report, &again.out));
    assert_eq!(first.report.seed, 5);
    assert!((6..12).any(|seed| with(seed).run().out != first.out));
}

#[test]
fn a_clean_report_counts_what_was_executed() {
    let run = kernel("add.u32 %r0, %t, 1; st.shared.u32 [dynamic], 1; bar.sync 0;").threads(32).shared(40);
    let run = run.options(|options| options.checks = false).run();
    assert!(run.report.is_clean());
    assert_eq!(run.report.executed(Class::Shared), 1);
    assert_eq!(run.report.executed(Class::Barrier), 1);
    assert_eq!(run.report.peak_shared, 20);
    let table = run.report.counters_table().to_string();
    assert!(table.contains("barrier") && table.contains("peak shared bytes"), "{table}");
    assert!(run.report.to_string().starts_with("ptx-sim: no errors in kernel"), "{}", run.report);
}
