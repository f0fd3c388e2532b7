//! Defects that are planted into the kernels are found. Each kernel is broken in one place of its compiled text after
//! the other; then a check of the simulator has to object, or the answer has to be wrong.
//!
//! No mutant of these operators is known to be equivalent to its kernel (see [`spared`]): one that survives is a hole in
//! the checks, too kind a problem, or an instruction that the kernel can do without.
//! `cargo test --test mutation -- --nocapture` prints how many there were; with `--include-ignored` also those of every
//! place of every operator.

use evo_sdpa::quantize::Call;
use evo_sdpa::sim::Simulated;
use evo_sdpa::sim::ptx_sim::{Kind, Options};
use evo_sdpa::verify::{self, Case, Expected, Inputs};
use evo_sdpa::{
    Causal, DType, Decode, DeviceSpec, Element, Fp8, FwdSm90, KERNELS, Kernel, Layout, PTX_SM80, PTX_SM89, PTX_SM90A,
    ScaleBlocks, Simulator, Transpose, cpu, with_element,
};
use mutants::{Mutant, Operator, single_entry, spared};
use paged::Paged;
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::LazyLock;

mod mutants;
#[path = "../paged/mod.rs"]
mod paged;
mod quantize;

/// The compiled kernels.
const TEXTS: [&str; 3] = [PTX_SM80, PTX_SM89, PTX_SM90A];

/// Far more than any case needs, and soon over for a kernel that does not end.
const MAX_INSTRUCTIONS: u64 = 20_000_000;

/// Places in a kernel for an operator that does not break the order of accesses.
const SAMPLE: usize = 6;

/// With it, the second of three sequences of less than two steps has more than one step of every kernel's.
const LENS_SEED: u64 = 1;

/// Rows of a page, where keys are in pages.
const PAGE_ROWS: u32 = 16;

