//! The parser's tests.

use super::ast::{Instruction, Item};
use super::parse;

/// The instructions of a body, those of its scopes included.
fn instructions<'i, 'a>(items: &'i [Item<'a>]) -> Vec<&'i Instruction<'a>> {
    items
        .iter()
        .flat_map(|item| match item {
            Item::Instruction(instruction) => vec![instruction],
            Item::Block(items) => instructions(items),
            _ => vec![],
        })
        .collect()
}

#[test]
fn the_compiled_kernels_are_read() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ptx/sm_80.ptx")).unwrap();
    let module = parse(&text).unwrap();
    assert_eq!((module.version, module.target, module.files.len()), ((7, 5), "sm_80", 24));
    assert_eq!(module.functions.iter().filter(|function| function.is_entry).count(), 35);
    for function in &module.functions {
        let body = instructions(function.body.as_ref().unwrap());
        assert!(body.len() > 100 && body.iter().all(|instruction| instruction.loc.is_some()), "{}", function.name);
        assert_eq!(body.last().unwrap().opcode, "ret");
    }
}
