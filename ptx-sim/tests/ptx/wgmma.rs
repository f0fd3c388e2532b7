//! Products of a warpgroup, against plain loops over the elements.
//!
//! The layouts in shared memory and in registers are written here once more, element by element, from the figures of the
//! PTX ISA.

use crate::common::{Kernel, Run, kernel, refused};
use half::{bf16, f16};
use ptx_sim::{Arch, Class, Delivery, Kind, Mma, WarpOrder};

/// Bytes of shared memory for each of A and B, from a multiple of as many on.
const TILE: usize = 32 << 10;

/// Where the elements of a matrix are.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// In the registers of the warpgroup; A only.
    Registers,
    Shared {
        /// Whether rows of A or columns of B lie side by side, and not k.
        transposed: bool,
        /// Bytes of the swizzle; 16 for none.
        span: usize,
        leading: usize,
        stride: usize,
    },
}

/// K side by side, in lines of this many bytes.
fn by_k(span: usize) -> Layout {
    Layout::Shared { transposed: false, span, leading: 512, stride: 1024 }
}

/// Rows side by side, room for four times eight k.
fn by_rows(span: usize) -> Layout {
    Layout::Shared { transposed: true, span, leading: if span == 16 { 4096 } else { 32 * span }, stride: 8 * span }
}

impl Layout {
    /// The place of element (row, k) of `bytes` bytes in a tile that begins at a multiple of 1024.
    fn place(self, row: usize, k: usize, bytes: usize) -> usize {
        let Self::Shared { transposed, span, leading, stride } = self else { panic!("in registers") };
        // What is added to the number of a line in its span, for the line of this number in eight.
        let twist = |line: usize| line * span / 128;
        if transposed {
            let (row, in_line) = (row / 8, row % 8 * bytes);
            let lines = span / 16;
            let at = (k % 8) * span + ((row % lines) ^ if span > 16 { twist(k % 8) } else { 0 }) * 16 + in_line;
            if span == 16 { row * stride + k / 8 * leading + at } else { row / lines * leading + k / 8 * stride + at }
        } else {
            let (line, in_line) = (k * bytes / 16, k * bytes % 16);
            let first = row / 8 * stride + row % 8 * span + in_line;
            if span == 16 { first + line * leading } else { first + (line ^ twist(row % 8)) * 16 }
        }
    }

    /// The descriptor of the tile at `start`, at a step of 32 bytes of k.
    fn descriptor(self, start: u32, step: usize) -> u64 {
        let Self::Shared { transposed, span, leading, stride } = self else { panic!("in registers") };
        let on = match (transposed, span) {
            (true, 16) => 2 * leading,
            (true, _) => 2 * stride,
            (false, 16) => 2 * leading,
            (false, _) => 32,
        };
        let field = |bytes: usize, shift: u32| (bytes as u64 / 16 & 0x3fff) << shift;
        let mode = [0, 3, 2, 1][span.ilog2() as usize - 4];
        field(start as usize + step * on, 0) | field(leading, 16) | field(stride, 32) | mode << 62
    }

    fn flag(self) -> u32 {
        matches!(self, Self::Shared { transposed: true, .. }).into()
    }
}

/// A format of the elements.
#[derive(Clone, Copy)]
struct Format {
    name: &'static str,
    bytes: usize,
    encode: fn(f32) -> u32,
}

const F16: Format = Format { name: "f16", bytes: 2, encode: |x| f16::from_f32(x).to_bits().into() };
const BF16: Format = Format { name: "bf16", bytes: 2, encode: |x| bf16::from_f32(x).to_bits().into() };
const E4M3: Format = Format { name: "e4m3", bytes: 1, encode: |x| small(x, 3, 7) };
const E5M2: Format = Format { name: "e5m2", bytes: 1, encode: |x| small(x, 2, 15) };

/// The bits of a small whole number in a format of 8 bits.
fn small(x: f32, mantissa: u32, bias: i32) -> u32 {
    let (sign, magnitude) = (u32::from(x < 0.0) << 7, x.abs() as u32);
    if magnitude == 0 {
        return sign;
    }
    let exponent = magnitude.ilog2();
    sign | ((exponent as i32 + bias) as u32) << mantissa | (magnitude << (mantissa - exponent)) & ((1 << mantissa) - 1)
}

