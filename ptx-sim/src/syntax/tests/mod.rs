//! The parser's tests.

mod damage;
mod errors;
mod module;
mod operands;
mod statements;
mod variables;

use super::ast::{Instruction, Item, Module, Operand};
use super::parse;

/// What every text begins with: lines 1 and 2.
const HEAD: &str = ".version 7.5\n.target sm_80\n";

/// Every form of statement, operand and directive once.
const EVERYTHING: &str = include_str!("everything.ptx");

/// Reads what follows the head, from line 3.
fn read<T>(text: &str, then: impl FnOnce(Module<'_>) -> T) -> T {
    let text = format!("{HEAD}{text}");
    then(parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// Reads the body of a function; its first line is line 4.
fn body<T>(text: &str, then: impl FnOnce(Vec<Item<'_>>) -> T) -> T {
    read(&format!(".entry f() {{\n{text}\n}}"), |mut module| then(module.functions.remove(0).body.unwrap()))
}

/// Reads one instruction.
fn instruction<T>(text: &str, then: impl FnOnce(Instruction<'_>) -> T) -> T {
    body(text, |mut items| match (items.pop(), items.is_empty()) {
        (Some(Item::Instruction(instruction)), true) => then(instruction),
        (other, _) => panic!("{text}: {items:?} and {other:?}"),
    })
}

/// Requires that `text` is read as this one operand.
fn operand(text: &str, wanted: Operand<'_>) {
    instruction(&format!("op {text};"), |found| assert_eq!(found.operands, [wanted], "{text}"));
}

/// The error of what follows the head.
fn error(text: &str) -> (u32, String) {
    let text = format!("{HEAD}{text}");
    let error = parse(&text).expect_err(&text);
    (error.line, error.message)
}

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
    assert_eq!((module.version, module.target), ((7, 5), "sm_80"));
    assert_eq!(module.files.len(), text.matches("\t.file\t").count());
    let entries = module.functions.iter().filter(|function| function.is_entry).count();
    assert_eq!((entries, module.functions.len()), (text.matches(".visible .entry ").count(), entries));
    let bodies = module.functions.iter().map(|function| instructions(function.body.as_ref().unwrap()));
    let all: Vec<_> = bodies.flatten().collect();
    // Every `;` ends an instruction, a `.reg` or the dynamic shared memory.
    let declarations = text.matches(".reg ").count() + text.matches(".extern ").count();
    assert_eq!(all.len(), text.matches(';').count() - declarations);
    assert!(all.iter().all(|instruction| instruction.loc.is_some()));
}
