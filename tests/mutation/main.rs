//! The simulator finds every defect that is planted into the kernels: each is broken in one place after the other, in the
//! compiled text, and some check has to object or some answer to be wrong.

use mutants::{Mutant, Operator, mutants, single_entry};
use evo_sdpa::sim::ptx_sim::{self, Delivery, Reconvergence, WarpOrder};
use evo_sdpa::sim::work;
use evo_sdpa::verify::{Case, Expected, Inputs};
use evo_sdpa::{Causal, DeviceSpec, Element, KERNELS, Kernel, PTX_SM80, Plan, Simulator, with_element};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

mod mutants;

fn cases(kernel: Kernel) -> Vec<Case> {
    let Kernel::FwdSm80(config) = kernel else {
        let head_dim = 24;
        return vec![
            Case { dtype: kernel.dtype(), ..Case::new([1, 1, 1, 3, 37, head_dim]) },
            Case { dtype: kernel.dtype(), kv_lens: true, causal: Some(Causal::BottomRight), ..Case::new([2, 2, 1, 3, 37, head_dim]) },
        ];
    };
    let (q, step, d) = (config.tile_q as usize, config.step() as usize, config.head_dim as usize);
    let case = |q_len, kv_len, d| Case { dtype: kernel.dtype(), ..Case::new([1, 1, 1, q_len, kv_len, d]) };
    let stages = config.stages as usize;
    vec![
        case(q - 3, 0, d),
        case(q - 3, step - 5, d),
        case(q - 3, (stages + 1) * step + 5, d),
        Case { causal: Some(Causal::BottomRight), kv_lens: true, ..Case::new([2, 2, 1, q + 3, 2 * step - 3, d - 8]) },
    ]
}

struct Trial<T> {
    case: Case,
    inputs: Inputs<T>,
    expected: Expected,
    executed: HashSet<u32>,
    max: u64,
}

impl<T: Element> Trial<T> {
    fn run(&self, simulator: &Simulator, kernel: Kernel) -> Result<ptx_sim::Report, String> {
        let [q, k, v] = self.inputs.views().unwrap();
        let simulated = simulator.attention(q, k, v, &self.inputs.options(), Some(kernel)).unwrap();
        if let Some(finding) = simulated.report.findings.first() {
            return Err(format!("{}", finding.kind));
        }
        let verdict = self.expected.check(&simulated.output);
        if verdict.passes() { Ok(simulated.report) } else { Err("answer".into()) }
    }
}

fn modes() -> [ptx_sim::Options; 3] {
    let o = ptx_sim::Options::default();
    [o, ptx_sim::Options { delivery: Delivery::Immediate, warp_order: WarpOrder::Reverse, ..o },
     ptx_sim::Options { reconvergence: Reconvergence::Late, ..o }]
}

fn examine<T: Element>(kernel: Kernel, ops: &[Operator], stat: &mut BTreeMap<(Operator, String), u32>) {
    let ptx = single_entry(PTX_SM80, &kernel.to_string());
    let t0 = Instant::now();
    let good = Simulator::new(&ptx).unwrap().with_spec(DeviceSpec::H200);
    let parse = t0.elapsed();
    let mut times = vec![];
    let trials: Vec<_> = cases(kernel).into_iter().map(|case| {
        let case = Case { dtype: kernel.dtype(), ..case };
        let inputs = Inputs::<T>::generate(&case);
        let expected = Expected::compute(&inputs).unwrap();
        let plan = Plan::with_kernel(&case.problem(), &DeviceSpec::H200, kernel).unwrap();
        let mut t = Trial { case, inputs, expected, executed: HashSet::new(), max: 10 * work(&plan).max(10_000) };
        let t0 = Instant::now();
        let report = t.run(&good, kernel).unwrap_or_else(|e| panic!("{kernel} {}: {e}", t.case));
        times.push(t0.elapsed());
        t.executed = report.lines.iter().map(|l| l.line).collect();
        t
    }).collect();
    let muts: Vec<Mutant> = mutants(&ptx, ops);
    let (mut tp, mut tr) = (Duration::ZERO, Duration::ZERO);
    let mut survivors = vec![];
    for mutant in &muts {
        let t0 = Instant::now();
        let mut sim = Simulator::new(&mutant.of(&ptx)).unwrap().with_spec(DeviceSpec::H200);
        tp += t0.elapsed();
        let t0 = Instant::now();
        let mut out = None;
        'o: for (i, mode) in modes().into_iter().enumerate() {
            for (j, t) in trials.iter().enumerate().filter(|(_, t)| t.executed.contains(&mutant.line())) {
                sim = sim.with_options(ptx_sim::Options { max_instructions: t.max, ..mode });
                if let Err(e) = t.run(&sim, kernel) { out = Some(format!("{e}/mode{i}/case{j}")); break 'o; }
            }
        }
        tr += t0.elapsed();
        let key = out.clone().unwrap_or("SURVIVED".into());
        if out.is_none() {
            survivors.push(format!("{mutant} was: {} executed in {:?}", ptx.lines().nth(mutant.line() as usize - 1).unwrap().trim(), trials.iter().map(|t| t.executed.contains(&mutant.line())).collect::<Vec<_>>()));
        }
        *stat.entry((mutant.operator, key)).or_default() += 1;
    }
    println!("{kernel}: {} mutants, parse {parse:?}, cases {times:?}; all parse {tp:?} run {tr:?}", muts.len());
    for s in survivors { println!("   SURVIVED {kernel} {s}"); }
}

#[test]
fn every_mutant_is_caught() {
    let ops: Vec<Operator> = Operator::ALL.into_iter().filter(|o| std::env::var("OPS").is_ok_and(|v| v.contains(&format!("{o:?}")))).collect();
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut stat = BTreeMap::new();
    for &kernel in KERNELS.iter().filter(|k| k.to_string().contains(&only)) {
        with_element!(kernel.dtype(), T => examine::<T>(kernel, &ops, &mut stat));
    }
    for ((o, k), n) in stat { println!("{o:?} {k} {n}"); }
}