/// One product of the warpgroup in `steps` instructions: `d = ±a b + d`, or `d = ±a b`.
#[derive(Clone)]
struct Case {
    formats: [Format; 2],
    columns: usize,
    steps: usize,
    a: Layout,
    b: Layout,
    adds: &'static str,
    factors: [i32; 2],
}

/// An m64n16k16 of bf16, both operands with k side by side and a swizzle of 128 bytes.
fn plain() -> Case {
    Case { formats: [BF16; 2], columns: 16, steps: 1, a: by_k(128), b: by_k(128), adds: "%p2", factors: [1, 1] }
}

/// Numbers that every format holds, so that sums are exact too.
fn number(i: usize, j: usize, seed: usize) -> f32 {
    ((i * 7 + j * 5 + i * j + seed) % 9) as f32 - 4.0
}

/// Row and column of accumulator `i` of a thread (PTX ISA, "WGMMA .m64nNk16 register fragment layout for matrix D").
fn cell(thread: usize, i: usize) -> (usize, usize) {
    let (warp, lane) = (thread / 32, thread % 32);
    (16 * warp + lane / 4 + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * (lane % 4) + i % 2)
}

impl Case {
    fn depth(&self) -> usize {
        self.steps * 32 / self.formats[0].bytes
    }

    /// Address of the first tile: dynamic shared memory begins before it.
    fn start() -> u32 {
        let run = kernel("mov.u32 %r0, dynamic; st.global.u32 [%out], %r0;").shared(16).clean();
        run.results()[0].next_multiple_of(1024)
    }

    /// What the kernel reads: the tiles, A by registers, the accumulators.
    fn input(&self) -> Vec<u32> {
        let mut bytes = vec![0u8; 2 * TILE];
        let mut put = |at: usize, format: Format, x: f32| {
            bytes[at..at + format.bytes].copy_from_slice(&(format.encode)(x).to_le_bytes()[..format.bytes]);
        };
        for k in 0..self.depth() {
            for row in (0..64).filter(|_| !matches!(self.a, Layout::Registers)) {
                put(self.a.place(row, k, self.formats[0].bytes), self.formats[0], number(row, k, 1));
            }
            for column in 0..self.columns {
                put(TILE + self.b.place(column, k, self.formats[1].bytes), self.formats[1], number(k, column, 2));
            }
        }
        let mut words: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let Format { bytes, encode, .. } = self.formats[0];
        for thread in 0..128 {
            for i in 0..4 {
                let (row, k) =
                    (thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8, 16 / bytes * (i / 2) + thread % 4 * 4 / bytes);
                let element = |j: usize| encode(number(row, k + j, 1)) << (8 * bytes * j);
                words.push((0..4 / bytes).fold(0, |word, j| word | element(j)));
            }
        }
        for thread in 0..128 {
            words.extend((0..self.columns / 2).map(|i| {
                let (row, column) = cell(thread, i);
                number(row, column, 3).to_bits()
            }));
        }
        words
    }

    fn products(&self) -> String {
        let Self { formats: [a, b], columns, a: at, b: bt, adds, factors: [x, y], .. } = *self;
        let d: Vec<String> = (0..columns / 2).map(|i| format!("%acc{i}")).collect();
        let flags = match (a.bytes, at) {
            (1, _) => String::new(),
            (_, Layout::Registers) => format!(", {}", bt.flag()),
            _ => format!(", {}, {}", at.flag(), bt.flag()),
        };
        let start = Self::start();
        let shape = format!("m64n{columns}k{}", 32 / a.bytes);
        let step = |step| {
            let left = match at {
                Layout::Registers => "{%a0, %a1, %a2, %a3}".into(),
                at => format!("{}", at.descriptor(start, step) as i64),
            };
            let right = bt.descriptor(start + TILE as u32, step) as i64;
            let (d, a, b) = (d.join(", "), a.name, b.name);
            format!(
                "mov.b64 %db, {right}; wgmma.mma_async.sync.aligned.{shape}.f32.{a}.{b} {{{d}}}, {}, %db, {adds}, {x}, {y}{flags};",
                if left.starts_with('{') { left } else { format!("{left}") }
            )
        };
        (0..self.steps).map(step).collect::<Vec<_>>().join("\n")
    }

