//! Every example that needs no GPU runs.

#[path = "../examples/01_cpu.rs"]
mod cpu;
#[path = "../examples/05_paged_decode.rs"]
mod paged_decode;
#[cfg(feature = "sim")]
#[path = "../examples/04_simulator.rs"]
mod simulator;

#[test]
fn attention_on_the_cpu_runs() {
    cpu::main().unwrap();
}

#[test]
fn a_decoding_step_over_pages_runs() {
    paged_decode::main().unwrap();
}

#[cfg(feature = "sim")]
#[test]
fn attention_in_the_simulator_runs() {
    simulator::main().unwrap();
}
