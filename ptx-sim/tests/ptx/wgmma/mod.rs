//! Products of a warpgroup, against plain loops over the elements.
//!
//! The layouts in shared memory and in registers are written here once more, element by element, from the figures of the
//! PTX ISA.

mod bulk;
mod numbers;
mod order;

use crate::common::{Kernel, Run, kernel};
use half::{bf16, f16};
use ptx_sim::{Arch, Delivery, Mma};

const FENCE: &str = "wgmma.fence.sync.aligned;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

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
        let field = |bytes: usize, shift: u32| ((bytes as u64 / 16) & 0x3fff) << shift;
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
                left
            )
        };
        (0..self.steps).map(step).collect::<Vec<_>>().join("\n")
    }

    /// The kernel; its pieces stand on lines of their own.
    fn body(&self) -> String {
        let words = 2 * TILE / 4;
        let sums = self.columns / 2;
        let each = |text: fn(usize) -> String| (0..sums).map(text).collect::<String>();
        let (load, store) = (
            each(|i| format!("ld.global.f32 %acc{i}, [%d2+{}]; ", 4 * i)),
            each(|i| format!("st.global.f32 [%d2+{}], %acc{i}; ", 4 * i)),
        );
        format!(
            ".reg .f32 %acc<128>; .reg .b32 %a<4>; .reg .b64 %db; .reg .pred %more;
mov.u32 %r0, dynamic; add.u32 %r0, %r0, 1023; and.b32 %r0, %r0, -1024;
mov.u32 %r1, %t;
fill: mul.wide.u32 %d0, %r1, 16; add.u64 %d0, %d0, %in; ld.global.v4.u32 {{%a0, %a1, %a2, %a3}}, [%d0];
mad.lo.u32 %r3, %r1, 16, %r0; st.shared.v4.u32 [%r3], {{%a0, %a1, %a2, %a3}}; // fill
add.u32 %r1, %r1, %ntid.x; setp.lt.u32 %more, %r1, {lines}; @%more bra fill;
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
            lines = words / 4,
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