    /// The kernel; its pieces stand on lines of their own.
    fn body(&self) -> String {
        let (words, shift) = (2 * TILE / 4, "and.b32 %r0, %r0, -1024;");
        let sums = self.columns / 2;
        let each = |text: fn(usize) -> String| (0..sums).map(text).collect::<String>();
        let (load, store) = (
            each(|i| format!("ld.global.f32 %acc{i}, [%d2+{}]; ", 4 * i)),
            each(|i| format!("st.global.f32 [%d2+{}], %acc{i}; ", 4 * i)),
        );
        format!(
            ".reg .f32 %acc<128>; .reg .b32 %a<4>; .reg .b64 %db; .reg .pred %more;
mov.u32 %r0, dynamic; add.u32 %r0, %r0, 1023; {shift}
mov.u32 %r1, %t;
fill: mul.wide.u32 %d0, %r1, 4; add.u64 %d0, %d0, %in; ld.global.u32 %r2, [%d0]; mad.lo.u32 %r3, %r1, 4, %r0;
st.shared.u32 [%r3], %r2; // fill
add.u32 %r1, %r1, %ntid.x; setp.lt.u32 %more, %r1, {words}; @%more bra fill;
fence.proxy.async;
bar.sync 0;
mad.wide.u32 %d1, %t, 16, %in; ld.global.v4.u32 {{%a0, %a1, %a2, %a3}}, [%d1+{registers}];
mad.wide.u32 %d2, %t, {row}, %in; add.u64 %d2, %d2, {behind};
{load}
setp.eq.u32 %p2, 0, 0; setp.ne.u32 %p3, 0, 0;
wgmma.fence.sync.aligned;
{products}
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
{store}",
            registers = 4 * words,
            row = 4 * sums,
            behind = 4 * words + 16 * 128,
            products = self.products(),
        )
    }

    fn kernel(&self, change: impl FnOnce(String) -> String) -> Kernel {
        kernel(&change(self.body())).threads(128).shared(2 * TILE as u32 + 1024).input(&self.input())
    }

    /// The accumulators afterwards.
    fn found(&self, run: &Run) -> Vec<Vec<f32>> {
        let mut rows = vec![vec![f32::NAN; self.columns]; 64];
        let sums = &run.input[2 * TILE / 4 + 4 * 128..];
        for (index, bits) in sums.iter().enumerate().take(64 * self.columns) {
            let (row, column) = cell(index / (self.columns / 2), index % (self.columns / 2));
            rows[row][column] = f32::from_bits(*bits);
        }
        rows
    }

    fn expected(&self) -> Vec<Vec<f32>> {
        let sign = (self.factors[0] * self.factors[1]) as f32;
        let start = |row, column| if matches!(self.adds, "%p2" | "1") { number(row, column, 3) } else { 0.0 };
        let product = |row, column| (0..self.depth()).map(|k| number(row, k, 1) * number(k, column, 2)).sum::<f32>();
        let sum = |row, column| start(row, column) + sign * product(row, column);
        (0..64).map(|row| (0..self.columns).map(|column| sum(row, column)).collect()).collect()
    }

    /// Runs it in every mode, where nothing may be found.
    #[track_caller]
    fn multiplies(self) {
        let expected = self.expected();
        for (mma, delivery) in
            [(Mma::Fast, Delivery::Late), (Mma::Fast, Delivery::Immediate), (Mma::Exact(Arch::Sm90), Delivery::Late)]
        {
            let kernel = self.kernel(|body| body);
            let run = kernel.options(|options| (options.mma, options.delivery) = (mma, delivery)).clean();
            let (format, n) = (self.formats[0].name, self.columns);
            assert!(self.found(&run) == expected, "{format} n{n} {:?} {:?} {mma:?} {delivery:?}", self.a, self.b);
        }
    }

    /// Runs it with a change to its text.
    fn mutant(&self, change: impl FnOnce(String) -> String) -> Run {
        self.kernel(change).run()
    }
}

