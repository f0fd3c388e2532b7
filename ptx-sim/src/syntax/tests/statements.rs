//! Statements of a body.

use super::super::ast::{Item, Operand};
use super::{body, instruction, instructions, read};

#[test]
fn registers_come_one_item_a_name() {
    body(".reg .b32 %r<10>, x;\n.reg .pred p, q;", |items| {
        let found: Vec<_> = items
            .iter()
            .map(|item| match item {
                Item::Register { name, line, ty, count } => (*name, *line, *ty, *count),
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted =
            [("%r", 4, "b32", Some(10)), ("x", 4, "b32", None), ("p", 5, "pred", None), ("q", 5, "pred", None)];
        assert_eq!(found, wanted);
    });
}

#[test]
fn a_label_stands_before_a_statement_or_alone() {
    body("$L1: ret;\nL2 :\n$L3:$L4:", |items| {
        let labels: Vec<_> = items
            .iter()
            .filter_map(|item| if let Item::Label { name, line } = item { Some((*name, *line)) } else { None })
            .collect();
        assert_eq!(labels, [("$L1", 4), ("L2", 5), ("$L3", 6), ("$L4", 6)]);
        assert!(matches!(&items[1], Item::Instruction(instruction) if instruction.opcode == "ret"));
    });
}

#[test]
fn a_scope_holds_its_own_names_and_labels() {
    body(".reg .pred p; { .reg .pred p; @p bra L; L: { ret; } } L: ret;", |items| {
        assert!(matches!(&items[1], Item::Block(inner) if inner.len() == 4 && matches!(inner[3], Item::Block(_))));
        assert_eq!(instructions(&items).len(), 3);
    });
}

#[test]
fn variables_of_a_body_may_be_local_shared_or_of_a_call() {
    body(".local .align 16 .b8 depot[64]; .shared .b32 x, y; .param .b64 p; .extern .shared .b8 z[];", |items| {
        let found: Vec<_> = items
            .iter()
            .map(|item| match item {
                Item::Variable(v) => (v.name, v.space, v.is_extern, v.align, v.size),
                other => panic!("{other:?}"),
            })
            .collect();
        let wanted = [
            ("depot", "local", false, 16, 64),
            ("x", "shared", false, 4, 4),
            ("y", "shared", false, 4, 4),
            ("p", "param", false, 8, 8),
            ("z", "shared", true, 1, 0),
        ];
        assert_eq!(found, wanted);
    });
}

#[test]
fn targets_are_named_by_a_label_and_prototypes_are_read() {
    body("t: .branchtargets a, b;\nc: .calltargets f;\np : .callprototype ()_ (.param .b64 _) .noreturn;", |items| {
        assert!(matches!(&items[0], Item::BranchTargets { name: "t", line: 4, labels } if *labels == ["a", "b"]));
        assert_eq!(items.len(), 1);
    });
}

#[test]
fn an_instruction_has_a_guard_or_none() {
    instruction("@%p1 bra L;", |found| assert_eq!((found.guard, found.opcode), (Some(("%p1", false)), "bra")));
    instruction("@!q ret;", |found| assert_eq!((found.guard, found.opcode), (Some(("q", true)), "ret")));
    instruction("ret;", |found| assert_eq!((found.guard, found.operands.len()), (None, 0)));
}

#[test]
fn an_opcode_keeps_all_of_its_modifiers() {
    let opcode = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    instruction(&format!("{opcode} [a], [b], 16, [c];"), |found| assert_eq!(found.opcode, opcode));
}

#[test]
fn the_text_of_an_instruction_is_as_written() {
    instruction("  @!p add.s32\t%r1, // one\n\t%r2 , -1 /* two */ ; // three", |found| {
        assert_eq!(found.text, "@!p add.s32\t%r1, // one\n\t%r2 , -1");
        assert_eq!(found.line, 4);
    });
    body("L: ret; { exit ; }", |items| {
        assert_eq!(instructions(&items).iter().map(|i| i.text).collect::<Vec<_>>(), ["ret", "exit"]);
    });
}

#[test]
fn several_statements_may_stand_in_a_line_and_one_in_several() {
    body("mov.b32 a, b; ret; ;\ncall.uni\n(r),\nf,\n(\np\n);", |items| {
        let found: Vec<_> = instructions(&items).iter().map(|i| (i.line, i.operands.len())).collect();
        assert_eq!(found, [(4, 2), (4, 0), (5, 3)]);
    });
}

#[test]
fn a_call_has_lists_or_names_only() {
    let list = |names: &[&'static str]| Operand::List(names.iter().map(|name| Operand::Name(name)).collect());
    instruction("call.uni (r), f, (a, b);", |found| {
        assert_eq!(found.operands, [list(&["r"]), Operand::Name("f"), list(&["a", "b"])]);
    });
    instruction("call f, (), p;", |found| {
        assert_eq!(found.operands, [Operand::Name("f"), list(&[]), Operand::Name("p")])
    });
    instruction("call f;", |found| assert_eq!(found.operands, [Operand::Name("f")]));
}

#[test]
fn an_instruction_knows_the_last_loc_of_its_function() {
    let text =
        ".entry f() { exit; .loc 1 20 3\nexit; { .loc 2 5 0, function_name $s+4, inlined_at 1 20 3\nexit; } exit; }
        .loc 3 3 3
        .entry g() { exit; }";
    read(text, |module| {
        let bodies = module.functions.iter().map(|f| instructions(f.body.as_ref().unwrap()));
        let locs: Vec<_> = bodies.flatten().map(|i| i.loc).collect();
        assert_eq!(locs, [None, Some((1, 20, 3)), Some((2, 5, 0)), Some((2, 5, 0)), None]);
    });
}
