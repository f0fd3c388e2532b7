//! What it takes to quantise tensors on a device, as the time model sees it.

use super::super::prediction::{self, microseconds};
use super::super::table::Table;
use super::scales_name;
use anyhow::Result;
use evo_sdpa::quantize::QuantizeLaunch;
use evo_sdpa::verify::Quantization;
use evo_sdpa::{DeviceSpec, Prediction, QuantizePlan};
use serde_json::{Value, json};
use std::io::Write;

/// The launches that quantise, each with its least time.
pub struct Preparation {
    quantization: Quantization,
    plan: QuantizePlan,
    launches: Vec<(QuantizeLaunch, Prediction)>,
}

impl Preparation {
    /// Of the launches of a plan on a device.
    pub fn new(plan: QuantizePlan, quantization: &Quantization, device: &DeviceSpec) -> Self {
        let launches = Prediction::of_quantize(&plan, device).collect();
        Self { quantization: *quantization, plan, launches }
    }

    /// What is quantised, and how.
    pub fn about(&self) -> String {
        format!("q, k and v, from {}; scales: {}", self.plan.dtype, scales_name(&self.quantization))
    }

    /// Microseconds of all launches, at least.
    pub fn total(&self) -> f64 {
        self.launches.iter().map(|(_, least)| least.total()).sum()
    }

    /// Writes the launches with the terms of their times.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        let title = format!("quantising from {}", self.plan.dtype);
        let mut table = Table::new(&[&title, "blocks", "MB", "launch", "start", "memory", "least us"]);
        let mut row = |name: String, blocks: String, bytes: f64, terms: [f64; 4]| {
            let cells = [name, blocks, format!("{:.2}", bytes / 1e6)];
            table.row(cells.into_iter().chain(terms.map(microseconds)));
        };
        let terms = |least: &Prediction| [least.launch, least.start, least.memory, least.total()];
        let (mut bytes, mut all) = (0.0, [0.0; 4]);
        for (QuantizeLaunch { entry, grid, .. }, least) in &self.launches {
            let of_launch = self.plan.bytes(*entry);
            row(entry.to_string(), grid[0].to_string(), of_launch, terms(least));
            bytes += of_launch;
            all.iter_mut().zip(terms(least)).for_each(|(sum, term)| *sum += term);
        }
        row("total".into(), "-".into(), bytes, all);
        table.write(out)?;
        let Some(bound) = self.launches.last().and_then(|(_, least)| least.bound) else { return Ok(()) };
        writeln!(out, "memory: bytes read and written, each once, as {bound} allows; what SMs do is not modelled")?;
        Ok(())
    }

    /// The same as an object.
    pub fn json(&self) -> Value {
        let launch = |(QuantizeLaunch { entry, grid, .. }, least): &(QuantizeLaunch, Prediction)| {
            json!({
                "kernel": entry.to_string(),
                "grid": grid,
                "bytes": self.plan.bytes(*entry),
                "prediction": prediction::json(least),
            })
        };
        json!({
            "from": self.plan.dtype.to_string(),
            "scales": scales_name(&self.quantization),
            "workspace_bytes": self.plan.workspace_bytes(),
            "launches": self.launches.iter().map(launch).collect::<Vec<_>>(),
            "least_us": self.total(),
        })
    }
}