#[test]
fn columns_may_be_8_to_256() {
    for columns in [8, 16, 24, 64, 104, 128, 256] {
        Case { columns, ..plain() }.multiplies();
    }
}

#[test]
fn every_layout_of_b_with_k_side_by_side() {
    for span in [16, 32, 64, 128] {
        for format in [F16, BF16, E4M3, E5M2] {
            Case { formats: [format; 2], columns: 24, b: by_k(span), ..plain() }.multiplies();
        }
    }
}

#[test]
fn every_layout_of_b_with_columns_side_by_side() {
    for span in [16, 32, 64, 128] {
        for format in [F16, BF16] {
            Case { formats: [format; 2], columns: 136, b: by_rows(span), ..plain() }.multiplies();
        }
    }
}

#[test]
fn every_layout_of_a() {
    for span in [16, 32, 64, 128] {
        Case { formats: [F16; 2], a: by_k(span), ..plain() }.multiplies();
        Case { a: by_rows(span), ..plain() }.multiplies();
        Case { formats: [E4M3; 2], a: by_k(span), ..plain() }.multiplies();
    }
    for format in [F16, BF16, E4M3, E5M2] {
        Case { formats: [format; 2], columns: 32, a: Layout::Registers, ..plain() }.multiplies();
    }
    Case { formats: [E4M3, E5M2], a: Layout::Registers, ..plain() }.multiplies();
    Case { formats: [E5M2, E4M3], ..plain() }.multiplies();
}

/// As attention uses them: keys by 32 bytes inside of the swizzled span, values by 16 rows.
#[test]
fn steps_of_k_move_the_start_of_the_descriptors() {
    Case { columns: 128, steps: 4, ..plain() }.multiplies();
    Case { columns: 128, steps: 2, a: by_rows(128), b: by_rows(128), ..plain() }.multiplies();
    Case { columns: 64, steps: 2, a: by_k(64), b: by_rows(32), ..plain() }.multiplies();
    Case { formats: [E4M3; 2], columns: 64, steps: 4, ..plain() }.multiplies();
}

#[test]
fn accumulators_may_be_left_out_and_products_taken_off() {
    for adds in ["%p3", "!%p2", "0"] {
        Case { adds, ..plain() }.multiplies();
    }
    Case { adds: "1", ..plain() }.multiplies();
    for factors in [[-1, 1], [1, -1], [-1, -1]] {
        Case { factors, ..plain() }.multiplies();
        Case { factors, formats: [E4M3; 2], adds: "%p3", ..plain() }.multiplies();
    }
}

#[test]
fn what_the_accumulators_held_need_not_be_written_where_it_is_left_out() {
    let case = Case { adds: "%p3", ..plain() };
    let run = case.kernel(|body| body.replace("ld.global.f32 %acc3, [%d2+12];", "")).clean();
    assert!(case.found(&run) == case.expected());
    let run = plain().mutant(|body| body.replace("ld.global.f32 %acc3, [%d2+12];", ""));
    assert_eq!(run.finding(Kind::UninitializedRegister).count, 4);
}

#[test]
fn a_product_is_counted_once_a_warp() {
    let run = Case { steps: 3, ..plain() }.kernel(|body| body).clean();
    assert_eq!((run.report.executed(Class::WarpgroupMatrix), run.report.executed(Class::Matrix)), (12, 0));
}

/// The whole text is one kernel for two warpgroups that do not wait for each other.
#[test]
fn warpgroups_are_four_neighbouring_warps() {
    let case = plain();
    for warp_order in [WarpOrder::RoundRobin, WarpOrder::Reverse, WarpOrder::Random] {
        let second = |body: String| body.replace("mad.wide.u32 %d1, %t,", "and.b32 %t, %t, 127; mad.wide.u32 %d1, %t,");
        let only = |body: String| body.replace("st.global.f32 [", "@%p4 st.global.f32 [");
        let first = |body: String| body.replace("mov.u32 %r1, %t;", "mov.u32 %r1, %t; setp.ge.u32 %p4, %t, 128;");
        let kernel = case.kernel(|body| only(second(first(body)))).threads(256);
        let run = kernel.options(|options| options.warp_order = warp_order).clean();
        assert!(case.found(&run) == case.expected(), "{warp_order:?}");
    }
    let few = case.kernel(|body| body).threads(96).run();
    assert!(few.report.findings.iter().all(|finding| finding.message == "the warpgroup has 3 of 4 warps"));
}

