//! The error of one call, head by head.

use super::super::heading::Heading;
use super::super::table::Table;
use super::{scales_name, total};
use anyhow::Result;
use evo_sdpa::Element;
use evo_sdpa::quantize::Deviation;
use evo_sdpa::verify::{Inputs, Quantization, Unquantized};
use serde_json::{Value, json};
use std::io::Write;

/// All that is said about a call in e4m3.
pub struct Report {
    heading: Heading,
    heads_q: usize,
    quantization: Quantization,
    checked_part: f64,
    heads: Vec<Deviation>,
}

impl Report {
    /// Computes the answer with and without quantisation.
    pub fn new<T: Element>(heading: Heading, inputs: &Inputs<T>, quantization: &Quantization) -> Result<Self> {
        let exact = Unquantized::compute(inputs)?;
        Ok(Self {
            heading,
            heads_q: inputs.problem().heads_q(),
            quantization: *quantization,
            checked_part: exact.checked_part(),
            heads: exact.deviations(quantization)?,
        })
    }

    /// Writes what was found, as one JSON object or in words.
    pub fn write(&self, json: bool, out: &mut impl Write) -> Result<()> {
        if json {
            writeln!(out, "{}", self.json())?;
            return Ok(());
        }
        self.heading.write(out)?;
        writeln!(out, "e4m3     q, k, v and probabilities; a scale for each {}", scales_name(&self.quantization))?;
        writeln!(
            out,
            "rows     {:.1} % of them compared with the answer without e4m3, in f64\n",
            self.checked_part * 100.0
        )?;
        let mut table = Table::new(&["batch", "head", "max error", "relative", "cosine"]);
        let mut row = |batch: String, head: String, deviation: &Deviation| {
            let (max, relative) = (format!("{:.2e}", deviation.max_abs), format!("{:.2e}", deviation.relative()));
            table.row([batch, head, max, relative, format!("{:.6}", deviation.cosine())]);
        };
        for (index, deviation) in self.heads.iter().enumerate() {
            row((index / self.heads_q).to_string(), (index % self.heads_q).to_string(), deviation);
        }
        row("all".into(), "all".into(), &total(&self.heads));
        table.write(out)?;
        Ok(())
    }

    fn json(&self) -> Value {
        let heads = self.heads.iter().enumerate().map(|(index, deviation)| {
            let mut head = figures(deviation);
            head["batch"] = (index / self.heads_q).into();
            head["head"] = (index % self.heads_q).into();
            head
        });
        let mut object = self.heading.json();
        object["dtype"] = "e4m3".into();
        object["scales"] = scales_name(&self.quantization).into();
        object["rows_checked"] = self.checked_part.into();
        object["heads"] = heads.collect();
        object["total"] = figures(&total(&self.heads));
        object
    }
}

fn figures(deviation: &Deviation) -> Value {
    json!({
        "max_error": deviation.max_abs,
        "relative_error": deviation.relative(),
        "cosine": deviation.cosine(),
    })
}
