//! The error of one call, head by head.

use super::super::device::{Device, QuantizedAnswer};
use super::super::findings;
use super::super::heading::Heading;
use super::super::table::Table;
use super::{scales_name, total};
use anyhow::Result;
use evo_sdpa::quantize::Deviation;
use evo_sdpa::verify::{Inputs, Measured, Predicted, Quantization, Unquantized};
use evo_sdpa::{Element, Kernel};
use serde_json::{Value, json};
use std::io::Write;

/// All that is said about a call in e4m3.
pub struct Report {
    heading: Heading,
    heads_q: usize,
    quantization: Quantization,
    checked_part: f64,
    predicted: Predicted,
    measured: Option<(QuantizedAnswer, Measured)>,
}

impl Report {
    /// Computes the answer with and without quantisation, and that of the device.
    pub fn new<T: Element>(
        heading: Heading,
        inputs: &Inputs<T>,
        quantization: &Quantization,
        device: &Device,
        kernel: Option<Kernel>,
    ) -> Result<Self> {
        let exact = Unquantized::compute(inputs)?;
        let predicted = exact.predict(quantization)?;
        let answer = device.quantized_attention(inputs, quantization, kernel)?;
        let measured = answer.map(|answer| {
            let measured = exact.measure(&predicted, &answer.out);
            (answer, measured)
        });
        Ok(Self {
            heading,
            heads_q: inputs.problem().heads_q(),
            quantization: *quantization,
            checked_part: exact.checked_part(),
            predicted,
            measured,
        })
    }

    /// Whether the device, if there is one, is as near as the prediction explains, and the simulator found no defect.
    pub fn right(&self) -> bool {
        self.measured.as_ref().is_none_or(|(answer, measured)| {
            measured.within(&self.predicted) && answer.reports.iter().all(|report| report.is_clean())
        })
    }

    /// Writes what was found, as one JSON object or in words.
    pub fn write(&self, json: bool, out: &mut impl Write) -> Result<()> {
        if json {
            writeln!(out, "{}", self.json())?;
            return Ok(());
        }
        self.heading.write(out)?;
        if let Some((answer, _)) = &self.measured {
            writeln!(out, "kernel   {}", answer.kernel)?;
        }
        writeln!(out, "e4m3     q, k, v and probabilities; a scale for each {}", scales_name(&self.quantization))?;
        writeln!(
            out,
            "rows     {:.1} % of them compared with the answer without e4m3, in f64\n",
            self.checked_part * 100.0
        )?;
        self.table().write(out)?;
        let Some((answer, _)) = &self.measured else { return Ok(()) };
        writeln!(out, "\nmax error, relative, cosine: of the CPU's prediction; device: relative error of its answer;")?;
        writeln!(out, "apart: how far that is from the prediction")?;
        writeln!(out, "verdict  {}", if self.right() { "right" } else { "WRONG" })?;
        answer
            .reports
            .iter()
            .try_for_each(|report| findings::write(report, &format!("checks   {}: ", report.kernel), out))
    }

    /// Heads of sequences by their numbers, and all of them, each with what was predicted and measured.
    fn table(&self) -> Table {
        let mut header = vec!["batch", "head", "max error", "relative", "cosine"];
        if self.measured.is_some() {
            header.extend(["device", "apart"]);
        }
        let mut table = Table::new(&header);
        let mut row = |batch: String, head: String, deviation: &Deviation, measured: Option<[Deviation; 2]>| {
            let (max, relative) = (format!("{:.2e}", deviation.max_abs), format!("{:.2e}", deviation.relative()));
            let cells = [batch, head, max, relative, format!("{:.6}", deviation.cosine())];
            let measured = measured.into_iter().flatten().map(|deviation| format!("{:.2e}", deviation.relative()));
            table.row(cells.into_iter().chain(measured));
        };
        for (index, deviation) in self.predicted.heads.iter().enumerate() {
            let (batch, head) = ((index / self.heads_q).to_string(), (index % self.heads_q).to_string());
            row(batch, head, deviation, self.of_device(|heads| heads[index]));
        }
        row("all".into(), "all".into(), &total(&self.predicted.heads), self.of_device(total));
        table
    }

    /// The device's deviation from the exact answer and from the prediction.
    fn of_device(&self, of: impl Fn(&[Deviation]) -> Deviation) -> Option<[Deviation; 2]> {
        let (_, Measured { heads, from_prediction }) = self.measured.as_ref()?;
        Some([of(heads), of(from_prediction)])
    }

    fn json(&self) -> Value {
        let heads = self.predicted.heads.iter().enumerate().map(|(index, deviation)| {
            let mut head = figures(deviation, self.of_device(|heads| heads[index]));
            head["batch"] = (index / self.heads_q).into();
            head["head"] = (index % self.heads_q).into();
            head
        });
        let mut object = self.heading.json();
        object["dtype"] = "e4m3".into();
        object["scales"] = scales_name(&self.quantization).into();
        object["rows_checked"] = self.checked_part.into();
        object["heads"] = heads.collect();
        object["total"] = figures(&total(&self.predicted.heads), self.of_device(total));
        if let Some((answer, _)) = &self.measured {
            object["kernel"] = answer.kernel.to_string().into();
            object["right"] = self.right().into();
            object["findings"] = answer.reports.iter().map(findings::json).collect();
        }
        object
    }
}

/// Of the prediction, and of the device.
fn figures(predicted: &Deviation, measured: Option<[Deviation; 2]>) -> Value {
    let of = |deviation: &Deviation| {
        json!({
            "max_error": deviation.max_abs,
            "relative_error": deviation.relative(),
            "cosine": deviation.cosine(),
        })
    };
    let mut figures = of(predicted);
    if let Some([from_exact, from_prediction]) = &measured {
        figures["device"] = of(from_exact);
        figures["device_from_prediction"] = of(from_prediction);
    }
    figures
}
