//! What a report on the tensors of a file begins with.

use anyhow::Result;
use evo_sdpa::Element;
use evo_sdpa::verify::Inputs;
use serde_json::{Value, json};
use std::io::Write;

/// What was computed, and where.
pub struct Heading {
    input: String,
    problem: String,
    kv_lens: Option<Vec<i32>>,
    /// Elements of q, k and v that are NaN or infinite.
    pub non_finite: usize,
    scale: f32,
    scale_source: &'static str,
    device: String,
}

impl Heading {
    /// For a call on the tensors of the file `input`.
    pub fn new<T: Element>(input: &str, inputs: &Inputs<T>, scale_source: &'static str, device: &str) -> Self {
        let problem = inputs.problem();
        let all = inputs.q.iter().chain(&inputs.k).chain(&inputs.v);
        Self {
            input: input.to_owned(),
            problem: problem.to_string(),
            kv_lens: inputs.kv_lens.clone(),
            non_finite: all.filter(|x| !x.to_f32().is_finite()).count(),
            scale: problem.scale(),
            scale_source,
            device: device.to_owned(),
        }
    }

    /// The first lines of a report in words.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        writeln!(out, "input    {}", self.input)?;
        writeln!(out, "problem  {}", self.problem)?;
        if let Some(lens) = &self.kv_lens {
            writeln!(out, "kv_len   {lens:?}")?;
        }
        if self.non_finite > 0 {
            writeln!(out, "inputs   {} of them not finite", self.non_finite)?;
        }
        writeln!(out, "scale    {} ({})", self.scale, self.scale_source)?;
        writeln!(out, "device   {}", self.device)?;
        Ok(())
    }

    /// A JSON object, for a report to add to.
    pub fn json(&self) -> Value {
        json!({
            "input": self.input,
            "problem": self.problem,
            "kv_lens": self.kv_lens,
            "scale": self.scale,
            "scale_source": self.scale_source,
            "device": self.device,
        })
    }
}