const FENCE: &str = "wgmma.fence.sync.aligned;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

#[test]
fn a_product_without_a_fence_is_found() {
    let run = plain().mutant(|body| body.replace(FENCE, ""));
    assert!(run.report.findings.iter().any(|finding| finding.message.contains("before the first product")));
    let late = format!("{FENCE} add.f32 %acc5, %acc5, %acc6;");
    let run = plain().mutant(|body| body.replace(FENCE, &late));
    assert_eq!(run.finding(Kind::UnfencedRegister).count, 4);
    let case = Case { a: Layout::Registers, ..plain() };
    let run = case.mutant(|body| body.replace(FENCE, &format!("{FENCE} add.u32 %a2, %a2, 0;")));
    run.finding(Kind::UnfencedRegister);
    let run = case.mutant(|body| body.replace(FENCE, &format!("{FENCE} add.u32 %r9, %a2, 0;")));
    assert!(run.report.is_clean(), "a register of A that is only read: {}", run.report);
}

#[test]
fn a_fence_must_stand_between_products_of_different_shapes() {
    let other =
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%acc0, %acc1, %acc2, %acc3}, %db, %db, 1, 1, 1, 0, 0;";
    let run = plain().mutant(|body| body.replace(COMMIT, &format!("{other} // narrow\n{COMMIT}")));
    let finding = run.finding(Kind::UnfencedRegister);
    assert_eq!(finding.at.line, run.line("// narrow"));
    plain().kernel(|body| body.replace(COMMIT, &format!("{FENCE} {other} {COMMIT}"))).clean();
}

#[test]
fn accumulators_that_are_read_before_the_wait_are_found_and_not_there_yet() {
    let case = plain();
    for delivery in [Delivery::Late, Delivery::Immediate] {
        let early = case
            .kernel(|body| body.replace(WAIT, &format!("mov.f32 %f0, %acc2; // early\n{WAIT} mov.f32 %acc2, %f0;")));
        let run = early.options(|options| options.delivery = delivery).run();
        let finding = run.finding(Kind::RegisterInFlight);
        assert_eq!((finding.at.line, finding.count), (run.line("// early"), 4));
        assert_eq!(finding.with.as_ref().map(|with| with.line), Some(run.line("wgmma.mma_async")));
        let (row, column) = cell(0, 2);
        let wrong = if delivery == Delivery::Late { number(row, column, 3) } else { case.expected()[row][column] };
        assert_eq!(case.found(&run)[row][column], wrong);
    }
}

#[test]
fn registers_of_a_must_stay_as_they_are_until_the_wait() {
    let case = Case { a: Layout::Registers, ..plain() };
    let run = case.mutant(|body| body.replace(COMMIT, &format!("{COMMIT} mov.b32 %a1, 0;")));
    run.finding(Kind::RegisterInFlight);
    assert!(case.found(&run) != case.expected());
}

#[test]
fn an_accumulator_in_flight_is_no_part_of_a() {
    let more = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%acc40, %acc41, %acc42, %acc43}, {%acc0, %acc1, %acc2, %acc3}, %db, 0, 1, 1, 0;";
    let run = plain().mutant(|body| body.replace(COMMIT, &format!("{more} {COMMIT}")));
    run.finding(Kind::RegisterInFlight);
}

#[test]
fn a_wait_leaves_the_newest_groups_open() {
    let case = Case { steps: 2, ..plain() };
    let split = |body: String| body.replacen("\nmov.b64 %db", &format!("\n{COMMIT}\nmov.b64 %db"), 2);
    case.kernel(split).clean();
    let run = case.mutant(|body| split(body).replace(WAIT, "wgmma.wait_group.sync.aligned 1; // wait"));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::RegisterInFlight));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::AsyncUnfinished));
    assert!(case.found(&run) != case.expected());
}

