//! Damaged texts give errors, never a panic.

use super::{EVERYTHING, parse};

#[test]
fn a_text_may_end_anywhere() {
    for (end, _) in EVERYTHING.char_indices() {
        let _ = parse(&EVERYTHING[..end]);
    }
}

#[test]
fn any_byte_may_be_missing_or_another() {
    for at in 0..EVERYTHING.len() {
        for other in ["", "{", "}", "\"", "0", "-", ".", "/*", "é", "\n", "["] {
            let _ = parse(&format!("{}{other}{}", &EVERYTHING[..at], &EVERYTHING[at + 1..]));
        }
    }
}

#[test]
fn long_texts_of_one_kind_are_read_in_linear_time() {
    let n = 200_000;
    let texts = ["{", "}", "[", "(", "/*", "\"", "-", "+", ".", ",", "a:", "a;", "@", "0", "::", "a|", "!", "\n", "é"];
    for unit in texts {
        for start in ["", ".entry f() {", ".entry f() { mov ", ".entry f() { ld [a", ".global .b8 x", ".section a {"] {
            let _ = parse(&format!(".version 7.5 .target a {start}{}", unit.repeat(n)));
        }
    }
}