/// Few problems, the quickest first, that between them need every instruction of a kernel that is ever broken.
fn cases(kernel: Kernel) -> Vec<Case> {
    let case = |q_len: u32, kv_len, head_dim: u32| {
        let shape = [1, 1, 1, q_len, kv_len, head_dim].map(|n| n as usize);
        Case { dtype: kernel.dtype(), ..Case::new(shape) }
    };
    // Two groups of heads, the second of which is the smaller one, of tiles of one step.
    let groups = |config: FwdSm90| {
        let shape = [1, 5, 1, config.tile_q + 3, 9, config.head_dim].map(|n| n as usize);
        Case { dtype: config.dtype, causal: Some(Causal::BottomRight), ..Case::new(shape) }
    };
    match kernel {
        // Columns of two spans, of the second not all.
        Kernel::FwdScalar(_) => vec![case(3, 37, 152)],
        Kernel::FwdSm80(config) => {
            let (q_len, step) = (config.tile_q - 3, config.step());
            // More steps than stages, so that copies start over tiles in use. Where values lag, the first row sees a key
            // less than one step beyond the full ones: several steps have a mask, and all but the first of them multiply
            // the values of the step before.
            let full = config.stages * step;
            let (kv_len, causal) = if config.values_lag() {
                (full + step - 1 + q_len - 1, Some(Causal::BottomRight))
            } else {
                (full + 5, None)
            };
            // Without a key, the queries are the last thing that lies in shared memory.
            let [none, more] = [0, kv_len].map(|kv_len| case(q_len, kv_len, config.head_dim));
            // Of fewer columns than the tiles have.
            let one_step = case(q_len, step - 5, config.least_head_dim());
            let mut cases = vec![none, one_step, Case { causal, ..more }];
            if config.shares_keys {
                // Two parts, the second of which is short; the first has the step that all rows see.
                cases.push(Case { splits: Some(2), causal: Some(Causal::Offset(i64::from(step))), ..more });
            } else {
                // Two tiles are more blocks than SMs: they go through heads side by side.
                cases.push(Case { causal: Some(Causal::BottomRight), ..case(config.tile_q + 3, 9, config.head_dim) });
            }
            cases
        }
        Kernel::FwdFp8(config) => {
            let (q_len, step) = (config.tile_q - 3, config.tile_kv);
            // No key; a part of a step; more steps than stages, of which several have a mask; two tiles, whose blocks go
            // through heads side by side. The longest begins with the least scores: bases move in every step.
            let [none, one_step] = [0, step - 5].map(|kv_len| case(q_len, kv_len, config.head_dim));
            let more = case(q_len, (config.stages + 1) * step - 1 + q_len - 1, config.head_dim);
            let two_tiles = case(config.tile_q + 3, 9, config.head_dim);
            // A piece of each row is padded.
            let narrow = case(q_len, (config.stages + 1) * step, config.head_dim - 16);
            let causal = Some(Causal::BottomRight);
            vec![
                none,
                one_step,
                Case { causal, kind: verify::Kind::Large, ..more },
                Case { causal, ..two_tiles },
                narrow,
            ]
        }
        Kernel::FwdSm90(config) if !config.is_alone() => {
            // Two blocks, each with a tile of each of three heads that have no partner: the keys end in the first half of a
            // step, so that the first step of a second tile is a narrow one. Then steps whose scores are far above those of
            // the steps before, behind such a step too.
            let (q_len, step) = (2 * config.tile_q - 10, config.tile_kv);
            let heads = |case: Case| {
                let [.., q_len, kv_len, head_dim] = case.shape;
                Case { shape: [1, 3, 1, q_len, kv_len, head_dim], ..case }
            };
            let narrow = heads(case(q_len, (config.stages + 1) * step + step / 2 - 3, config.least_head_dim()));
            let large = heads(case(q_len, 3 * step, config.head_dim));
            let [large, narrow_large] = [large, narrow].map(|case| Case { kind: verify::Kind::Large, ..case });
            // A mask, which has the first block skip a step; sequences of two heads, which are taken together, of lengths of their
            // own.
            let causal = Some(Causal::BottomRight);
            let masked = Case { causal, ..heads(case(q_len, q_len + step - 1, config.least_head_dim())) };
            let [.., head_dim] = large.shape;
            let shape = [5, 2, 1, config.tile_q as usize + 3, 2 * step as usize - 5, head_dim];
            let lens = Case { shape, kv_lens: true, seed: LENS_SEED, ..masked };
            vec![narrow, large, narrow_large, masked, lens, groups(config)]
        }
        Kernel::FwdSm90(config) => {
            let step = config.tile_kv;
            // All tiles are of one block. Three sequences of two heads: of all keys, of some that end in the second step,
            // and of none, the tiles of which have one step.
            let lens = case(config.tile_q - 3, 2 * step - 5, config.head_dim);
            let [.., q_len, kv_len, head_dim] = lens.shape;
            let lens = Case { shape: [3, 2, 1, q_len, kv_len, head_dim], kv_lens: true, seed: LENS_SEED, ..lens };
            // Two tiles, together of more steps than there are stages. The first row sees all of a step, so that the
            // mask cuts through as many steps as it can, in the second tile also at the last stage; the tensors have fewer columns than the tiles.
            let q_len = 2 * config.tile_q - 10;
            let masked = case(q_len, q_len + (config.stages - 1) * step - 1, config.least_head_dim());
            let [.., q_len, kv_len, head_dim] = masked.shape;
            // With three stages, the second head has values of a masked step at the last one.
            let shape = [1, config.stages as usize - 1, 1, q_len, kv_len, head_dim];
            let masked = Case { shape, causal: Some(Causal::BottomRight), ..masked };
            // Steps whose scores are far above those of the steps before. Where there are two stages, the second tile
            // begins with the second one.
            let large = |kv_len| {
                let case = case(config.tile_q, kv_len, config.head_dim);
                let [.., q_len, kv_len, head_dim] = case.shape;
                Case { shape: [1, 2, 1, q_len, kv_len, head_dim], kind: verify::Kind::Large, ..case }
            };
            let (long, large) = (large(2 * FwdSm90::RUN_KEYS + 2 * step), large(3 * step));
            let mut cases = vec![masked, large, lens, groups(config)];
            if config.e4m3 {
                // Two tiles of two runs that are parked, and one that is not; bases move in all of them.
                cases.push(long);
            }
            if config.narrow_kv() < step {
                // Behind the first tile come some whose first step is narrow in every second warpgroup, and whose next one
                // has scores far above those; it takes its values from either stage.
                let shape = [1, 2, 1, 2 * config.tile_q as usize, 3 * step as usize, config.head_dim as usize];
                cases.push(Case { shape, causal: Some(Causal::BottomRight), ..large });
            }
            cases
        }
        Kernel::Decode(config) => {
            // No key; one block of a step; two of them; two of more steps than stages. A row of the tile is missing, or
            // there are two heads, the second of which lies in two tiles: this one also with its keys in pages.
            let kv_lens = [0, config.step() - 5, 2 * config.step() - 5, 2 * (config.stages + 2) * config.step() - 5];
            let splits = Some(2);
            let one_head = kv_lens.map(|kv_len| Case { splits, ..case(Decode::ROWS - 1, kv_len, config.head_dim) });
            let shape = [1, 2, 1, 9, 2 * config.step() - PAGE_ROWS, config.head_dim].map(|n| n as usize);
            let two_heads = Case { shape, causal: Some(Causal::BottomRight), ..one_head[2] };
            one_head.into_iter().chain([two_heads]).collect()
        }
    }
}