#[test]
fn a_product_that_is_never_waited_for_is_found() {
    let run =
        plain().mutant(|body| body.replace(WAIT, "").split("st.global.f32").next().unwrap_or_default().to_owned());
    let finding = run.finding(Kind::AsyncUnfinished);
    assert_eq!(finding.at.line, run.line("wgmma.mma_async"));
    let run = plain().mutant(|body| body.replace(COMMIT, ""));
    assert!(run.report.findings.iter().any(|finding| finding.message.contains("commit_group is missing")));
}

#[test]
fn operands_need_a_fence_between_the_proxies_and_a_barrier() {
    let case = plain();
    let run = case.mutant(|body| body.replace("fence.proxy.async;", ""));
    let finding = run.finding(Kind::ProxyFence);
    assert_eq!((finding.at.line, finding.with.as_ref().map(|with| with.line)), {
        (run.line("wgmma.mma_async"), Some(run.line("// fill")))
    });
    let run = case.mutant(|body| body.replace("bar.sync 0;", ""));
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::SharedRace), "{}", run.report);
}

/// A write that comes before the wait is found however it is ordered, and spoils the numbers where they are made late.
#[test]
fn operands_must_stay_as_they_are_until_the_wait() {
    let case = plain();
    for barrier in ["", "bar.sync 0;"] {
        let over = format!("{COMMIT} {barrier} mad.lo.u32 %r4, %t, 4, %r0; st.shared.u32 [%r4], 0x40004000; // over\n");
        let run = case.mutant(|body| body.replace(COMMIT, &over));
        let line = run.line("// over");
        let found =
            |kind: Kind| run.report.findings.iter().any(|finding| finding.kind == kind && finding.at.line == line);
        assert!(found(Kind::AsyncInFlight) && case.found(&run) != case.expected(), "{}", run.report);
        let run = case.kernel(|body| body.replace(COMMIT, &over)).options(|o| o.delivery = Delivery::Immediate).run();
        assert!(!run.report.is_clean() && case.found(&run) == case.expected());
    }
}

/// Warp 4 writes when warp 2 alone has told it to.
#[test]
fn behind_the_wait_of_any_of_its_warps_the_operands_are_free() {
    let case = plain();
    let told = |signal: &str| {
        let start = format!("setp.ge.u32 %p5, %t, 128; setp.eq.u32 %p6, %warp, 2; @%p5 bra writer; {FENCE}");
        let signal = signal.replace("tell", "@!%p6 bra told; bar.arrive 1, 64; told:");
        let body = case.body().replace(FENCE, &start).replace(WAIT, &signal);
        let body = format!("{body} bra done; writer: bar.sync 1, 64;\nst.shared.u32 [%r0], 5; // over\ndone:");
        kernel(&body).threads(160).shared(2 * TILE as u32 + 1024).input(&[case.input(), vec![0; 32 * 8]].concat())
    };
    let over = |run: &Run| {
        let line = run.line("// over");
        run.report
            .findings
            .iter()
            .filter(|finding| finding.at.line == line)
            .map(|finding| finding.kind)
            .collect::<Vec<_>>()
    };
    let run = told(&format!("{WAIT} tell")).run();
    assert_eq!((over(&run), case.found(&run)), (vec![Kind::IntraWarpRace], case.expected()), "only its lanes collide");
    let run = told(&format!("tell {WAIT}")).run();
    assert!(over(&run).contains(&Kind::SharedRace), "{}", run.report);
}

#[test]
fn a_wrong_stride_gives_wrong_numbers_or_leaves_the_memory() {
    let case = plain();
    let shift =
        |stride: usize| Case { b: Layout::Shared { transposed: false, span: 128, leading: 16, stride }, ..plain() };
    let right = case.body();
    let wrong = |stride| {
        let products = shift(stride).products();
        case.mutant(|_| right.replace(&case.products(), &products))
    };
    let near = wrong(512);
    assert!(near.report.is_clean() && case.found(&near) != case.expected());
    let far = wrong(TILE + 1024);
    let finding = far.finding(Kind::OutOfBounds);
    assert!(finding.message.starts_with("B, descriptor"), "{finding:?}");
    assert!(case.found(&far).iter().any(|row| row[15].is_nan()));
}

