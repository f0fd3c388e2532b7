//! The error of e4m3 by operands, scales and kinds of tensors.

use super::super::device::Device;
use super::super::file::File;
use super::super::findings;
use super::super::table::Table;
use super::super::verify::RealCall;
use super::{scales_name, total};
use anyhow::Result;
use evo_sdpa::half::bf16;
use evo_sdpa::quantize::Deviation;
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{
    Case, Inputs, Measured, Operand, Predicted, Quantization, Special, Unquantized, within_rounding,
};
use evo_sdpa::{Element, Fp8, Kernel, ScaleBlocks, with_element};
use std::io::Write;

/// Longest sequences of the quick part.
const QUICK_LEN: usize = 512;
/// Defects that are named one by one.
const NAMED_DEFECTS: usize = 10;

/// A scale for each head, and all operands rounded.
const PER_HEAD: Quantization = Quantization { fp8: Fp8::uniform(ScaleBlocks::Head), subtract_mean: false, only: None };
/// Scales from the coarsest to the finest.
const SCALES: [Quantization; 4] = [
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Tensor), ..PER_HEAD },
    PER_HEAD,
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Rows(64)), ..PER_HEAD },
    Quantization { fp8: Fp8::uniform(ScaleBlocks::Rows(64)), subtract_mean: true, ..PER_HEAD },
];

/// What is measured, and on which device.
pub struct Sweep<'a> {
    device: &'a Device,
    kernel: Option<Kernel>,
    /// Answers of the CPU and of the device, and how many are further off than rounding explains.
    calls: usize,
    wrong: usize,
    device_calls: usize,
    device_wrong: usize,
    /// Defects that the simulator found.
    defects: Vec<String>,
}

impl<'a> Sweep<'a> {
    /// On this device, with the given kernel or the device's own choice.
    pub fn new(device: &'a Device, kernel: Option<Kernel>) -> Self {
        Self { device, kernel, calls: 0, wrong: 0, device_calls: 0, device_wrong: 0, defects: vec![] }
    }

    /// Measures and reports. `Ok(false)` when an error is larger than rounding explains.
    pub fn run(mut self, quick: bool, seeds: u64, real: &[RealCall], out: &mut impl Write) -> Result<bool> {
        let shapes: Vec<_> = ACCEPTANCE.into_iter().filter(|(shape, _)| !quick || shape[3] <= QUICK_LEN).collect();
        let mut normal = Tallies::new(true);
        for (shape, causal) in &shapes {
            for seed in 1..=seeds {
                let inputs = Inputs::<bf16>::generate(&Case { causal: *causal, seed, ..Case::new(*shape) });
                self.add(&mut normal, &inputs)?;
            }
        }
        writeln!(out, "\nnormal numbers, {} acceptance shapes, seeds 1 to {seeds}", shapes.len())?;
        normal.write(out)?;
        let mut minilm = Tallies::new(false);
        for (_, bytes, causal) in real {
            let file = File::parse(bytes)?;
            with_element!(file.dtype(), T => self.add(&mut minilm, &file.inputs::<T>(*causal, file.scale())?)?);
        }
        writeln!(out, "\nqueries, keys and values of a small language model, {} calls", real.len())?;
        minilm.write(out)?;
        let header = ["tensors", "a scale for each", "head 0", "head 1", "head 2", "head 3", "verdict"];
        let mut specials = Table::new(&header);
        for special in Special::ALL {
            self.add_special(special, seeds, &mut specials)?;
        }
        writeln!(out, "\nspecial tensors, seeds 1 to {seeds}, relative errors")?;
        specials.write(out)?;
        self.write(out)?;
        Ok(self.wrong + self.device_wrong == 0)
    }

    /// Measures a call in all ways.
    fn add<T: Element>(&mut self, tallies: &mut Tallies, inputs: &Inputs<T>) -> Result<()> {
        let exact = Unquantized::compute(inputs)?;
        for tally in &mut tallies.rows {
            let predicted = exact.predict(&tally.quantization)?;
            let all = total(&predicted.heads);
            let may_be_far = !tallies.alike && tally.quantization.fp8.q == ScaleBlocks::Tensor;
            let right = if may_be_far { all.max_abs.is_finite() } else { within_rounding(&predicted.heads) };
            self.calls += 1;
            self.wrong += usize::from(!right);
            tally.add(&predicted.heads);
            if let Some(measured) = self.measure(inputs, &tally.quantization, &exact, &predicted)? {
                tally.add_device(&measured);
            }
        }
        Ok(())
    }