/// The text that has the kernel.
fn ptx_of(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::FwdSm90(_) => PTX_SM90A,
        Kernel::FwdFp8(_) => PTX_SM89,
        Kernel::FwdScalar(_) | Kernel::FwdSm80(_) | Kernel::Decode(_) => PTX_SM80,
    }
}

/// The kernels of the texts, and the one that transposes values for some.
fn simulator(texts: &[&str]) -> Simulator {
    let options = Options { max_instructions: MAX_INSTRUCTIONS, ..Options::default() };
    let spec = DeviceSpec { sm_count: 1, ..DeviceSpec::H200 };
    static TRANSPOSE: LazyLock<String> = LazyLock::new(|| single_entry(PTX_SM90A, Transpose::NAME));
    let texts: Vec<_> = texts.iter().copied().chain([TRANSPOSE.as_str()]).collect();
    Simulator::new(&texts).unwrap().with_spec(spec).with_options(options)
}

/// What gave a mutant away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    Found(Kind),
    WrongAnswer,
}

/// The tensors of a problem.
enum Tensors<T> {
    Contiguous(Inputs<T>),
    Paged(Paged<T>),
    Fp8 {
        inputs: Inputs<T>,
        call: Box<Call>,
        /// Else the call is for the output alone, and makes other sums.
        lse: bool,
    },
}

/// The right answer: what is close to the exact one, or what the unharmed kernel gives, which is right by `tests/fp8.rs`.
enum Right<T> {
    Near(Expected),
    Same(cpu::Output<T>),
}

/// A problem, the right answer to it, and what the unharmed kernel executes on it.
struct Trial<T> {
    kernel: Kernel,
    tensors: Tensors<T>,
    right: Right<T>,
    executed: HashSet<u32>,
}

impl<T: Element> Trial<T> {
    fn new(kernel: Kernel, tensors: Tensors<T>, unharmed: &Simulator) -> Self {
        let (Tensors::Contiguous(inputs) | Tensors::Paged(Paged { inputs, .. }) | Tensors::Fp8 { inputs, .. }) =
            &tensors;
        let problem = inputs.problem();
        let right = match &tensors {
            Tensors::Fp8 { inputs, call, lse } => Right::Same(of_fp8(unharmed, kernel, inputs, call, *lse).output),
            _ => Right::Near(Expected::compute(inputs).unwrap()),
        };
        let mut trial = Self { kernel, tensors, right, executed: HashSet::new() };
        trial.executed = trial.run(unharmed).unwrap_or_else(|defect| panic!("{kernel} {problem}: {defect:?}"));
        trial
    }

    /// The lines of the text that are executed, or what is wrong.
    fn run(&self, simulator: &Simulator) -> Result<HashSet<u32>, Defect> {
        let of_plain_inputs =
            |[q, k, v]: [_; 3], options| simulator.attention(q, k, v, options, Some(self.kernel)).unwrap();
        let ran = match &self.tensors {
            Tensors::Contiguous(inputs) => of_plain_inputs(inputs.views().unwrap(), &inputs.options()),
            Tensors::Paged(paged) => of_plain_inputs(paged.views(), &paged.options(paged.inputs.splits.unwrap_or(1))),
            Tensors::Fp8 { inputs, call, lse } => of_fp8(simulator, self.kernel, inputs, call, *lse),
        };
        let is_right = match &self.right {
            Right::Near(expected) => expected.check(&ran.output).passes(),
            Right::Same(output) => ran.output == *output,
        };
        match ran.report.findings.first() {
            Some(finding) => Err(Defect::Found(finding.kind)),
            None if !is_right => Err(Defect::WrongAnswer),
            None => Ok(ran.report.lines.iter().map(|line| line.line).collect()),
        }
    }
}

