//! `evo-sdpa run`: attention on the tensors of a file, or on the acceptance shapes.

use super::device::{Device, DeviceArgs};
use super::file::{self, Answers, File};
use super::findings;
use super::fp8::{self, QuantizeArgs};
use super::heading::Heading;
use super::table::Table;
use super::{Mask, parse_mask};
use anyhow::{Context, Result};
use clap::Args;
use evo_sdpa::compare::{Comparison, compare_lse, compare_out};
use evo_sdpa::shapes::ACCEPTANCE;
use evo_sdpa::verify::{Case, Expected, Inputs, Quantization, Verdict};
use evo_sdpa::{Element, cpu, sim, with_element};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// What `--quantize` does here.
const QUANTIZE: &str = "Round q, k, v and the probabilities to this type, and compare with the answer without that: \
     on the CPU in f64, and on the GPU or in the simulator where --device says so";

/// Compute attention on tensors from a file, or on the acceptance shapes
///
/// The file holds q, k and v as [batch, heads, seq, head_dim] in f16, bf16 or f32, and may hold kv_len, the number of
/// valid keys of each sequence. Where it also holds out or lse (out_causal and lse_causal for a causal run), the answer
/// is compared with them, and a wrong one gives exit code 1, as does a defect that the simulator finds. Without a file,
/// seeded tensors of the acceptance shapes are computed and compared with a reference in f64. With --quantize the answer
/// in e4m3, as the CPU predicts it and, with --device gpu or sim, as the device computes it from its own quantised
/// tensors, is compared with the one without it, head by head; a device that is further off than twice what is
/// predicted and 1e-2 gives exit code 1.
#[derive(Args)]
#[command(mut_arg("quantize", |arg| arg.requires("input").help(QUANTIZE)))]
pub struct Run {
    /// File with the tensors q, k and v
    #[arg(value_name = "INPUT.safetensors")]
    input: Option<PathBuf>,
    /// Write the tensors out and lse to this file
    #[arg(long, value_name = "OUT.safetensors", requires = "input", conflicts_with = "quantize")]
    out: Option<PathBuf>,
    /// Mask: none, bottom-right, top-left or an offset
    #[arg(long, default_value = "none", requires = "input", allow_hyphen_values = true, value_parser = parse_mask)]
    causal: Mask,
    /// Factor on the scores; by default the file's metadata `scale`, else 1/sqrt(head_dim)
    #[arg(long, requires = "input", allow_hyphen_values = true)]
    scale: Option<f32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quantize: QuantizeArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Run {
    /// Computes and reports. `Ok(false)` when an answer is not the expected one, or the simulator found a defect.
    pub fn run(self, out: &mut impl Write) -> Result<bool> {
        let Some(path) = &self.input else { return self.run_acceptance(out) };
        let name = &path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
        let file = File::parse(&bytes).with_context(|| name.clone())?;
        if let Some(quantization) = self.quantize.quantization() {
            let device = self.device.open_or_cpu("the error of e4m3")?;
            let report = with_element!(file.dtype(), T => self.quantize_file::<T>(name, &file, &quantization, &device))
                .with_context(|| name.clone())?;
            return report.write(self.json, out).map(|()| report.right());
        }
        let device = self.device.open()?;
        let report =
            with_element!(file.dtype(), T => self.run_file::<T>(name, &file, &device)).with_context(|| name.clone())?;
        if self.json {
            writeln!(out, "{}", report.json())?;
        } else {
            report.write(out)?;
        }
        Ok(report.right() != Some(false))
    }

    fn run_file<T: Element>(&self, name: &str, file: &File, device: &Device) -> Result<Report> {
        let (scale, scale_source) = self.scale(file);
        let inputs = file.inputs::<T>(self.causal, scale)?;
        let shape = inputs.q_layout.shape();
        let expected = file.answers(self.causal.is_some(), shape)?;
        let answer = device.attention(&inputs, self.device.kernel)?;
        if let Some(path) = &self.out {
            file::write(path, shape, &answer.output.out, &answer.output.lse)?;
        }
        Ok(Report {
            heading: Heading::new(name, &inputs, scale_source, &device.about),
            kernel: answer.plan.map(|plan| plan.kernel.to_string()),
            plan: answer.plan.map(|plan| plan.to_string()),
            seconds: answer.seconds,
            kernel_seconds: device.kernel_seconds(&inputs, self.device.kernel)?,
            out: compare_file_out(&expected, &inputs, &answer.output)?,
            lse: expected.lse.map(|exact| compare_lse(&answer.output.lse, &exact)),
            simulation: answer.report,
        })
    }

    fn quantize_file<T: Element>(
        &self,
        name: &str,
        file: &File,
        quantization: &Quantization,
        device: &Device,
    ) -> Result<fp8::Report> {
        let (scale, scale_source) = self.scale(file);
        let inputs = file.inputs::<T>(self.causal, scale)?;
        let heading = Heading::new(name, &inputs, scale_source, &device.about);
        fp8::Report::new(heading, &inputs, quantization, device, self.device.kernel)
    }

    /// The factor on the scores, and where it comes from.
    fn scale(&self, file: &File) -> (Option<f32>, &'static str) {
        match (self.scale, file.scale()) {
            (Some(scale), _) => (Some(scale), "--scale"),
            (None, Some(scale)) => (Some(scale), "metadata of the file"),
            (None, None) => (None, "1/sqrt(head_dim)"),
        }
    }

    fn run_acceptance(&self, out: &mut impl Write) -> Result<bool> {
        let device = self.device.open()?;
        let header = ["problem", "kernel", "call ms", "kernel us", "max error", "relative", "rows checked", "verdict"];
        let mut table = Table::new(&header);
        let mut objects = Vec::new();
        let mut defects = Vec::new();
        let (mut right, mut left_out) = (true, 0);
        for (shape, causal) in ACCEPTANCE {
            let case = Case { causal, ..Case::new(shape) };
            if device.work(&case.problem(), self.device.kernel)? > device.max_work() {
                left_out += 1;
                continue;
            }
            let Shape { kernel, seconds, kernel_seconds, checked_part, verdict, simulation } =
                with_element!(case.dtype, T => self.run_shape::<T>(&case, &device)?);
            let defect = simulation.as_ref().and_then(findings::summary);
            let passes = verdict.passes() && defect.is_none();
            right &= passes;
            objects.push(json!({
                "problem": case.problem().to_string(),
                "kernel": kernel,
                "seconds": seconds,
                "kernel_seconds": kernel_seconds,
                "rows_checked": checked_part,
                "out": comparison_json(&verdict.out),
                "lse": comparison_json(&verdict.lse),
                "findings": simulation.as_ref().map(findings::json),
                "right": passes,
            }));
            table.row([
                case.problem().to_string(),
                kernel,
                format!("{:.3}", seconds * 1e3),
                kernel_seconds.map_or("-".into(), |seconds| format!("{:.2}", seconds * 1e6)),
                format!("{:.2e}", verdict.out.max_abs),
                format!("{:.2e}", verdict.out.relative),
                format!("{:.1} %", checked_part * 100.0),
                word(passes).into(),
            ]);
            defects.extend(defect);
        }
        if self.json {
            let object = json!({ "device": device.about, "right": right, "shapes": objects, "left_out": left_out });
            writeln!(out, "{object}")?;
            return Ok(right);
        }
        writeln!(out, "device   {}\n", device.about)?;
        table.write(out)?;
        for defect in defects {
            writeln!(out, "{defect}")?;
        }
        if left_out > 0 {
            let max = device.max_work();
            writeln!(
                out,
                "{left_out} shapes left out: each would take the simulator over {max} instructions of warps"
            )?;
        }
        writeln!(
            out,
            "\nSeeded normal numbers against a reference in f64; of a large problem, each head answers for its"
        )?;
        writeln!(out, "own share of the rows. A call's time is wall time, with its copies where there are any.")?;
        Ok(right)
    }

    fn run_shape<T: Element>(&self, case: &Case, device: &Device) -> Result<Shape> {
        let inputs = Inputs::<T>::generate(case);
        let expected = Expected::compute(&inputs)?;
        let answer = device.attention(&inputs, self.device.kernel)?;
        Ok(Shape {
            kernel: answer.plan.map_or("cpu".into(), |plan| plan.kernel.to_string()),
            seconds: answer.seconds,
            kernel_seconds: device.kernel_seconds(&inputs, self.device.kernel)?,
            checked_part: expected.checked_part(),
            verdict: expected.check(&answer.output),
            simulation: answer.report,
        })
    }
}

/// The result on one acceptance shape.
struct Shape {
    kernel: String,
    seconds: f64,
    kernel_seconds: Option<f64>,
    checked_part: f64,
    verdict: Verdict,
    simulation: Option<sim::Report>,
}

/// Compares with the file's answer; the allowance comes from a plain implementation on the file's inputs.
fn compare_file_out<T: Element>(
    expected: &Answers,
    inputs: &Inputs<T>,
    got: &cpu::Output<T>,
) -> Result<Option<Comparison>> {
    let Some(exact) = &expected.out else { return Ok(None) };
    let [q, k, v] = inputs.views()?;
    let plain = cpu::reference::plain(q, k, v, &inputs.options())?;
    let [_, _, q_len, head_dim] = inputs.q_layout.shape();
    Ok(Some(compare_out(&got.out, exact, &plain, q_len * head_dim)))
}

/// All that is said about a run on a file.
struct Report {
    heading: Heading,
    kernel: Option<String>,
    plan: Option<String>,
    seconds: f64,
    kernel_seconds: Option<f64>,
    out: Option<Comparison>,
    lse: Option<Comparison>,
    simulation: Option<sim::Report>,
}

impl Report {
    /// Whether the answer is the expected one, where the file says what to expect. An answer of a kernel with a defect
    /// never is.
    fn right(&self) -> Option<bool> {
        let verdicts = [&self.out, &self.lse].into_iter().flatten().map(Comparison::passes);
        let defect = self.simulation.as_ref().filter(|report| !report.is_clean()).map(|_| false);
        verdicts.chain(defect).reduce(|a, b| a && b)
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        self.heading.write(out)?;
        writeln!(out, "kernel   {}", self.kernel.as_deref().unwrap_or("cpu"))?;
        writeln!(out, "plan     {}", self.plan.as_deref().unwrap_or("none, the CPU needs none"))?;
        writeln!(
            out,
            "time     {:.3} ms, wall time of one call{}",
            self.seconds * 1e3,
            match (&self.kernel_seconds, &self.simulation) {
                (Some(_), _) => " with its copies",
                (None, Some(_)) => " in the simulator",
                (None, None) => "",
            }
        )?;
        if let Some(seconds) = self.kernel_seconds {
            writeln!(out, "         {:.2} us, the kernel alone, median", seconds * 1e6)?;
        }
        for (name, comparison) in [("out", &self.out), ("lse", &self.lse)] {
            match comparison {
                Some(c) => writeln!(out, "{name}      {c}")?,
                None => writeln!(out, "{name}      not compared, the file does not say what to expect")?,
            }
        }
        self.simulation.as_ref().map_or(Ok(()), |report| findings::write(report, "checks   ", out))
    }

    fn json(&self) -> Value {
        let mut object = self.heading.json();
        object["kernel"] = json!(self.kernel);
        object["plan"] = json!(self.plan);
        object["seconds"] = json!(self.seconds);
        object["kernel_seconds"] = json!(self.kernel_seconds);
        object["non_finite_inputs"] = json!(self.heading.non_finite);
        object["out"] = json!(self.out.as_ref().map(comparison_json));
        object["lse"] = json!(self.lse.as_ref().map(comparison_json));
        object["findings"] = json!(self.simulation.as_ref().map(findings::json));
        object["right"] = json!(self.right());
        object
    }
}

fn comparison_json(comparison: &Comparison) -> Value {
    json!({
        "max_error": comparison.max_abs,
        "relative_error": comparison.relative,
        "right": comparison.passes(),
    })
}

fn word(right: bool) -> &'static str {
    if right { "right" } else { "WRONG" }
}
