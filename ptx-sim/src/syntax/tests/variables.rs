//! Variables and their initial bytes.

use super::super::ast::Relocation;
use super::read;

/// Requires the alignment and size of a declaration.
fn shape(text: &str, align: u32, size: u32) {
    read(text, |module| assert_eq!((module.variables[0].align, module.variables[0].size), (align, size), "{text}"));
}

/// Requires the initial bytes of a declaration.
fn init(text: &str, wanted: &[u8]) {
    read(text, |module| {
        assert_eq!(module.variables[0].init.as_deref(), Some(wanted), "{text}");
        assert_eq!(module.variables[0].size as usize, wanted.len(), "{text}");
    });
}

/// Little-endian bytes of 32-bit words.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn the_size_follows_from_type_vector_and_lengths() {
    shape(".shared .b8 x;", 1, 1);
    shape(".global .f16 x[3];", 2, 6);
    shape(".global .v4 .f32 x[2];", 16, 32);
    shape(".const .align 64 .b64 x[2][3];", 64, 48);
    shape(".global .b128 x;", 16, 16);
    shape(".extern .shared .align 1024 .b8 x[];", 1024, 0);
}

#[test]
fn the_linkage_is_extern_or_not() {
    for (linkage, wanted) in [(".extern", true), (".visible", false), (".weak", false), (".common", false), ("", false)]
    {
        read(&format!("{linkage} .global .b32 x;"), |module| assert_eq!(module.variables[0].is_extern, wanted));
    }
}

#[test]
fn several_variables_may_share_a_declaration() {
    read(".global .b32 x = 1, y[2],\nz;", |module| {
        let found: Vec<_> = module.variables.iter().map(|v| (v.name, v.line, v.size, v.init.is_some())).collect();
        assert_eq!(found, [("x", 3, 4, true), ("y", 3, 8, false), ("z", 4, 4, false)]);
    });
}

#[test]
fn whole_numbers_are_little_endian() {
    init(".global .b32 x = 0x01020304;", &[4, 3, 2, 1]);
    init(".global .u16 x[2] = {65535, -2};", &[0xFF, 0xFF, 0xFE, 0xFF]);
    init(".global .b64 x = 18446744073709551615;", &[0xFF; 8]);
    init(".global .s8 x[2] = {-128, 127};", &[0x80, 0x7F]);
    init(".const .b128 x = -1;", &[0xFF; 16]);
}

#[test]
fn floats_are_bits_or_rounded_decimals() {
    init(".global .f32 x[3] = {1.5, -0f3F800000, 2};", &words(&[1.5_f32, -1.0, 2.0].map(f32::to_bits)));
    init(".global .b32 x = 0f7FC00000;", &words(&[0x7FC0_0000]));
    init(".global .f64 x = 0.1;", &0.1_f64.to_le_bytes());
    init(".global .f64 x = 0fBF800000;", &(-1.0_f64).to_le_bytes());
    init(".global .b64 x = 0d3FF0000000000000;", &1.0_f64.to_le_bytes());
}

#[test]
fn a_short_list_is_filled_with_zeros() {
    init(".global .b8 x[4] = {1, 2};", &[1, 2, 0, 0]);
    init(".global .b8 x[2] = {};", &[0, 0]);
}

#[test]
fn an_inner_list_fills_one_row() {
    init(".global .b8 x[2][3] = {{1, 2}, {3}};", &[1, 2, 0, 3, 0, 0]);
    init(".global .b8 x[2][3] = {1, 2, 3, 4};", &[1, 2, 3, 4, 0, 0]);
    init(".global .b8 x[3][2] = {1, {2}, 3};", &[1, 0, 2, 0, 3, 0]);
    init(".global .v2 .b8 x[2] = {{1, 2}, {3}};", &[1, 2, 3, 0]);
    init(".global .v4 .b8 x = {1, 2, 3, 4};", &[1, 2, 3, 4]);
}

#[test]
fn an_open_length_follows_from_the_list() {
    init(".global .b8 x[] = {1, 2, 3};", &[1, 2, 3]);
    init(".global .b8 x[][2] = {{1}, 2};", &[1, 0, 2, 0]);
    init(".global .b8 x[] = {};", &[]);
}

#[test]
fn addresses_stand_beside_the_bytes() {
    let at = |at, name| Relocation { at, bytes: 8, shift: 0, name, offset: 0, is_generic: false };
    read(".global .u64 x[4] = {y, generic(z)+16, 7, y-8};", |module| {
        let variable = &module.variables[0];
        assert_eq!(
            variable.relocations,
            [
                at(0, "y"),
                Relocation { offset: 16, is_generic: true, ..at(8, "z") },
                Relocation { offset: -8, ..at(24, "y") }
            ]
        );
        let init: Vec<u8> = [0_u64, 0, 7, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(variable.init, Some(init));
    });
}

#[test]
fn an_address_may_be_given_byte_by_byte() {
    read(".global .b8 x[3] = {1, 0xFF(y), 0xFF00000000000000(generic(y)+4)};", |module| {
        let byte = Relocation { at: 1, bytes: 1, shift: 0, name: "y", offset: 0, is_generic: false };
        let last = Relocation { at: 2, shift: 56, offset: 4, is_generic: true, ..byte.clone() };
        assert_eq!(module.variables[0].relocations, [byte, last]);
        assert_eq!(module.variables[0].init, Some(vec![1, 0, 0]));
    });
}