fn of_fp8<T: Element>(
    simulator: &Simulator,
    kernel: Kernel,
    inputs: &Inputs<T>,
    call: &Call,
    lse: bool,
) -> Simulated<T> {
    let (tensors, options) = ([&call.q, &call.k, &call.v], inputs.options());
    let ran = if lse {
        simulator.fp8_attention(tensors, &options, Some(kernel))
    } else {
        simulator.fp8_output(tensors, &options, Some(kernel))
    };
    ran.unwrap()
}

/// A mutant and what became of it.
struct Outcome {
    kernel: Kernel,
    mutant: Mutant,
    defect: Option<Defect>,
}

/// The tensors of a case. Values behind the lengths of sequences are NaN, which no probability hides.
fn inputs<T: Element>(case: &Case) -> Inputs<T> {
    let mut inputs = Inputs::<T>::generate(case);
    let [_, _, heads, _, kv_len, head_dim] = case.shape;
    for (batch, &len) in (0..).zip(inputs.kv_lens.iter().flatten()) {
        for (head, row) in (0..heads).flat_map(|head| (len as usize..kv_len).map(move |row| (head, row))) {
            let start = inputs.v_layout.row_offset(batch, head, row);
            inputs.v[start..start + head_dim].fill(T::from_f32(f32::NAN));
        }
    }
    inputs
}

/// Tries the mutants of a kernel by the operators, each in at most `places(kernel, operator)` places.
fn try_mutants<T: Element>(kernel: Kernel, places: impl Fn(Kernel, Operator) -> usize) -> Vec<Outcome> {
    let ptx = single_entry(ptx_of(kernel), &kernel.to_string());
    let unharmed = simulator(&[&ptx]);
    let cases = cases(kernel);
    let tensors_of = |case: &Case| {
        let inputs = inputs::<T>(case);
        if !kernel.takes_e4m3() {
            return vec![Tensors::Contiguous(inputs)];
        }
        let fp8 = |blocks, lse| {
            let call = Call::new(inputs.views().unwrap(), Fp8::uniform(blocks), false, &inputs.options()).unwrap();
            Tensors::Fp8 { inputs: inputs.clone(), call: Box::new(call), lse }
        };
        match (kernel, case.kind) {
            // With one scale, most steps have no maximum. With scales of blocks, sums that were parked are rescaled by steps
            // with a maximum.
            (Kernel::FwdSm90(_), verify::Kind::Large) => {
                vec![fp8(ScaleBlocks::Head, false), fp8(ScaleBlocks::Head, true), fp8(ScaleBlocks::Rows(128), true)]
            }
            (Kernel::FwdSm90(_), _) => vec![fp8(ScaleBlocks::Rows(128), true)],
            _ => vec![fp8(ScaleBlocks::Rows(64), true)],
        }
    };
    let mut tensors: Vec<_> = cases.iter().flat_map(tensors_of).collect();
    if let (Kernel::Decode(_), Some(last)) = (kernel, cases.last()) {
        tensors.push(Tensors::Paged(Paged::new(last, PAGE_ROWS as usize, Layout::bhsd)));
    }
    let trials: Vec<_> = tensors.into_iter().map(|tensors| Trial::new(kernel, tensors, &unharmed)).collect();
    let outcome = |mutant: Mutant| {
        let simulator = simulator(&[&mutant.of(&ptx)]);
        let concerned = trials.iter().filter(|trial| trial.executed.contains(&mutant.line));
        let defect = concerned.map(|trial| trial.run(&simulator)).find_map(Result::err);
        Outcome { kernel, mutant, defect }
    };
    let of_operator = |operator| {
        let mut mutants = Mutant::all(&ptx, operator);
        if let (Kernel::FwdSm90(_), Operator::NoArrival) = (kernel, operator) {
            // The arrival for a block without a first tile, which there is not.
            let all = mutants.len();
            mutants.retain(|mutant| trials.iter().any(|trial| trial.executed.contains(&mutant.line)));
            assert!(mutants.len() + 1 >= all, "{kernel}: {} arrivals are not reached", all - mutants.len());
        }
        let every = mutants.len().div_ceil(places(kernel, operator)).max(1);
        mutants.into_iter().step_by(every)
    };
    Operator::ALL.into_iter().flat_map(of_operator).map(outcome).collect()
}

