//! The error of one call, head by head.

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
    problem: String,
    heads_q: usize,
    kv_lens: Option<Vec<i32>>,
    scale: f32,
    scale_source: &'static str,
    device: String,
    quantization: Quantization,
    checked_part: f64,
    heads: Vec<Deviation>,
}

impl Report {
    /// Computes the answer with and without quantisation.
    pub fn new<T: Element>(
        inputs: &Inputs<T>,
        quantization: &Quantization,
        scale_source: &'static str,
        device: &str,
    ) -> Result<Self> {
        let problem = inputs.problem();
        let exact = Unquantized::compute(inputs)?;
        Ok(Self {
            problem: problem.to_string(),
            heads_q: problem.heads_q(),
            kv_lens: inputs.kv_lens.clone(),
            scale: problem.scale(),
            scale_source,
            device: device.to_owned(),
            quantization: *quantization,
            checked_part: exact.checked_part(),
            heads: exact.deviations(quantization)?,
        })
    }

    /// Writes what was found, as one JSON object or in words.
    pub fn write(&self, input: &str, json: bool, out: &mut impl Write) -> Result<()> {
        if json {
            writeln!(out, "{}", self.json(input))?;
            return Ok(());
        }
        writeln!(out, "input    {input}")?;
        writeln!(out, "problem  {}", self.problem)?;
        if let Some(lens) = &self.kv_lens {
            writeln!(out, "kv_len   {lens:?}")?;
        }
        writeln!(out, "scale    {} ({})", self.scale, self.scale_source)?;
        writeln!(out, "device   {}", self.device)?;
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

    fn json(&self, input: &str) -> Value {
        let heads = self.heads.iter().enumerate().map(|(index, deviation)| {
            let mut head = figures(deviation);
            head["batch"] = (index / self.heads_q).into();
            head["head"] = (index % self.heads_q).into();
            head
        });
        json!({
            "input": input,
            "problem": self.problem,
            "kv_lens": self.kv_lens,
            "scale": self.scale,
            "scale_source": self.scale_source,
            "device": self.device,
            "dtype": "e4m3",
            "scales": scales_name(&self.quantization),
            "rows_checked": self.checked_part,
            "heads": heads.collect::<Vec<_>>(),
            "total": figures(&total(&self.heads)),
        })
    }
}

fn figures(deviation: &Deviation) -> Value {
    json!({
        "max_error": deviation.max_abs,
        "relative_error": deviation.relative(),
        "cosine": deviation.cosine(),
    })
}
