//! What is refused, where, and with which words.

use super::super::parse;
use super::error;

/// Requires the error of a text that begins in line 3.
fn refused(text: &str, line: u32, message: &str) {
    assert_eq!(error(text), (line, message.into()), "{text}");
}

/// Requires the error of a statement in line 4.
fn refused_in_body(text: &str, message: &str) {
    refused(&format!(".entry f() {{\n{text}\n}}"), 4, message);
}

#[test]
fn a_text_begins_with_version_and_target() {
    for (text, line, message) in [
        ("", 1, "expected `.version`, found the end of the text"),
        (".target sm_80", 1, "expected `.version`, found `.target`"),
        (".version 7", 1, "expected a version such as `7.5`, found `7`"),
        (".version 7.5\n.file 1 \"a\"", 2, "expected `.target`, found `.file`"),
        (".version 7.5\n\n.target ;", 3, "expected a target, found `;`"),
        (".version 7.5\n.target a\n.address_size 32", 3, "expected `64`, found `32`"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!((error.line, error.message.as_str()), (line, message));
    }
}

#[test]
fn a_character_that_is_not_ptx_is_shown() {
    refused("\né", 4, "expected PTX, found the character 'é'");
    refused("\0", 3, "expected PTX, found the character '\\0'");
    refused("\u{feff}", 3, "expected PTX, found the character '\\u{feff}'");
}

#[test]
fn what_is_opened_is_closed() {
    refused("\n/* a\n", 4, "expected a `*/` for this `/*`, found the end of the text");
    refused(".file 1 \"a\n\"", 3, "expected a `\"` before the end of the line, found none");
    refused(".file 1 \"a\\\n\"", 3, "expected a `\"` before the end of the line, found none");
    refused("\n.section .debug\n{ { }\n", 5, "expected a `}` for this `{`, found the end of the text");
    refused(".entry f() {\nret;\n", 5, "expected a statement or `}`, found the end of the text");
    refused(".func .attribute(.a(1) f();", 3, "expected `)`, found the end of the text");
}

#[test]
fn the_module_holds_directives_variables_and_functions() {
    refused("\nret;", 4, "expected a directive, variable or function, found `ret`");
    refused(".visible .file 1 \"a\"", 3, "expected a variable or function, found `.file`");
    refused(".section 1", 3, "expected a section's name or `{`, found `1`");
    refused(".file a", 3, "expected a file's number, found `a`");
    refused(".file 1 a", 3, "expected a string, found `a`");
    refused(".alias f;", 3, "expected `,`, found `;`");
    refused(".entry f() .minor 1 { }", 3, "expected a directive of a function, found `.minor`");
    refused(".entry f() .maxntid { }", 3, "expected a number of threads, found `{`");
    refused(
        ".entry f() .maxntid 4294967296 { }",
        3,
        "expected a number of threads of at most 32 bits, found `4294967296`",
    );
    refused(".entry f() ret;", 3, "expected a body or `;`, found `ret`");
    refused(".func 1();", 3, "expected a function's name, found `1`");
    refused(".entry (.param .b32 a) f();", 3, "expected a function's name, found `(`");
    refused(".func f(.param .b32 a .param .b32 b);", 3, "expected `,` or `)`, found `.param`");
    refused(".func f(.param .b32 a,);", 3, "expected `.param` or `.reg`, found `)`");
}

#[test]
fn a_statement_is_whole() {
    refused_in_body("ret }", "expected an operand, found `}`");
    refused_in_body("ret mov.b32 a, b;", "expected `,` or `;`, found `a`");
    refused_in_body(".text", "expected a statement or `}`, found `.text`");
    refused_in_body("1;", "expected a statement or `}`, found `1`");
    refused_in_body("@1 bra L;", "expected a predicate, found `1`");
    refused_in_body("@p .reg;", "expected an opcode, found `.reg`");
    refused_in_body(".loc 1 2;", "expected a column, found `;`");
    refused_in_body(".loc 1 2 3, 4", "expected `function_name` or `inlined_at`, found `4`");
    refused_in_body("L: .branchtargets;", "expected a label, found `;`");
}

#[test]
fn operands_are_whole() {
    refused_in_body("add a b;", "expected `,` or `;`, found `b`");
    refused_in_body("add a,;", "expected an operand, found `;`");
    refused_in_body("mov .u32 a, b;", "expected an operand, found `.u32`");
    refused_in_body("mov {a, {b}};", "expected an operand, found `{`");
    refused_in_body("mov {a;", "expected `,` or `}`, found `;`");
    refused_in_body("call (a;", "expected `,` or `)`, found `;`");
    refused_in_body("mov !1;", "expected a predicate, found `1`");
    refused_in_body("mov a|1;", "expected a register or `_`, found `1`");
    refused_in_body("mov -a;", "expected a number, found `a`");
    refused_in_body("ld [a;", "expected `]`, found `;`");
    refused_in_body("ld [];", "expected an offset, found `]`");
    refused_in_body("ld [a+b];", "expected an offset, found `b`");
    refused_in_body("ld [a+1.5];", "expected an offset, found `1.5`");
    refused_in_body("ld [a, b];", "expected `{`, found `b`");
}

#[test]
fn numbers_fit_their_bits() {
    refused_in_body("mov 18446744073709551616;", "expected a number of at most 64 bits, found `18446744073709551616`");
    for literal in ["08", "0b2", "0x", "0xG", "12a", "0f3F80", "0d3FF0", "1e", "1.5.5", "1e999"] {
        refused_in_body(
            &format!("mov {literal};"),
            &format!("expected a number of at most 64 bits, found `{literal}`"),
        );
    }
    refused_in_body("mov -9223372036854775809;", "expected at least -9223372036854775808, found -9223372036854775809");
    refused_in_body("ld [a+9223372036854775807+1];", "expected offsets that add up to 64 bits, found `1`");
}

#[test]
fn registers_have_a_type_and_a_bounded_number() {
    refused_in_body(".reg b32 a;", "expected a register's type, found `b32`");
    refused_in_body(".reg .v2 .b32 a;", "expected a register's type, found `.v2`");
    refused_in_body(".reg .b32;", "expected a register's name, found `;`");
    refused_in_body(".reg .b32 a<b>;", "expected a number of registers, found `b`");
    refused_in_body(".reg .b32 a<1;", "expected `>`, found `;`");
    let message = "expected at most 1048576 registers in a function, found 1000000 more";
    refused_in_body(".reg .b32 a<1000000>, b<1000000>;", message);
    refused_in_body(".reg .b32 a<1048576>; .reg .b32 b;", &message.replace("1000000", "1"));
}

#[test]
fn scopes_are_bounded() {
    let nested = |depth: usize| format!(".entry f() {}{}", "{".repeat(depth), "}".repeat(depth));
    super::read(&nested(64), |_| ());
    refused(&nested(65), 3, "expected at most 64 scopes in each other, found one more");
    refused(&nested(1_000_000), 3, "expected at most 64 scopes in each other, found one more");
}

#[test]
fn variables_have_a_type_and_a_bounded_size() {
    refused(".global x;", 3, "expected a type, found `x`");
    refused(".global .b32 .b32 x;", 3, "expected a type or a name, found `.b32`");
    refused(".global .b33 x;", 3, "expected a type or a name, found `.b33`");
    refused(".global .b32 1;", 3, "expected a variable's name, found `1`");
    refused(".global .align 3 .b32 x;", 3, "expected a power of two up to 65536, found `3`");
    refused(".global .align 131072 .b32 x;", 3, "expected a power of two up to 65536, found `131072`");
    refused(".global .b32 x[0x0];", 3, "expected a length above 0, found `0x0`");
    refused(".global .b32 x[2][];", 3, "expected a length, found `]`");
    refused(".global .b32 x[4294967295][4294967295];", 3, "expected at most 1073741824 bytes, found more in `x`");
    let dimensions = "[1]".repeat(9);
    refused(&format!(".global .b32 x{dimensions};"), 3, "expected at most 8 dimensions, found one more");
    refused(".entry f(.shared .b32 x);", 3, "expected `.param` or `.reg`, found `.shared`");
    refused(".entry f(.param .u64 .ptr .b32 x);", 3, "expected a state space, found `.b32`");
}

#[test]
fn initial_values_fit() {
    refused(".global .u8 x = 256;", 3, "expected a value that fits .u8, found `256`");
    refused(".global .s8 x = -129;", 3, "expected a value that fits .s8, found `129`");
    refused(".global .b32 x = 1.5;", 3, "expected a value that fits .b32, found `1.5`");
    refused(".global .b8 x[2] = {1,\n2, 3};", 4, "expected `}`, found `3`");
    refused(".global .b8 x[2][1] = {{1, 2}};", 3, "expected `}`, found `2`");
    refused(".global .b8 x[1][1] = {{1}, {2}};", 3, "expected `}`, found `{`");
    refused(".global .b8 x[1] = {{1}};", 3, "expected a value, found `{`");
    refused(".global .b8 x = {1};", 3, "expected a value, found `{`");
    refused(".global .b8 x[2] = 1;", 3, "expected `{`, found `1`");
    refused(".global .b8 x[2] = {1 2};", 3, "expected `,` or `}`, found `2`");
    refused(".global .b8 x = y;", 3, "expected a value, found `y`");
    refused(".global .b8 x = 0xFE(y);", 3, "expected a mask of one byte, found `0xFE`");
    refused(".global .u64 x = generic(1);", 3, "expected a variable or function, found `1`");
}

#[test]
fn only_global_and_constant_memory_has_initial_values() {
    refused(".shared .b32 x = 1;", 3, "expected `;`, found `=`");
    refused(".extern .global .b32 x = 1;", 3, "expected `;`, found `=`");
}

#[test]
fn initial_bytes_are_bounded() {
    let message = "expected at most 67108864 initial bytes in a module, found more";
    refused(".global .b8 x[67108865] = {1};", 3, message);
    refused(".global .b8 x[33554432] = {1};\n.global .b8 y[33554433] = {1};", 4, message);
    refused(".global .b8 x[][1073741824] = {1};", 3, message);
}

#[test]
fn a_long_token_is_shown_in_part() {
    let (line, message) = error(&"é\"".replace('é', &format!("\"{}", "é".repeat(1000))));
    assert_eq!(line, 3);
    assert_eq!(message, format!("expected a directive, variable or function, found `\"{}...`", "é".repeat(39)));
}