#[track_caller]
fn assert_every_mutant_is_caught(places: impl Fn(Kernel, Operator) -> usize + Sync) {
    let of_kernel = |&kernel: &Kernel| with_element!(kernel.dtype(), T => try_mutants::<T>(kernel, &places));
    let outcomes: Vec<_> = KERNELS.par_iter().flat_map_iter(of_kernel).collect();
    for operator in Operator::ALL {
        let of_operator = outcomes.iter().filter(|outcome| outcome.mutant.operator == operator);
        let defects: Vec<_> = of_operator.filter_map(|outcome| outcome.defect).collect();
        let wrong = defects.iter().filter(|&&defect| defect == Defect::WrongAnswer).count();
        let found = defects.len() - wrong;
        println!("{:16}{found:5} caught by a check, {wrong:5} by the answer", format!("{operator:?}"));
    }
    let survivors: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.defect.is_none())
        .map(|Outcome { kernel, mutant: Mutant { operator, line, code }, .. }| {
            format!("{kernel} {operator:?}, line {line} of the entry alone: {code}")
        })
        .collect();
    let (all, caught) = (outcomes.len(), outcomes.len() - survivors.len());
    println!("{caught} of {all} mutants of {} kernels caught", KERNELS.len());
    assert!(survivors.is_empty(), "{} mutants survive:\n{}", survivors.len(), survivors.join("\n"));
}

#[test]
fn every_mutant_is_caught() {
    assert_every_mutant_is_caught(|kernel, operator| match kernel {
        // But for the type of the products, the text is that of the kernel for bf16, and these tiles take long.
        Kernel::FwdSm90(FwdSm90 { dtype: DType::F16, .. }) => 1,
        // Products and softmax are those of the kernel whose blocks are alone.
        Kernel::FwdSm90(config) if !config.is_alone() && !operator.is_of_copies() => 1,
        _ if operator.breaks_order() => usize::MAX,
        _ => SAMPLE,
    });
}

#[test]
#[ignore = "many minutes of one core, for the other places of the operators that are sampled"]
fn every_mutant_of_every_operator_is_caught() {
    assert_every_mutant_is_caught(|_, _| usize::MAX);
}

#[test]
fn every_instruction_that_an_operator_breaks_is_broken() {
    let kernels = KERNELS.iter().filter(|kernel| matches!(kernel, Kernel::FwdSm90(_))).count();
    for operator in Operator::ALL {
        let mutants = TEXTS.map(|ptx| Mutant::all(ptx, operator).len());
        let instructions = TEXTS.map(|ptx| {
            let starts = operator.instructions().iter().flat_map(|word| ptx.match_indices(word));
            let starts = starts.filter(|(at, _)| ptx[..*at].ends_with(char::is_whitespace));
            starts.count() - spared(ptx, operator).len()
        });
        assert_eq!(mutants, instructions, "{operator:?}");
        assert!(mutants.iter().sum::<usize>() >= kernels, "{operator:?}");
    }
}

#[test]
fn a_mutant_differs_from_its_kernel_in_one_line() {
    for (operator, ptx) in Operator::ALL.into_iter().flat_map(|operator| TEXTS.map(|ptx| (operator, ptx))) {
        let Some(mutant) = Mutant::all(ptx, operator).into_iter().next() else { continue };
        let (text, line) = (mutant.of(ptx), mutant.line as usize - 1);
        let changed = ptx.lines().zip(text.lines()).enumerate().filter(|(_, (old, new))| old != new);
        assert_eq!(changed.map(|(line, _)| line).collect::<Vec<_>>(), [line], "{operator:?}");
        assert_eq!(text.lines().count(), ptx.lines().count());
    }
}
