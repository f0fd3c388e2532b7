//! The error of e4m3 by operands, scales and kinds of tensors.

use super::super::file::File;
use super::super::table::Table;
use super::super::verify::RealCall;
use super::{scales_name, total};
use anyhow::Result;
use evo_sdpa::half::bf16;
use evo_sdpa::quantize::Deviation;
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{Case, Inputs, Operand, Quantization, Special, Unquantized, within_rounding};
use evo_sdpa::{Element, Fp8, ScaleBlocks, with_element};
use std::io::Write;

/// Seeds of each case without --quick.
const SEEDS: u64 = 3;
/// Longest sequences of the quick part.
const QUICK_LEN: usize = 512;

/// A scale for each head, and all operands rounded.
const PER_HEAD: Quantization = Quantization { fp8: Fp8::uniform(ScaleBlocks::Head), subtract_mean: false, only: None };
/// Scales from the coarsest to the finest.
const SCALES: [Quantization; 4] = [
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Tensor), ..PER_HEAD },
    PER_HEAD,
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Rows(64)), ..PER_HEAD },
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Rows(64)), subtract_mean: true, ..PER_HEAD },
];

/// Measures and reports. `Ok(false)` when an error is larger than rounding explains.
pub fn verify(quick: bool, seeds: Option<u64>, real: &[RealCall], out: &mut impl Write) -> Result<bool> {
    let seeds = seeds.unwrap_or(if quick { 1 } else { SEEDS });
    let shapes: Vec<_> = ACCEPTANCE.into_iter().filter(|(shape, _)| !quick || shape[3] <= QUICK_LEN).collect();
    let mut normal = Tallies::new(true);
    for (shape, causal) in &shapes {
        for seed in 1..=seeds {
            normal.add(&Inputs::<bf16>::generate(&Case { causal: *causal, seed, ..Case::new(*shape) }))?;
        }
    }
    writeln!(out, "\nnormal numbers, {} acceptance shapes, seeds 1 to {seeds}", shapes.len())?;
    normal.write(out)?;
    let mut minilm = Tallies::new(false);
    for (_, bytes, causal) in real {
        let file = File::parse(bytes)?;
        with_element!(file.dtype(), T => minilm.add(&file.inputs::<T>(*causal, file.scale())?)?);
    }
    writeln!(out, "\nqueries, keys and values of a small language model, {} calls", real.len())?;
    minilm.write(out)?;
    let mut specials = Specials::new();
    for special in Special::ALL {
        specials.add(special, seeds)?;
    }
    writeln!(out, "\nspecial tensors, seeds 1 to {seeds}, relative errors")?;
    specials.table.write(out)?;
    let calls = normal.calls + minilm.calls + specials.calls;
    let wrong = normal.wrong + minilm.wrong + specials.wrong;
    match wrong {
        0 => writeln!(out, "\nall {calls} answers are as close as rounding to e4m3 explains")?,
        _ => writeln!(out, "\n{wrong} of {calls} answers are WRONG: further off than rounding to e4m3 explains")?,
    }
    writeln!(out, "outside: elements that are not within 5e-2 + 5e-2 |exact| of the answer without e4m3, in f64")?;
    Ok(wrong == 0)
}

/// What a way to quantise did to some calls.
struct Tally {
    quantization: Quantization,
    least: f64,
    largest: f64,
    of_a_head: f64,
    total: Deviation,
}

/// The ways to quantise, each with its errors.
struct Tallies {
    rows: Vec<Tally>,
    /// Whether heads are alike, so that one scale serves them all.
    alike: bool,
    calls: usize,
    wrong: usize,
}

impl Tallies {
    fn new(alike: bool) -> Self {
        let alone = Operand::ALL.map(|operand| Quantization { only: Some(operand), ..PER_HEAD });
        let tally = |quantization| Tally {
            quantization,
            least: f64::INFINITY,
            largest: 0.0,
            of_a_head: 0.0,
            total: Deviation::default(),
        };
        Self { rows: alone.into_iter().chain(SCALES).map(tally).collect(), alike, calls: 0, wrong: 0 }
    }

    fn add<T: Element>(&mut self, inputs: &Inputs<T>) -> Result<()> {
        let exact = Unquantized::compute(inputs)?;
        for tally in &mut self.rows {
            let heads = exact.deviations(&tally.quantization)?;
            let all = total(&heads);
            self.calls += 1;
            let may_be_far = !self.alike && tally.quantization.fp8.q == ScaleBlocks::Tensor;
            let right = if may_be_far { all.max_abs.is_finite() } else { within_rounding(&heads) };
            self.wrong += usize::from(!right);
            tally.least = tally.least.min(all.relative());
            tally.largest = tally.largest.max(all.relative());
            tally.of_a_head = heads.iter().map(Deviation::relative).fold(tally.of_a_head, f64::max);
            tally.total = tally.total + all;
        }
        Ok(())
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        let header =
            ["rounded", "a scale for each", "relative", "up to", "of a head", "cosine", "max error", "outside"];
        let mut table = Table::new(&header);
        for Tally { quantization, least, largest, of_a_head, total } in &self.rows {
            table.row([
                quantization.only.map_or("all four", Operand::name).into(),
                scales_name(quantization),
                format!("{least:.2e}"),
                format!("{largest:.2e}"),
                format!("{of_a_head:.2e}"),
                format!("{:.5}", total.cosine()),
                format!("{:.2e}", total.max_abs),
                format!("{:.0e}", total.outside as f64 / total.elements as f64),
            ]);
        }
        Ok(table.write(out)?)
    }
}

/// Tensors that a quantiser may get wrong.
struct Specials {
    table: Table,
    calls: usize,
    wrong: usize,
}

impl Specials {
    fn new() -> Self {
        let header = ["tensors", "a scale for each", "head 0", "head 1", "head 2", "head 3", "verdict"];
        Self { table: Table::new(&header), calls: 0, wrong: 0 }
    }

    /// Relative errors of the heads, the largest of all seeds.
    fn add(&mut self, special: Special, seeds: u64) -> Result<()> {
        for quantization in &SCALES {
            let (mut heads, limit) = ([0.0f64; 4], limit(special, quantization));
            for seed in 1..=seeds {
                let inputs = special.inputs(seed);
                let deviations = Unquantized::compute(&inputs)?.deviations(quantization)?;
                for (head, deviation) in heads.iter_mut().zip(&deviations) {
                    *head = if deviation.max_abs.is_finite() { head.max(deviation.relative()) } else { f64::INFINITY };
                }
            }
            self.calls += seeds as usize;
            // Neither NaN nor infinity is below infinity.
            let right = heads.iter().all(|&head| head <= limit.unwrap_or(f64::MAX));
            self.wrong += usize::from(!right);
            let [a, b, c, d] = heads.map(|relative| format!("{relative:.1e}"));
            let verdict = match limit {
                _ if !right => "WRONG",
                None => "finite",
                Some(_) => "right",
            };
            self.table.row([special.name().into(), scales_name(quantization), a, b, c, d, verdict.into()]);
        }
        Ok(())
    }
}

/// The largest relative error of a head, if that can be said. A few hundredths are what rounding costs; an outlier adds
/// rows that one key decides, whose error does not average out. Two combinations cannot do better than to stay finite:
/// small numbers that share a scale with large ones, and keys less a mean that an outlier has moved away from them.
fn limit(special: Special, quantization: &Quantization) -> Option<f64> {
    match special {
        Special::Mixed if quantization.fp8.v == ScaleBlocks::Tensor => None,
        Special::Outlier if quantization.subtract_mean => None,
        _ => Some(9e-2),
    }
}
