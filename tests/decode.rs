//! The decode kernels in the simulator: keys split between warps and blocks, and keys in pages.

use common::assert_no_faults;
use evo_sdpa::half::bf16;
use evo_sdpa::sim::ptx_sim::{Device, Launch, Module, Options as SimOptions, WarpOrder};
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{
    Causal, DType, Decode, DevicePointers, DeviceSpec, Element, Error, KERNELS, Kernel, Layout, Options, PTX_SM80,
    Pages, Plan, Problem, Simulator, TensorView, cpu, with_element,
};
use std::sync::OnceLock;

mod common;

fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| evo_sdpa::simulator().unwrap().with_spec(DeviceSpec::H200))
}

fn decode_kernels() -> impl Iterator<Item = Decode> {
    KERNELS.iter().filter_map(|kernel| match kernel {
        Kernel::Decode(config) => Some(*config),
        _ => None,
    })
}

/// A kernel's own type and head dim.
fn case(config: Decode, [batch, heads_q, heads_kv, q_len, kv_len]: [usize; 5]) -> Case {
    let shape = [batch, heads_q, heads_kv, q_len, kv_len, config.head_dim as usize];
    Case { dtype: config.dtype, ..Case::new(shape) }
}

/// What is wrong with the answers of a kernel to `case`, with the keys in so many parts.
fn faults(config: Decode, case: &Case, splits: &[u32]) -> Vec<String> {
    with_element!(case.dtype, T => {
        let inputs = Inputs::<T>::generate(case);
        let expected = Expected::compute(&inputs).unwrap();
        let [q, k, v] = inputs.views().unwrap();
        let fault = |&splits: &u32| {
            let options = Options { splits: Some(splits), ..inputs.options() };
            let kernel = Kernel::Decode(config);
            let answer = simulator().attention(q, k, v, &options, Some(kernel)).unwrap();
            let verdict = expected.check(&answer.output);
            let what = if answer.report.is_clean() { verdict.to_string() } else { answer.report.to_string() };
            let fine = answer.report.is_clean() && verdict.passes();
            (!fine).then(|| format!("{kernel} {case} in {splits} splits: {what}"))
        };
        splits.iter().filter_map(fault).collect()
    })
}

#[test]
fn every_group_of_heads_is_right_with_few_query_rows_and_any_split() {
    assert_no_faults(decode_kernels().flat_map(|config| {
        let long = 3 * config.step() as usize + 5;
        let shapes = [[1, 2, 2, 1, long], [2, 8, 2, 2, long], [1, 8, 1, 5, long + 20], [1, 32, 1, 1, long]];
        shapes.into_iter().flat_map(move |shape| faults(config, &case(config, shape), &[1, 2, 7]))
    }));
}

#[test]
fn masks_and_lengths_may_leave_parts_of_the_keys_without_any() {
    assert_no_faults(decode_kernels().flat_map(|config| {
        let step = config.step() as usize;
        let masks = [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(step as i64 - 3))];
        masks.into_iter().flat_map(move |causal| {
            let ragged = Case { kv_lens: true, causal, ..case(config, [4, 4, 2, 5, 4 * step - 7]) };
            faults(config, &ragged, &[1, 3])
        })
    }));
}

#[test]
fn no_keys_and_few_keys_are_right() {
    assert_no_faults(decode_kernels().flat_map(|config| {
        [0, 1, 15, 17, 100]
            .into_iter()
            .flat_map(move |kv_len| faults(config, &case(config, [1, 2, 1, 3, kv_len]), &[1, 2]))
    }));
}

#[test]
fn smaller_head_dims_are_padded() {
    assert_no_faults(decode_kernels().flat_map(|config| {
        let shape = [1, 2, 1, 2, 200, config.head_dim as usize - 24];
        faults(config, &Case { dtype: config.dtype, ..Case::new(shape) }, &[1, 2])
    }));
}
