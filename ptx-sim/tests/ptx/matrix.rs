//! Matrix instructions, against plain loops over the elements.

use crate::common::{Kernel, kernel, refused};
use half::{bf16, f16};
use ptx_sim::{Arch, Mma};

/// Four 8x8 matrices of 16-bit elements; every element tells its place.
fn element(matrix: usize, row: usize, column: usize) -> u16 {
    (0x1000 * (matrix + 1) + 0x10 * row + column) as u16
}

/// The matrices in memory, row after row.
fn words() -> Vec<u32> {
    let elements = (0..4).flat_map(|m| (0..8).flat_map(move |r| (0..8).map(move |c| element(m, r, c))));
    let elements: Vec<u16> = elements.collect();
    elements.as_chunks().0.iter().map(|[low, high]| u32::from(*high) << 16 | u32::from(*low)).collect()
}

/// Puts the matrices into shared memory, row r of matrix m at `%r10` of lane 8m + r.
const FILL: &str = "mov.u32 %r0, dynamic; mad.lo.u32 %r10, %lane, 16, %r0; mad.wide.u32 %d0, %lane, 16, %in;
    ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d0]; st.shared.v4.u32 [%r10], {%r1, %r2, %r3, %r4}; bar.warp.sync -1;
    mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u32 %r3, 0; mov.u32 %r4, 0;";

fn matrices(code: &str) -> Kernel {
    kernel(&format!("{FILL}\n{code}\nst.global.v4.u32 [%out], {{%r1, %r2, %r3, %r4}};")).input(&words()).shared(2048)
}

fn pair(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

#[test]
fn ldmatrix_gives_each_lane_two_neighbours_of_a_row() {
    for (count, registers) in [(1, "{%r1}"), (2, "{%r1, %r2}"), (4, "{%r1, %r2, %r3, %r4}")] {
        let run = matrices(&format!("ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {registers}, [%r10];")).clean();
        for lane in 0..32 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            let expected: [u32; 4] = std::array::from_fn(|m| {
                if m < count { pair(element(m, row, column), element(m, row, column + 1)) } else { 0 }
            });
            assert_eq!(run.of(lane), expected, "x{count} lane {lane}");
        }
    }
}

#[test]
fn transposed_it_gives_two_neighbours_of_a_column() {
    for (count, registers) in [(1, "{%r1}"), (2, "{%r1, %r2}"), (4, "{%r1, %r2, %r3, %r4}")] {
        let code = format!("ldmatrix.sync.aligned.m8n8.x{count}.trans.shared::cta.b16 {registers}, [%r10];");
        let run = matrices(&code).clean();
        for lane in 0..32 {
            let (column, row) = (lane / 4, lane % 4 * 2);
            let expected: [u32; 4] = std::array::from_fn(|m| {
                if m < count { pair(element(m, row, column), element(m, row + 1, column)) } else { 0 }
            });
            assert_eq!(run.of(lane), expected, "x{count} lane {lane}");
        }
    }
}

/// Only the lanes that hold the address of a row need a good one.
#[test]
fn ldmatrix_x1_takes_the_addresses_of_the_first_eight_lanes() {
    let code =
        "setp.ge.u32 %p1, %lane, 8; @%p1 mov.u32 %r10, 3; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r10];";
    assert_eq!(matrices(code).clean().of(5)[0], pair(element(0, 1, 2), element(0, 1, 3)));
}

#[test]
fn stmatrix_is_the_opposite_of_ldmatrix() {
    for transposed in ["", ".trans"] {
        let code = format!(
            "ldmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 {{%r1, %r2, %r3, %r4}}, [%r10]; bar.warp.sync -1;
             stmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 [%r10+512], {{%r4, %r3, %r2, %r1}}; bar.warp.sync -1;
             ld.shared.v4.u32 {{%r1, %r2, %r3, %r4}}, [%r10+512];"
        );
        let run = matrices(&code).clean();
        for lane in 0..32 {
            let (matrix, row) = (3 - lane / 8, lane % 8);
            let word = |i: usize| pair(element(matrix, row, 2 * i), element(matrix, row, 2 * i + 1));
            assert_eq!(run.of(lane), std::array::from_fn(word), "lane {lane} {transposed}");
        }
    }
    let few = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r10+512], {%lane}; bar.warp.sync -1;
        setp.lt.u32 %p1, %lane, 8; @%p1 ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r10+512];";
    assert_eq!(matrices(few).clean().of(2), [8, 9, 10, 11]);
}

/// Numbers that are exact in every format, so that sums are exact too.
fn numbers(rows: usize, columns: usize, seed: usize) -> Vec<Vec<f32>> {
    let value = |r: usize, c: usize| ((r * 7 + c * 5 + r * c + seed) % 9) as f32 - 4.0;
    (0..rows).map(|r| (0..columns).map(|c| value(r, c)).collect()).collect()
}

/// `a * b + c` by a plain triple loop.
fn product(a: &[Vec<f32>], b: &[Vec<f32>], c: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let entry = |r: usize, n: usize| c[r][n] + (0..b.len()).map(|k| a[r][k] * b[k][n]).sum::<f32>();
    (0..16).map(|r| (0..8).map(|n| entry(r, n)).collect()).collect()
}

