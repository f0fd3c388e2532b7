//! Every example that needs no GPU runs.

#[path = "../examples/01_cpu.rs"]
mod cpu;

#[test]
fn attention_on_the_cpu_runs() {
    cpu::main().unwrap();
}
