//! The decode kernels in the simulator: keys split between warps and blocks, and keys in pages.

use evo_sdpa::half::bf16;
use evo_sdpa::sim::ptx_sim::{Options as SimOptions, WarpOrder};
use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{
    Causal, DType, Decode, DeviceSpec, Element, Error, KERNELS, Kernel, Layout, Options, Pages, Plan, Problem,
    Simulator, cpu, with_element,
};
use paged::Paged;
use splits::{assert_launches_share_a_workspace, assert_no_faults};
use std::sync::OnceLock;

mod launch;
mod paged;
mod splits;

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
fn faults(config: Decode, case: &Case, parts: &[u32]) -> Vec<String> {
    splits::faults(simulator(), Kernel::Decode(config), case, parts)
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

#[test]
fn pages_give_the_bits_of_contiguous_keys() {
    for config in decode_kernels().filter(|config| config.dtype == DType::Bf16) {
        let kernel = Some(Kernel::Decode(config));
        for (rows, layout) in [(16, Layout::bhsd as fn(_) -> _), (64, Layout::bshd), (256, Layout::bhsd)] {
            let causal = Some(Causal::Offset(200));
            let kv_len = 512;
            let case = Case { kv_lens: true, causal, ..case(config, [3, 4, 2, 2, kv_len]) };
            let paged = Paged::<bf16>::new(&case, rows, layout);
            for splits in [1, 3] {
                let [q, k, v] = paged.inputs.views().unwrap();
                let options = Options { splits: Some(splits), ..paged.inputs.options() };
                let contiguous = simulator().attention(q, k, v, &options, kernel).unwrap();
                let [q, k, v] = paged.views();
                let answer = simulator().attention(q, k, v, &paged.options(splits), kernel).unwrap();
                assert!(answer.report.is_clean(), "{config:?} {rows}: {}", answer.report);
                assert_eq!(answer.output, contiguous.output, "{config:?} {rows} {splits}");
            }
        }
    }
}

#[test]
fn sequences_with_room_for_no_page_have_no_keys() {
    let inputs = Inputs::<bf16>::generate(&Case::new([2, 4, 2, 1, 16, 64]));
    let [q, k, v] = inputs.views().unwrap();
    let pages = Some(Pages { block_table: &[], per_sequence: 0 });
    let answer = simulator().attention(q, k, v, &Options { pages, ..Options::default() }, None).unwrap();
    assert!(answer.report.is_clean(), "{}", answer.report);
    assert!(answer.output.out.iter().all(|x| x.to_f32() == 0.0));
    assert!(answer.output.lse.iter().all(|&x| x == f32::NEG_INFINITY));
}

#[test]
fn the_cpu_reads_pages_as_it_reads_contiguous_keys() {
    let case = Case { kv_lens: true, ..Case::new([3, 4, 2, 2, 96, 64]) };
    let paged = Paged::<bf16>::new(&case, 16, Layout::bshd);
    let [q, k, v] = paged.inputs.views().unwrap();
    let contiguous = cpu::attention(q, k, v, &paged.inputs.options()).unwrap();
    let exact = cpu::reference::attention(q, k, v, &paged.inputs.options()).unwrap();
    let [q, k, v] = paged.views();
    assert_eq!(cpu::attention(q, k, v, &paged.options(1)).unwrap(), contiguous);
    assert_eq!(cpu::reference::attention(q, k, v, &paged.options(1)).unwrap(), exact);
}

#[test]
fn no_order_of_warps_changes_a_bit() {
    for config in decode_kernels() {
        let case = case(config, [2, 8, 2, 2, 4 * config.step() as usize - 3]);
        with_element!(case.dtype, T => same_bits_in_any_order::<T>(config, &case));
    }
}

fn same_bits_in_any_order<T: Element>(config: Decode, case: &Case) {
    let inputs = Inputs::<T>::generate(case);
    let [q, k, v] = inputs.views().unwrap();
    let options = Options { splits: Some(3), ..inputs.options() };
    let run = |options_of_simulator| {
        let simulator = evo_sdpa::simulator().unwrap().with_options(options_of_simulator);
        let answer = simulator.with_spec(DeviceSpec::H200).attention(q, k, v, &options, Some(Kernel::Decode(config)));
        let answer = answer.unwrap();
        assert!(answer.report.is_clean(), "{}", answer.report);
        answer.output
    };
    let first = run(SimOptions::default());
    assert_eq!(run(SimOptions::default()), first);
    assert_eq!(run(SimOptions { warp_order: WarpOrder::Random, seed: 7, ..SimOptions::default() }), first);
    assert_eq!(run(SimOptions { warp_order: WarpOrder::Reverse, ..SimOptions::default() }), first);
}

#[test]
fn every_launch_leaves_the_workspace_fit_for_the_next_one() {
    let config = decode_kernels().find(|config| config.dtype == DType::Bf16).unwrap();
    let call = |(batch, parts)| (case(config, [batch, 4, 2, 1, 12 * config.step() as usize]), parts);
    let calls = [(3, 2), (1, 3), (2, 4), (3, 2)].map(call);
    assert_launches_share_a_workspace(&DeviceSpec::H200, Kernel::Decode(config), calls);
}

#[test]
fn bad_pages_and_splits_are_refused_by_name() {
    let case = Case::new([2, 4, 2, 1, 64, 64]);
    let paged = Paged::<bf16>::new(&case, 16, Layout::bhsd);
    let [q, k, v] = paged.views();
    let refused = |options: Options| match cpu::attention(q, k, v, &options) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    };
    let with =
        |block_table, per_sequence| Options { pages: Some(Pages { block_table, per_sequence }), ..Options::default() };
    assert!(refused(with(&[0; 7], 4)).starts_with("block_table: 7 entries does not fit, allowed: 2 x 4"));
    assert!(refused(with(&[0, 1, 2, 3, 4, 5, 6, 8], 4)).contains("page 8 of sequence 1 does not fit, allowed: 0..8"));
    assert!(refused(with(&[0, 1, 2, -1, 4, 5, 6, 7], 4)).contains("page -1 of sequence 0"));
    let lens = Options { kv_lens: Some(&[48, 64]), ..with(&[0, 1, 2, -1, 4, 5, 6, 7], 4) };
    assert!(cpu::attention(q, k, v, &lens).is_ok(), "an entry past a sequence's length is not looked at");

    let problem = |rows, heads, dtype| {
        let kv = Layout::bhsd([8, 2, rows, 64]);
        Problem::new(dtype, Layout::bhsd([2, heads, 1, 64]), kv, kv).with_pages(Some(4))
    };
    let plan = |problem: Problem| Plan::new(&problem, &DeviceSpec::H200);
    assert!(matches!(plan(problem(16, 4, DType::F16)).unwrap().kernel, Kernel::Decode(_)));
    for rows in [8, 24] {
        let error = plan(problem(rows, 4, DType::F16)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { field: "page rows", .. }), "{error}");
    }
    let error = plan(problem(16, 4, DType::F32)).unwrap_err().to_string();
    assert!(error.starts_with("dtype: f32 is not supported, allowed: f16 or bf16"), "{error}");
    let wide = Layout::bhsd([8, 2, 16, 136]);
    let wide = Problem::new(DType::F16, Layout::bhsd([2, 4, 1, 136]), wide, wide).with_pages(Some(4));
    let error = plan(wide).unwrap_err().to_string();
    assert!(
        error.starts_with("head_dim: 136 is not supported, allowed: at most 128 where keys are in pages"),
        "{error}"
    );
    let forward = Kernel::parse("fwd_sm80_bf16_d64_q64_kv64_w4_s2").unwrap();
    let error = Plan::with_kernel(&problem(16, 4, DType::Bf16), &DeviceSpec::H200, forward).unwrap_err();
    assert!(matches!(error, Error::Unsupported { field: "pages", .. }), "{error}");

    let contiguous = Problem::contiguous(DType::Bf16, [1, 4, 2, 1, 64, 64]);
    let plan = Plan::with_kernel(&contiguous, &DeviceSpec::H200, forward).unwrap();
    assert!(plan.with_splits(1).is_ok());
    for splits in [0, 2] {
        assert!(matches!(plan.with_splits(splits), Err(Error::Unsupported { field: "splits", .. })));
    }
}