/// Packs elements that lie side by side in a register, the first in the lowest bits.
fn packed(values: &[f32], encode: fn(f32) -> u32) -> u32 {
    let bits = 32 / values.len();
    values.iter().rev().fold(0u32, |word, value| word.checked_shl(bits as u32).unwrap_or(0) | encode(*value))
}

/// Runs `mma` with `per` elements in a register, by the layout of fragments in the PTX ISA.
#[track_caller]
fn multiplies(shape: &str, per: usize, encode: fn(f32) -> u32) {
    let depth = 8 * per;
    let (a, b, c) = (numbers(16, depth, 1), numbers(depth, 8, 2), numbers(16, 8, 3));
    let mut input = Vec::new();
    for lane in 0..32 {
        let (group, member) = (lane / 4, lane % 4);
        for register in 0..4 {
            let (row, column) = (group + 8 * (register % 2), member * per + 4 * per * (register / 2));
            input.push(packed(&a[row][column..column + per], encode));
        }
        for register in 0..2 {
            let row = member * per + 4 * per * register;
            let values: Vec<f32> = (row..row + per).map(|row| b[row][group]).collect();
            input.push(packed(&values, encode));
        }
        for register in 0..4 {
            input.push(c[group + 8 * (register / 2)][2 * member + register % 2].to_bits());
        }
    }
    let body = format!(
        "mad.wide.u32 %in, %lane, 40, %in; ld.global.v2.u32 {{%r0, %r1}}, [%in]; ld.global.v2.u32 {{%r2, %r3}}, [%in+8];
         ld.global.v2.u32 {{%r4, %r5}}, [%in+16]; ld.global.v2.f32 {{%f0, %f1}}, [%in+24]; ld.global.v2.f32 {{%f2, %f3}}, [%in+32];
         mma.sync.aligned.{shape} {{%f4, %f5, %f6, %f7}}, {{%r0, %r1, %r2, %r3}}, {{%r4, %r5}}, {{%f0, %f1, %f2, %f3}};
         st.global.v4.f32 [%out], {{%f4, %f5, %f6, %f7}};"
    );
    let expected = product(&a, &b, &c);
    for mode in [Mma::Fast, Mma::Exact(Arch::Sm80), Mma::Exact(Arch::Sm89), Mma::Exact(Arch::Sm90)] {
        let run = kernel(&body).input(&input).options(|options| options.mma = mode).clean();
        for lane in 0..32 {
            for (register, found) in run.of(lane).into_iter().enumerate() {
                let (row, column) = (lane / 4 + 8 * (register / 2), lane % 4 * 2 + register % 2);
                assert_eq!(f32::from_bits(found), expected[row][column], "{shape} {mode:?} {row} {column}");
            }
        }
    }
}

/// The bits of a small whole number in a format of 8 bits.
fn small(x: f32, mantissa: u32, bias: i32) -> u32 {
    let (sign, magnitude) = (u32::from(x < 0.0) << 7, x.abs() as u32);
    if magnitude == 0 {
        return sign;
    }
    let exponent = magnitude.ilog2();
    assert!(exponent <= mantissa, "{x} is not exact");
    sign | ((exponent as i32 + bias) as u32) << mantissa | (magnitude << (mantissa - exponent)) & ((1 << mantissa) - 1)
}

#[test]
fn mma_multiplies_as_a_triple_loop_does() {
    multiplies("m16n8k16.row.col.f32.f16.f16.f32", 2, |x| f16::from_f32(x).to_bits().into());
    multiplies("m16n8k16.row.col.f32.bf16.bf16.f32", 2, |x| bf16::from_f32(x).to_bits().into());
    multiplies("m16n8k32.row.col.f32.e4m3.e4m3.f32", 4, |x| small(x, 3, 7));
    multiplies("m16n8k32.row.col.f32.e5m2.e5m2.f32", 4, |x| small(x, 2, 15));
}

#[test]
fn accumulators_may_be_the_result() {
    let body = "mov.b32 %r0, 0x3c003c00; mov.f32 %f0, 1.0; mov.f32 %f1, 2.0; mov.f32 %f2, 3.0; mov.f32 %f3, 4.0;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r0, %r0, %r0}, {%r0, %r0}, {%f0, %f1, %f2, %f3};
        st.global.v4.f32 [%out], {%f0, %f1, %f2, %f3};";
    assert_eq!(kernel(body).clean().of(9).map(f32::from_bits), [17.0, 18.0, 19.0, 20.0]);
}

#[test]
fn what_does_not_exist_is_refused() {
    let wrongs = [
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1, %r2, %r3}, [%r0];",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%r0];",
        "ldmatrix.sync.m8n8.x1.shared.b16 {%r1}, [%r0];",
        "ldmatrix.sync.aligned.m8n8.x1.global.b16 {%r1}, [%in];",
        "mma.sync.aligned.m16n8k16.row.row.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r0, %r0, %r0}, {%r0, %r0}, {%f0, %f1, %f2, %f3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r0, %r0, %r0}, {%r0, %r0}, {%f0, %f1, %f2, %f3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r0}, {%r0, %r0}, {%f0, %f1, %f2, %f3};",
    ];
    for wrong in wrongs {
        refused(wrong);
    }
}
