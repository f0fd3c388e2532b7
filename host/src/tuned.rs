//! Measured times that go before the model's: for a problem that was measured on a device, the fastest kernel.

use crate::error::{Error, Result};
use crate::limits;
use crate::problem::Problem;
use evo_sdpa_kernels::config::{DType, Kernel};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The fastest kernels by device and problem: what a tuned table, a JSON file, holds.
///
/// ```json
/// { "NVIDIA L4": [{ "dtype": "bf16", "batch": 1, "heads_q": 8, "heads_kv": 8, "q_len": 512, "kv_len": 512,
///                   "head_dim": 64, "causal": null, "kernel": "fwd_sm80_bf16_d64_q64_kv64_w4_s2", "us": 18.2 }] }
/// ```
///
/// Devices are named as their driver names them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tuned {
    devices: BTreeMap<String, Vec<TunedRow>>,
}

/// The fastest kernel for a problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedRow {
    /// The problem.
    #[serde(flatten)]
    pub problem: TunedProblem,
    /// Entry name of the kernel.
    pub kernel: String,
    /// Parts into which the keys of a head are split, for kernels that can; as many as a plan has anyway for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<u32>,
    /// Measured time of one call on the device, microseconds.
    pub us: f64,
}

/// What tells one problem from another in a tuned table: type, sizes and mask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TunedProblem {
    /// f16, bf16 or f32.
    pub dtype: String,
    /// Sequences.
    pub batch: usize,
    /// Query heads.
    pub heads_q: usize,
    /// Key heads.
    pub heads_kv: usize,
    /// Query rows.
    pub q_len: usize,
    /// Keys.
    pub kv_len: usize,
    /// Elements of a row.
    pub head_dim: usize,
    /// Under a causal mask query row `i` sees keys `j <= i + causal`; `None` without a mask.
    pub causal: Option<i64>,
}

impl TunedProblem {
    /// What a table knows `problem` by.
    pub fn of(problem: &Problem) -> Self {
        Self {
            dtype: problem.dtype.name().to_owned(),
            batch: problem.batch(),
            heads_q: problem.heads_q(),
            heads_kv: problem.heads_kv(),
            q_len: problem.q_len(),
            kv_len: problem.kv_len(),
            head_dim: problem.head_dim(),
            causal: problem.causal_offset(),
        }
    }
}

impl Tuned {
    /// Reads a table. `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Tuned`] for a text that is no table, and for times that are no positive numbers. Kernels that do not
    /// exist are no error: [`Tuned::kernels`] leaves them out.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let refused = |reason| Error::Tuned { table: name.to_owned(), reason };
        let tuned: Self = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        let mut times = tuned.devices.values().flatten().map(|row| row.us);
        match times.find(|us| !(us.is_finite() && *us > 0.0)) {
            Some(us) => Err(refused(format!("us: {us}, allowed: numbers above 0"))),
            None => Ok(tuned),
        }
    }

    /// Reads the table in a file.
    ///
    /// # Errors
    /// [`Error::Tuned`] for a file that cannot be read or holds no table.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(Error::Tuned { table: name, reason: error.to_string() }),
        }
    }

    /// The table as JSON, in an order that does not depend on how it came about.
    pub fn to_json(&self) -> String {
        let rows = |rows: &[TunedRow]| -> Vec<String> {
            rows.iter().map(|row| format!("    {}", serde_json::json!(row))).collect()
        };
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|(device, of_device)| {
                format!("  {}: [\n{}\n  ]", serde_json::json!(device), rows(of_device).join(",\n"))
            })
            .collect();
        if devices.is_empty() { "{}\n".to_owned() } else { format!("{{\n{}\n}}\n", devices.join(",\n")) }
    }

    /// The rows of each device.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &[TunedRow])> {
        self.devices.iter().map(|(device, rows)| (device.as_str(), rows.as_slice()))
    }

    /// Sets the row of a problem on a device, and returns the one that was there.
    pub fn set(&mut self, device: &str, row: TunedRow) -> Option<TunedRow> {
        let rows = self.devices.entry(device.to_owned()).or_default();
        if let Some(known) = rows.iter_mut().find(|known| known.problem == row.problem) {
            return Some(std::mem::replace(known, row));
        }
        rows.push(row);
        rows.sort_by(|a, b| a.problem.cmp(&b.problem));
        None
    }

    /// The kernels for the device that the driver names `device`. Rows are left out that this version can do nothing
    /// with: of kernels that do not ship (any more), and with a number of splits that their kernel does not take.
    pub fn kernels(&self, device: &str) -> TunedKernels {
        let rows = self.devices.get(device).into_iter().flatten();
        TunedKernels(rows.filter_map(|row| Some((Key::of_row(&row.problem)?, Choice::of_row(row)?))).collect())
    }
}

/// The fastest kernels on one device, to be looked up when a launch is planned: see [`Plan::tuned`](crate::Plan::tuned).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunedKernels(FxHashMap<Key, Choice>);

/// [`TunedProblem`] in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    dtype: DType,
    shape: [usize; 6],
    causal: Option<i64>,
}

/// A kernel and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Where the kernel is in [`KERNELS`](evo_sdpa_kernels::instances::KERNELS).
    pub(crate) index: usize,
    pub(crate) us: f64,
    /// Where the row has a number.
    pub(crate) splits: Option<u32>,
}

impl TunedKernels {
    /// How many problems have a kernel here.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no problem has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kernel for a problem, of any strides and scale, with its keys in pages or not, and with the log-sum-exp or
    /// without. None where the number of keys is given for each sequence: it is not known how many those are; and for
    /// e4m3 inputs, of which a table says nothing.
    pub(crate) fn get(&self, problem: &Problem) -> Option<Choice> {
        if self.is_empty() || problem.kv_lens || problem.fp8.is_some() {
            None
        } else {
            self.0.get(&Key::of(problem)).copied()
        }
    }
}

impl Key {
    fn of(problem: &Problem) -> Self {
        let [batch, heads_q, q_len, head_dim] = problem.q.shape();
        let shape = [batch, heads_q, problem.heads_kv(), q_len, problem.kv_len(), head_dim];
        Self { dtype: problem.dtype, shape, causal: problem.causal_offset() }
    }

    fn of_row(problem: &TunedProblem) -> Option<Self> {
        let TunedProblem { dtype, batch, heads_q, heads_kv, q_len, kv_len, head_dim, causal } = problem;
        let dtype = DType::ALL.into_iter().find(|known| known.name() == dtype)?;
        Some(Self { dtype, shape: [*batch, *heads_q, *heads_kv, *q_len, *kv_len, *head_dim], causal: *causal })
    }
}

impl Choice {
    fn of_row(row: &TunedRow) -> Option<Self> {
        let kernel = Kernel::parse(&row.kernel)?;
        let most = if kernel.split_step().is_some() { u32::MAX } else { 1 };
        let fits = row.splits.is_none_or(|splits| (1..=most).contains(&splits));
        let choice = Self { index: limits::index(kernel)?, us: row.us, splits: row.splits };
        fits.then_some(choice)
    }
}
