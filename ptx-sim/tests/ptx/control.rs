//! Branches, loops and calls, with lanes that part and meet again.

use crate::common::{HEADER, Kernel, kernel, refused};
use ptx_sim::{Module, Reconvergence};

/// A kernel whose lanes leave `%r0` behind; the same however lanes meet.
#[track_caller]
fn gives(kernel: &Kernel, expected: impl Fn(u32) -> u32) {
    for reconvergence in [Reconvergence::Early, Reconvergence::Late] {
        for seed in 0..4 {
            let run = kernel.clone().options(|options| (options.reconvergence, options.seed) = (reconvergence, seed));
            let results = run.clean().results();
            let expected: Vec<u32> = (0..results.len() as u32).map(&expected).collect();
            assert_eq!(results, expected, "{reconvergence:?} {seed}");
        }
    }
}

fn body(code: &str) -> Kernel {
    kernel(&format!("mov.u32 %r0, 0;\n{code}\nst.global.u32 [%out], %r0;"))
}

#[test]
fn both_sides_of_a_branch_are_taken() {
    let code = "setp.lt.u32 %p1, %lane, 9; @%p1 bra low; add.u32 %r0, %lane, 100; bra done;
        low: add.u32 %r0, %lane, 200; done:";
    gives(&body(code), |lane| lane + if lane < 9 { 200 } else { 100 });
    gives(&body(&code.replace("@%p1", "@!%p1")), |lane| lane + if lane < 9 { 100 } else { 200 });
    gives(&body("bra.uni over; add.u32 %r0, %r0, 1; over:"), |_| 0);
}

#[test]
fn branches_nest() {
    let code = "and.b32 %r1, %lane, 1; setp.eq.u32 %p1, %r1, 0; and.b32 %r2, %lane, 2; setp.eq.u32 %p2, %r2, 0;
        @%p1 bra even;
          @%p2 bra odd_low; add.u32 %r0, %r0, 3; bra odd_done; odd_low: add.u32 %r0, %r0, 1; odd_done:
          add.u32 %r0, %r0, 10; bra done;
        even:
          @%p2 bra even_low; add.u32 %r0, %r0, 2; even_low: add.u32 %r0, %r0, 20;
        done: add.u32 %r0, %r0, 100;";
    gives(&body(code), |lane| [120, 111, 122, 113][lane as usize % 4]);
}

#[test]
fn lanes_loop_as_often_as_they_want() {
    let code = "mov.u32 %r1, 0; again: setp.ge.u32 %p1, %r1, %lane; @%p1 bra done;
        add.u32 %r1, %r1, 1; add.u32 %r0, %r0, %r1; bra again; done:";
    gives(&body(code), |lane| lane * (lane + 1) / 2);
}

#[test]
fn loops_nest_and_are_left_in_the_middle() {
    let code = "mov.u32 %r1, 0;
        outer: mov.u32 %r2, 0;
        inner: add.u32 %r0, %r0, 1; setp.eq.u32 %p2, %r0, 40; @%p2 bra left;
        add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, %lane; @%p1 bra inner;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 3; @%p1 bra outer;
        left:";
    gives(&body(code), |lane| (3 * lane.max(1)).min(40));
}

/// The block that the compiler put behind the end jumps back into the middle.
#[test]
fn blocks_may_stand_in_any_order() {
    let code = "setp.lt.u32 %p1, %lane, 3; @%p1 bra aside; back: add.u32 %r0, %r0, 5; st.global.u32 [%out], %r0; ret;
        aside: add.u32 %r0, %lane, 100; bra back;";
    let run = kernel(&format!("mov.u32 %r0, 0; {code}"));
    gives(&run, |lane| if lane < 3 { lane + 105 } else { 5 });
}

/// After an `if` all lanes are together again: each instruction behind it is executed once.
#[test]
fn lanes_meet_behind_a_branch() {
    let code = "setp.lt.u32 %p1, %lane, 9; @%p1 bra low; add.u32 %r0, %lane, 100; low:
        mul.lo.u32 %r0, %r0, 3; // behind";
    let counters = |reconvergence| {
        let run = body(code).options(|options| options.reconvergence = reconvergence).clean();
        let line = run.line("behind");
        run.report.lines.iter().find(|counters| counters.line == line).expect("executed").counters
    };
    let early = counters(Reconvergence::Early);
    assert_eq!((early.instructions, early.partial), (1, 0));
    let late = counters(Reconvergence::Late);
    assert_eq!(late.instructions, 2);
}

#[test]
fn a_split_is_counted_as_a_divergent_branch() {
    let split = body("setp.lt.u32 %p1, %lane, 9; @%p1 bra low; low:").clean().report.total;
    let whole = body("setp.lt.u32 %p1, %lane, 99; @%p1 bra low; low:").clean().report.total;
    assert_eq!((split.divergent_branches, whole.divergent_branches), (1, 0));
}

#[test]
fn brx_goes_where_the_index_says() {
    let code = "targets: .branchtargets zero, one, two, one;
        and.b32 %r1, %lane, 3; brx.idx %r1, targets;
        zero: mov.u32 %r0, 10; bra done;
        one: mov.u32 %r0, 11; bra done;
        two: mov.u32 %r0, 12; done:";
    gives(&body(code), |lane| [10, 11, 12, 11][lane as usize % 4]);
    gives(&body(&code.replace("and.b32 %r1, %lane, 3;", "mov.u32 %r1, 2;")), |_| 12);
}

