//! Operands and literals.

use super::super::ast::{Base, Operand};
use super::{instruction, operand};

#[test]
fn a_name_is_a_register_a_variable_or_a_label() {
    for name in ["%r1", "%tid.x", "$L__BB0_1", "dyn_smem", "x", "_1", "%", "WARP_SZ", "%v.x"] {
        operand(name, Operand::Name(name));
    }
}

#[test]
fn a_lone_underscore_is_a_sink() {
    operand("_", Operand::Sink);
    operand("{_, %r2}", Operand::Vector(vec![Operand::Sink, Operand::Name("%r2")]));
}

#[test]
fn a_predicate_may_be_negated() {
    operand("!%p1", Operand::Not("%p1"));
    operand("! p", Operand::Not("p"));
}

#[test]
fn two_destinations_make_a_pair() {
    operand("%p1|%p2", Operand::Pair("%p1", "%p2"));
    operand("%r1 | p", Operand::Pair("%r1", "p"));
    operand("_|p", Operand::Pair("_", "p"));
    operand("p|_", Operand::Pair("p", "_"));
}

#[test]
fn an_offset_may_follow_a_variable() {
    operand("x+4", Operand::Offset("x", 4));
    operand("x - 4", Operand::Offset("x", -4));
}

#[test]
fn an_address_has_a_base_an_offset_or_both() {
    operand("[%rd1]", Operand::Address(Base::Name("%rd1"), 0));
    operand("[ x ]", Operand::Address(Base::Name("x"), 0));
    operand("[%rd1+16]", Operand::Address(Base::Name("%rd1"), 16));
    operand("[%rd1+-16]", Operand::Address(Base::Name("%rd1"), -16));
    operand("[%rd1-16]", Operand::Address(Base::Name("%rd1"), -16));
    operand("[%rd1--16]", Operand::Address(Base::Name("%rd1"), 16));
    operand("[name + 0x10 + 4]", Operand::Address(Base::Name("name"), 20));
    operand("[16]", Operand::Address(Base::Zero, 16));
    operand("[-8]", Operand::Address(Base::Zero, -8));
    operand("[%rd1+0xFFFFFFFFFFFFFFF0]", Operand::Address(Base::Name("%rd1"), -16));
}

#[test]
fn an_address_may_be_a_place_in_a_tensor() {
    let place = vec![Operand::Name("%r2"), Operand::Integer(0)];
    operand("[%rd1, {%r2, 0}]", Operand::Tensor(Base::Name("%rd1"), place));
}

#[test]
fn whole_numbers_come_in_four_bases() {
    for (text, value) in
        [("0", 0), ("42", 42), ("0x2a", 42), ("0X2AU", 42), ("052", 42), ("0b101010U", 42), ("42U", 42)]
    {
        operand(text, Operand::Integer(value));
    }
}

#[test]
fn whole_numbers_keep_64_bits() {
    operand("18446744073709551615", Operand::Integer(-1));
    operand("0xFFFFFFFFFFFFFFFF", Operand::Integer(-1));
    operand("9223372036854775807", Operand::Integer(i64::MAX));
    operand("-9223372036854775808", Operand::Integer(i64::MIN));
    operand("- 1", Operand::Integer(-1));
}

#[test]
fn floats_come_as_bits_or_decimal_fractions() {
    operand("0f3F800000", Operand::F32(1_f32.to_bits()));
    operand("0F3f800000", Operand::F32(1_f32.to_bits()));
    operand("-0f3F800000", Operand::F32((-1_f32).to_bits()));
    operand("0d3FF0000000000000", Operand::F64(1_f64.to_bits()));
    operand("0D7FF0000000000000", Operand::F64(f64::INFINITY.to_bits()));
    for (text, value) in [("1.5", 1.5), ("-1.5", -1.5), ("1.", 1.0), ("1e-3", 1e-3), ("2.5E+2", 250.0), ("00.1", 0.1)] {
        operand(text, Operand::F64(f64::to_bits(value)));
    }
}

#[test]
fn operands_are_split_at_the_commas_outside() {
    instruction("mma {a, b}, {c}, [x, {d, e}], (f, 1), g|h, !i;", |found| assert_eq!(found.operands.len(), 6));
}