    /// Relative errors of the heads, the largest of all seeds.
    fn add_special(&mut self, special: Special, seeds: u64, table: &mut Table) -> Result<()> {
        for quantization in &SCALES {
            let (mut heads, limit) = ([0.0f64; 4], limit(special, quantization));
            let wrong_before = self.device_wrong;
            for seed in 1..=seeds {
                let inputs = special.inputs(seed);
                let exact = Unquantized::compute(&inputs)?;
                let predicted = exact.predict(quantization)?;
                for (head, deviation) in heads.iter_mut().zip(&predicted.heads) {
                    *head = if deviation.max_abs.is_finite() { head.max(deviation.relative()) } else { f64::INFINITY };
                }
                self.measure(&inputs, quantization, &exact, &predicted)?;
            }
            self.calls += seeds as usize;
            // Neither NaN nor infinity is below infinity.
            let right = heads.iter().all(|&head| head <= limit.unwrap_or(f64::MAX));
            self.wrong += usize::from(!right);
            let [a, b, c, d] = heads.map(|relative| format!("{relative:.1e}"));
            let verdict = match limit {
                _ if !right => "WRONG",
                _ if self.device_wrong > wrong_before => "device WRONG",
                None => "finite",
                Some(_) => "right",
            };
            table.row([special.name().into(), scales_name(quantization), a, b, c, d, verdict.into()]);
        }
        Ok(())
    }

    /// The device's answer to a quantised call; none on the CPU, and where operands are rounded that a device has no
    /// way to leave out.
    fn measure<T: Element>(
        &mut self,
        inputs: &Inputs<T>,
        quantization: &Quantization,
        exact: &Unquantized<T>,
        predicted: &Predicted,
    ) -> Result<Option<Measured>> {
        if quantization.only.is_some() {
            return Ok(None);
        }
        let Some(answer) = self.device.quantized_attention(inputs, quantization, self.kernel)? else { return Ok(None) };
        let measured = exact.measure(predicted, &answer.out);
        let defects: Vec<_> = answer.reports.iter().filter_map(findings::summary).collect();
        self.device_calls += 1;
        self.device_wrong += usize::from(!measured.within(predicted) || !defects.is_empty());
        self.defects.extend(defects);
        Ok(Some(measured))
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        let Self { calls, wrong, device_calls, device_wrong, defects, .. } = self;
        match wrong {
            0 => writeln!(out, "\nall {calls} answers are as close as rounding to e4m3 explains")?,
            _ => writeln!(out, "\n{wrong} of {calls} answers are WRONG: further off than rounding to e4m3 explains")?,
        }
        match (device_calls, device_wrong) {
            (0, _) => {}
            (_, 0) => writeln!(out, "all {device_calls} answers of the device are as close as is predicted")?,
            _ => writeln!(out, "{device_wrong} of {device_calls} answers of the device are WRONG")?,
        }
        defects.iter().take(NAMED_DEFECTS).try_for_each(|defect| writeln!(out, "{defect}"))?;
        writeln!(out, "outside: elements that are not within 5e-2 + 5e-2 |exact| of the answer without e4m3, in f64")?;
        if *device_calls > 0 {
            writeln!(
                out,
                "device, device head: largest relative errors of its answers and of their heads, which may be"
            )?;
            writeln!(
                out,
                "twice the predicted ones and 1e-2; apart: largest distance of its answers from predicted ones"
            )?;
        }
        Ok(())
    }
}

/// What a way to quantise did to some calls.
struct Tally {
    quantization: Quantization,
    least: f64,
    largest: f64,
    of_a_head: f64,
    total: Deviation,
    /// On the device: the largest relative error of a call and of a head, and distance of a call from the prediction.
    device: Option<[f64; 3]>,
}

impl Tally {
    fn add(&mut self, heads: &[Deviation]) {
        let all = total(heads);
        self.least = self.least.min(all.relative());
        self.largest = self.largest.max(all.relative());
        self.of_a_head = largest_relative(heads).max(self.of_a_head);
        self.total = self.total + all;
    }

    fn add_device(&mut self, Measured { heads, from_prediction }: &Measured) {
        let of_call = [total(heads).relative(), largest_relative(heads), total(from_prediction).relative()];
        let so_far = self.device.get_or_insert_default();
        so_far.iter_mut().zip(of_call).for_each(|(largest, x)| *largest = largest.max(x));
    }
}

fn largest_relative(heads: &[Deviation]) -> f64 {
    heads.iter().map(Deviation::relative).fold(0.0, f64::max)
}

/// The ways to quantise, each with its errors.
struct Tallies {
    rows: Vec<Tally>,
    /// Whether heads are alike, so that one scale serves them all.
    alike: bool,
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
            device: None,
        };
        Self { rows: alone.into_iter().chain(SCALES).map(tally).collect(), alike }
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        let on_device = self.rows.iter().any(|tally| tally.device.is_some());
        let mut header =
            vec!["rounded", "a scale for each", "relative", "up to", "of a head", "cosine", "max error", "outside"];
        if on_device {
            header.extend(["device", "device head", "apart"]);
        }
        let mut table = Table::new(&header);
        for Tally { quantization, least, largest, of_a_head, total, device } in &self.rows {
            let predicted = [
                quantization.only.map_or("all four", Operand::name).into(),
                scales_name(quantization),
                format!("{least:.2e}"),
                format!("{largest:.2e}"),
                format!("{of_a_head:.2e}"),
                format!("{:.5}", total.cosine()),
                format!("{:.2e}", total.max_abs),
                format!("{:.0e}", total.outside as f64 / total.elements as f64),
            ];
            let measured = device.map_or(["-"; 3].map(String::from), |of| of.map(|x| format!("{x:.2e}")));
            table.row(predicted.into_iter().chain(measured.into_iter().filter(|_| on_device)));
        }
        Ok(table.write(out)?)
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