#[test]
fn a_guarded_brx_lets_the_others_fall_through() {
    let code = "targets: .branchtargets one, two; setp.lt.u32 %p1, %lane, 8; and.b32 %r1, %lane, 1;
        @%p1 brx.idx %r1, targets;
        mov.u32 %r0, 5; bra done; one: mov.u32 %r0, 6; bra done; two: mov.u32 %r0, 7; done:";
    gives(&body(code), |lane| if lane >= 8 { 5 } else { 6 + lane % 2 });
}

const FUNCTIONS: &str = "
.func (.param .b32 sum) triangle(.param .b32 n)
{
    .reg .b32 %r<3>; .reg .pred %p;
    ld.param.u32 %r0, [n]; mov.u32 %r1, 0;
    again: setp.eq.u32 %p, %r0, 0; @%p bra done; add.u32 %r1, %r1, %r0; sub.u32 %r0, %r0, 1; bra again;
    done: st.param.u32 [sum], %r1; ret;
}
.func (.param .b64 larger) larger(.param .b64 a, .param .b64 b)
{
    .reg .b64 %d<2>; .reg .pred %p;
    ld.param.u64 %d0, [a]; ld.param.u64 %d1, [b]; setp.gt.u64 %p, %d0, %d1;
    st.param.u64 [larger], %d1; @!%p ret; st.param.u64 [larger], %d0; ret;
}
.func (.param .b32 r) twice(.param .b32 n)
{
    .reg .b32 %r0; .param .b32 p0; .param .b32 p1;
    ld.param.u32 %r0, [n]; st.param.b32 [p0], %r0;
    call (p1), triangle, (p0);
    ld.param.u32 %r0, [p1]; add.u32 %r0, %r0, %r0; st.param.u32 [r], %r0;
}
.func nothing() { ret; }
.func core_panicking_panic(.param .b32 p0) .noreturn;
";

#[test]
fn functions_take_and_return_values() {
    let call = |name: &str| {
        format!(
            "{{ .param .b32 p0; .param .b32 p1; st.param.b32 [p0], %lane; call.uni (p1), {name}, (p0); ld.param.b32 %r0, [p1]; }}"
        )
    };
    let triangle = |lane: u32| lane * (lane + 1) / 2;
    gives(&body(&call("triangle")).module(FUNCTIONS), triangle);
    gives(&body(&call("twice")).module(FUNCTIONS), |lane| 2 * triangle(lane));
    let wide = "{ .param .b64 p0; .param .b64 p1; .param .b64 p2; mov.u64 %d0, 10; cvt.u64.u32 %d1, %lane;
        st.param.b64 [p0], %d0; st.param.b64 [p1], %d1; call.uni (p2), larger, (p0, p1); ld.param.b64 %d2, [p2];
        cvt.u32.u64 %r0, %d2; call.uni nothing, (); call nothing; }";
    gives(&body(wide).module(FUNCTIONS), |lane| lane.max(10));
}

#[test]
fn functions_can_be_called_by_some_lanes() {
    let code = "setp.lt.u32 %p1, %lane, 20; @%p1 bra over;
        { .param .b32 p0; .param .b32 p1; st.param.b32 [p0], %lane; call (p1), triangle, (p0); ld.param.b32 %r0, [p1]; }
        over:";
    gives(&body(code).module(FUNCTIONS), |lane| if lane < 20 { 0 } else { lane * (lane + 1) / 2 });
}

#[test]
fn lanes_end_one_by_one() {
    let code = "st.global.u32 [%out], %lane; setp.lt.u32 %p1, %lane, 5; @%p1 exit;
        mov.u32 %r1, 1000; st.global.u32 [%out], %r1; setp.lt.u32 %p1, %lane, 10; @!%p1 bra on; ret;
        on: mov.u32 %r1, 2000; st.global.u32 [%out], %r1; exit;";
    gives(&kernel(code), |lane| {
        if lane < 5 {
            lane
        } else if lane < 10 {
            1000
        } else {
            2000
        }
    });
}

#[test]
fn names_end_with_their_block() {
    let code = "{ .reg .b32 %x; mov.u32 %x, 1; bra again; again: add.u32 %r0, %r0, %x; }
        { .reg .b32 %x; mov.u32 %x, 2; bra again; again: add.u32 %r0, %r0, %x; }";
    gives(&body(code), |_| 3);
}

#[test]
fn every_block_of_the_grid_runs() {
    let run = kernel("add.u32 %r0, %thread, 1; st.global.u32 [%out], %r0;").threads(48).blocks(7).clean();
    assert_eq!(run.results(), (1..=48 * 7).collect::<Vec<_>>());
}

#[test]
fn what_leads_nowhere_is_refused() {
    refused("bra nowhere;");
    refused("brx.idx %r0, nowhere;");
    refused("call nobody, ();");
    refused("@%nothing bra nowhere;");
    let recursive = format!(
        "{HEADER}.func f();\n.func f() {{\n    call f, ();\n    ret;\n}}\n.entry kernel() {{ call f, (); ret; }}"
    );
    let error = Module::parse(&recursive).expect_err("no stack");
    assert_eq!(error.line, 6, "{error}");
}

/// Launches run one after the other, so that there is nothing to wait for.
#[test]
fn control_of_dependent_launches_changes_no_answer() {
    let code = "griddepcontrol.launch_dependents; griddepcontrol.wait; add.u32 %r0, %lane, 7;";
    gives(&body(code), |lane| lane + 7);
    for wrong in ["griddepcontrol.launch;", "griddepcontrol.wait %r0;", "griddepcontrol.wait.sync;"] {
        assert!(refused(wrong).contains("griddepcontrol"), "{wrong}");
    }
}
