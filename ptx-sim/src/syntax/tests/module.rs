//! Directives and functions.

use super::{EVERYTHING, HEAD, parse, read};

#[test]
fn a_text_of_every_form_is_read() {
    let module = parse(EVERYTHING).unwrap();
    let names: Vec<_> = module.functions.iter().map(|function| function.name).collect();
    assert_eq!(names, ["vprintf", "panics", "empty", "registers", "kernel"]);
    assert_eq!(module.variables.len(), 6);
}

#[test]
fn the_version_has_two_whole_numbers() {
    let module = parse(".version 8.10\n.target sm_90a, texmode_independent, debug\n.address_size 64").unwrap();
    assert_eq!((module.version, module.target), ((8, 10), "sm_90a"));
}

#[test]
fn files_have_numbers_and_paths() {
    read(".file 1 \"a.rs\"\n.file 2 \"/b \\\"c\\\".rs\", 17, 4", |module| {
        assert_eq!(module.files, [(1, "a.rs"), (2, "/b \\\"c\\\".rs")]);
    });
}

#[test]
fn a_declaration_has_no_body_and_an_empty_function_has_an_empty_one() {
    read(".extern .func f() .noreturn;\n.visible .func f() .noreturn\n{\n}\n.func g;\n.entry h { }", |module| {
        let found: Vec<_> =
            module.functions.iter().map(|f| (f.name, f.is_entry, f.body.as_ref().map(Vec::len))).collect();
        assert_eq!(found, [("f", false, None), ("f", false, Some(0)), ("g", false, None), ("h", true, Some(0))]);
        assert_eq!(module.functions.iter().map(|f| f.line).collect::<Vec<_>>(), [3, 4, 7, 8]);
    });
}

#[test]
fn a_function_has_returns_and_params() {
    read(".func (.param .b32 r) f (.param .u64 .ptr .align 1 a, .param .align 8 .b8 b[24], .reg .b32 c);", |module| {
        let function = &module.functions[0];
        assert_eq!((function.returns[0].name, function.returns[0].size), ("r", 4));
        let params: Vec<_> = function.params.iter().map(|p| (p.name, p.space, p.align, p.size)).collect();
        assert_eq!(params, [("a", "param", 8, 8), ("b", "param", 8, 24), ("c", "reg", 4, 4)]);
    });
}

#[test]
fn the_alignment_after_ptr_is_not_the_parameters_own() {
    read(".entry f(.param .align 8 .u64 .ptr .global .align 16 a, .param .u64 .ptr b) { }", |module| {
        assert_eq!(module.functions[0].params.iter().map(|p| p.align).collect::<Vec<_>>(), [8, 8]);
    });
}

#[test]
fn threads_of_a_block_have_up_to_three_axes() {
    read(".entry f() .maxntid 128, 1, 1 .minnctapersm 2 .maxnreg 64 { } .entry g() .reqntid 32, 4 { }", |module| {
        assert_eq!(module.functions[0].max_threads, Some([128, 1, 1]));
        assert_eq!(module.functions[0].required_threads, None);
        assert_eq!(module.functions[1].max_threads, None);
        assert_eq!(module.functions[1].required_threads, Some([32, 4, 1]));
    });
}

#[test]
fn directives_that_change_nothing_are_passed_over() {
    read(
        ".pragma \"a\", \"b\";\n.func .attribute(.unified(1, 2)) f();\n.entry g() .reqnctapercluster 2, 1, 1 \
         .explicitcluster .maxclusterrank 8 .pragma \"nounroll\"; { .pragma \"nounroll\"; ret; }",
        |module| assert_eq!(module.functions[1].body.as_ref().unwrap().len(), 1),
    );
}

#[test]
fn an_alias_names_a_function() {
    read(".func f();\n.weak .func g();\n.alias g, f;", |module| assert_eq!(module.aliases, [("g", "f")]));
}

#[test]
fn a_section_is_passed_over_to_its_own_brace() {
    let section = ".section .debug_info\n{\n.b8 1 // }\n.b84,255\n/* } */ \"}\" é { } $L-4\n}\n.func f();";
    read(section, |module| assert_eq!((module.functions[0].name, module.functions[0].line), ("f", 9)));
    read(".section\t.debug_loc\t{\t}", |module| assert!(module.functions.is_empty()));
}

#[test]
fn comments_may_stand_anywhere() {
    read("/**/.func/* a\n{ */f// b }\n(/***/)\n;//", |module| {
        assert_eq!((module.functions[0].name, module.functions[0].line), ("f", 3));
    });
}

#[test]
fn dotted_words_need_no_space_between_them() {
    read(".visible.entry f(.param.u64 a){.reg.b32 %r<2>;}", |module| assert_eq!(module.functions[0].params.len(), 1));
}

#[test]
fn lines_may_end_with_a_carriage_return() {
    let text = format!("{HEAD}.func f();\n.func g();\n").replace('\n', "\r\n");
    assert_eq!(parse(&text).unwrap().functions[1].line, 4);
}
