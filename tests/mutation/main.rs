//! Defects that are planted into the kernels are found. Each kernel is broken in one place of its compiled text after
//! the other; then a check of the simulator has to object, or the answer has to be wrong.
//!
//! No mutant of these operators is equivalent to its kernel: one that survives is a hole in the checks, too kind a
//! problem, or an instruction that the kernel can do without. `cargo test --test mutation -- --nocapture` prints how
//! many there were; with `--include-ignored` also those of every place of every operator.

use evo_sdpa::sim::ptx_sim::{Kind, Options};
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{Causal, Decode, DeviceSpec, Element, KERNELS, Kernel, Layout, PTX_SM80, Simulator, with_element};
use mutants::{Mutant, Operator, single_entry};
use paged::Paged;
use rayon::prelude::*;
use std::collections::HashSet;

mod mutants;
#[path = "../paged/mod.rs"]
mod paged;

/// Far more than any case needs, and soon over for a kernel that does not end.
const MAX_INSTRUCTIONS: u64 = 20_000_000;

/// Places in a kernel for an operator that does not break the order of accesses.
const SAMPLE: usize = 6;

/// Rows of a page, where keys are in pages.
const PAGE_ROWS: u32 = 16;

/// Few problems, the quickest first, that between them need every instruction of a kernel that is ever broken.
fn cases(kernel: Kernel) -> Vec<Case> {
    let case = |q_len: u32, kv_len, head_dim: u32| {
        let shape = [1, 1, 1, q_len, kv_len, head_dim].map(|n| n as usize);
        Case { dtype: kernel.dtype(), ..Case::new(shape) }
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
            let [none, one_step, more] = [0, step - 5, kv_len].map(|kv_len| case(q_len, kv_len, config.head_dim));
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
        Kernel::FwdSm90(_) => Vec::new(),
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

fn simulator(ptx: &str) -> Simulator {
    let options = Options { max_instructions: MAX_INSTRUCTIONS, ..Options::default() };
    let spec = DeviceSpec { sm_count: 1, ..DeviceSpec::H200 };
    Simulator::new(&[ptx]).unwrap().with_spec(spec).with_options(options)
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
}

/// A problem, the right answer to it, and what the unharmed kernel executes on it.
struct Trial<T> {
    kernel: Kernel,
    tensors: Tensors<T>,
    expected: Expected,
    executed: HashSet<u32>,
}

impl<T: Element> Trial<T> {
    fn new(kernel: Kernel, tensors: Tensors<T>, unharmed: &Simulator) -> Self {
        let (Tensors::Contiguous(inputs) | Tensors::Paged(Paged { inputs, .. })) = &tensors;
        let problem = inputs.problem();
        let expected = Expected::compute(inputs).unwrap();
        let mut trial = Self { kernel, tensors, expected, executed: HashSet::new() };
        trial.executed = trial.run(unharmed).unwrap_or_else(|defect| panic!("{kernel} {problem}: {defect:?}"));
        trial
    }

    /// The lines of the text that are executed, or what is wrong.
    fn run(&self, simulator: &Simulator) -> Result<HashSet<u32>, Defect> {
        let ([q, k, v], options) = match &self.tensors {
            Tensors::Contiguous(inputs) => (inputs.views().unwrap(), inputs.options()),
            Tensors::Paged(paged) => (paged.views(), paged.options(paged.inputs.splits.unwrap_or(1))),
        };
        let ran = simulator.attention(q, k, v, &options, Some(self.kernel)).unwrap();
        match ran.report.findings.first() {
            Some(finding) => Err(Defect::Found(finding.kind)),
            None if !self.expected.check(&ran.output).passes() => Err(Defect::WrongAnswer),
            None => Ok(ran.report.lines.iter().map(|line| line.line).collect()),
        }
    }
}

/// A mutant and what became of it.
struct Outcome {
    kernel: Kernel,
    mutant: Mutant,
    defect: Option<Defect>,
}

/// Tries the mutants of a kernel by the operators, each in at most `places(operator)` places.
fn try_mutants<T: Element>(kernel: Kernel, places: impl Fn(Operator) -> usize) -> Vec<Outcome> {
    let ptx = single_entry(PTX_SM80, &kernel.to_string());
    let unharmed = simulator(&ptx);
    let cases = cases(kernel);
    let mut tensors: Vec<_> = cases.iter().map(|case| Tensors::Contiguous(Inputs::<T>::generate(case))).collect();
    if let (Kernel::Decode(_), Some(last)) = (kernel, cases.last()) {
        tensors.push(Tensors::Paged(Paged::new(last, PAGE_ROWS as usize, Layout::bhsd)));
    }
    let trials: Vec<_> = tensors.into_iter().map(|tensors| Trial::new(kernel, tensors, &unharmed)).collect();
    let outcome = |mutant: Mutant| {
        let simulator = simulator(&mutant.of(&ptx));
        let concerned = trials.iter().filter(|trial| trial.executed.contains(&mutant.line));
        let defect = concerned.map(|trial| trial.run(&simulator)).find_map(Result::err);
        Outcome { kernel, mutant, defect }
    };
    let of_operator = |operator| {
        let mutants = Mutant::all(&ptx, operator);
        let every = mutants.len().div_ceil(places(operator)).max(1);
        mutants.into_iter().step_by(every)
    };
    Operator::ALL.into_iter().flat_map(of_operator).map(outcome).collect()
}

#[track_caller]
fn assert_every_mutant_is_caught(places: impl Fn(Operator) -> usize + Sync) {
    let of_kernel = |&kernel: &Kernel| with_element!(kernel.dtype(), T => try_mutants::<T>(kernel, &places));
    let kernels = KERNELS.par_iter().filter(|kernel| !matches!(kernel, Kernel::FwdSm90(_)));
    let outcomes: Vec<_> = kernels.flat_map_iter(of_kernel).collect();
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
    assert_every_mutant_is_caught(|operator| if operator.breaks_order() { usize::MAX } else { SAMPLE });
}

#[test]
#[ignore = "four minutes of one core, for the other places of the operators that are sampled"]
fn every_mutant_of_every_operator_is_caught() {
    assert_every_mutant_is_caught(|_| usize::MAX);
}

#[test]
fn every_instruction_that_an_operator_breaks_is_broken() {
    for operator in Operator::ALL {
        let mutants = Mutant::all(PTX_SM80, operator);
        let word = operator.instruction();
        let instructions = PTX_SM80.split([';', '{', '\n']).filter(|text| text.trim().starts_with(word));
        assert_eq!(mutants.len(), instructions.count(), "{operator:?}");
        assert!(mutants.len() >= KERNELS.len(), "{operator:?}");
    }
}

#[test]
fn a_mutant_differs_from_its_kernel_in_one_line() {
    for operator in Operator::ALL {
        let mutant = &Mutant::all(PTX_SM80, operator)[0];
        let (text, line) = (mutant.of(PTX_SM80), mutant.line as usize - 1);
        let changed = PTX_SM80.lines().zip(text.lines()).enumerate().filter(|(_, (old, new))| old != new);
        assert_eq!(changed.map(|(line, _)| line).collect::<Vec<_>>(), [line], "{operator:?}");
        assert_eq!(text.lines().count(), PTX_SM80.lines().count());
    }
}