/// In a cluster the address of shared memory has the rank of the block above its 18 bits.
#[test]
fn bits_that_do_not_belong_to_a_field_are_found() {
    let (case, more) = (plain(), |bit: u32| format!("xor.b64 %db, %db, {}; wgmma.mma_async", 1u64 << bit));
    for bit in [14, 15, 31, 47, 48, 52, 61] {
        let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(bit)));
        assert!(run.finding(Kind::InvalidOperand).message.starts_with("B: descriptor"), "bit {bit}");
    }
    let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(50)));
    assert!(run.finding(Kind::InvalidOperand).message.contains("a base offset of 2"));
    // A bit of the rank, shifted into the leading offset: with columns side by side that is a wrong place.
    let case = Case { columns: 128, b: by_rows(128), ..plain() };
    let run = case.mutant(|body| body.replace("wgmma.mma_async", &more(20)));
    assert!(case.found(&run) != case.expected());
}

#[test]
fn all_warps_of_the_warpgroup_must_come() {
    let body = plain().body();
    let run = plain().mutant(|_| body.replace(FENCE, &format!("setp.eq.u32 %p4, %warp, 3; @%p4 ret; {FENCE}")));
    assert!(run.finding(Kind::Deadlock).message.contains("warp 0 for warp 3 of its warpgroup"), "{}", run.report);
    let around = format!("setp.eq.u32 %p4, %warp, 1; @%p4 bra around; {FENCE}");
    let behind = format!("{WAIT} around:");
    let run = plain().mutant(|_| body.replace(FENCE, &around).replace(WAIT, &behind));
    let waits = run.finding(Kind::Deadlock);
    assert!(waits.message.contains("warp 3 for warp 1 of its warpgroup"), "{}", waits.message);
}

#[test]
fn all_warps_must_issue_the_same() {
    let own = "setp.eq.u32 %p4, %warp, 2; @%p4 add.u64 %db, %db, 2; wgmma.mma_async";
    let run = plain().mutant(|body| body.replace("wgmma.mma_async", own));
    let finding = run.finding(Kind::InvalidOperand);
    assert!(finding.at.warp == 2 && finding.message.contains("warp 0 has A"), "{finding:?}");
    let run = plain().mutant(|body| body.replace("setp.ne.u32", "setp.ne.u32 %p2, %warp, 1; setp.ne.u32"));
    assert!(run.finding(Kind::InvalidOperand).message.contains("scale-d false"));
}

#[test]
fn all_lanes_must_agree() {
    let run = plain().mutant(|body| {
        body.replace("wgmma.mma_async", "cvt.u64.u32 %d5, %lane; add.u64 %db, %db, %d5; wgmma.mma_async")
    });
    assert!(run.finding(Kind::InvalidOperand).message.starts_with("descriptors differ"));
    let run = plain().mutant(|body| body.replace("setp.ne.u32", "setp.lt.u32 %p2, %lane, 7; setp.ne.u32"));
    assert_eq!(run.finding(Kind::InvalidOperand).message, "scale-d holds in lanes 0x0000007f only");
    let run = plain()
        .mutant(|body| body.replace(FENCE, &format!("setp.eq.u32 %p4, %lane, 9; @%p4 bra past; {FENCE}")) + "past:");
    assert!(run.report.findings.iter().any(|finding| finding.kind == Kind::Diverged));
}

#[test]
fn what_does_not_exist_is_refused() {
    let d = "{%f0, %f1, %f2, %f3}";
    for wrong in [
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.f16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 2, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 2;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, {{%r0, %r1, %r2, %r3}}, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d}, {{%r0, %r1}}, %d1, 1, 1, 1, 0;"),
        format!("wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        format!("wgmma.mma_async.aligned.m64n8k16.f32.bf16.bf16 {d}, %d0, %d1, 1, 1, 1, 0, 0;"),
        "wgmma.fence.sync.aligned 0;".into(),
        "wgmma.wait_group.sync.aligned %r0;".into(),
        "wgmma.wait_group.sync.aligned -1;".into(),
        "wgmma.commit_group;".into(),
    ] {
        refused(&wrong);
    }
}
