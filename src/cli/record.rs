//! Results of measurements, one JSON object a line: what `bench` and the peers' script write and `report` reads.

use super::fp8::{parse_scales, scales_option};
use super::{mask_name, parse_dtype, parse_mask};
use anyhow::{Context, Result, bail, ensure};
use evo_sdpa::{Fp8, Problem, ValueLayout};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Our own name as an implementation.
pub const OURS: &str = "evo-sdpa";
/// The type of quantised queries, keys and values.
const E4M3: &str = "e4m3";

/// One line of a results file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// The time of one implementation on one problem.
    Time(Box<Time>),
    /// The rates of the device.
    Limits(Box<Limits>),
}

/// The time of one implementation on one problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Where it was measured, and by what.
    pub setup: Setup,
    /// [`OURS`], or a peer's name.
    pub implementation: String,
    /// What was computed.
    pub call: Call,
    /// How it was timed.
    pub method: Method,
    /// Time of one call on the device, microseconds.
    pub device_us: Quantiles,
    /// Time of one call as its caller sees it, until the answer is there, microseconds.
    pub call_us: Option<Quantiles>,
    /// Time of the host for one of many launches in a row, with the plan at hand and without waiting, microseconds.
    pub launch_us: Option<Quantiles>,
    /// The state of the device while it was timed, where it can be read.
    pub clocks: Option<Clocks>,
    /// Our kernel.
    pub kernel: Option<KernelRecord>,
}

/// The rates of the device that bound any implementation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Where they were measured, and by what.
    pub setup: Setup,
    /// How: such as "mma.sync" or "torch matmul 8192".
    pub source: String,
    /// Rate of matrix products by type, TFLOP/s.
    pub matrix_tflops: BTreeMap<String, f64>,
    /// Rate of a copy within device memory, bytes read and written, GB/s.
    pub copy_gbs: f64,
}

/// Where a measurement comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// When the process started, RFC 3339 in UTC. Records of one process have the same.
    pub started: String,
    /// Name and version of what was measured, and of what it builds on.
    pub software: String,
    /// Commit of the sources, with "-dirty" where they had been changed; where known.
    pub commit: Option<String>,
    /// Name of the device.
    pub device: String,
    /// Major * 10 + minor.
    pub compute_capability: u32,
    /// Number of streaming multiprocessors.
    pub sm_count: u32,
    /// Second-level cache, bytes.
    pub l2_bytes: u64,
    /// Version of the driver, where known.
    pub driver: Option<String>,
    /// CUDA version of the driver or the library.
    pub cuda: String,
}

/// One attention call on contiguous tensors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Call {
    /// Type of queries, keys and values: f16, bf16, f32, or e4m3.
    pub dtype: String,
    /// \[batch, heads_q, heads_kv, q_len, kv_len, head_dim\].
    pub shape: [usize; 6],
    /// none, bottom-right, top-left or an offset.
    pub causal: String,
    /// Type of the output of e4m3 inputs, f16 or bf16; that of others is the type of the inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Which rows of e4m3 inputs share a scale: tensor, head or a number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<String>,
    /// Type of the tensors that the call begins with, that of the output, where it quantises them itself; where it does
    /// not, inputs are e4m3 beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How values of inputs that are e4m3 beforehand lie: transposed; in rows where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
}

/// How a call was timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Calls of one CUDA graph, back to back.
    pub calls: u32,
    /// Replays of the graph; each gives one time, its mean over the calls.
    pub runs: u32,
    /// Sets of tensors that the calls take in turn.
    pub buffers: u32,
    /// Whether the sets are together larger than the cache.
    pub cold: bool,
    /// Seed of the numbers in the tensors.
    pub seed: u64,
}

/// Nearest-rank quantiles of some times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine of ten are not above.
    pub p90: f64,
    /// Ninety-nine of a hundred are not above.
    pub p99: f64,
}

/// The state of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clocks {
    /// Clock of the multiprocessors, MHz.
    pub sm_mhz: u32,
    /// Clock of the memory, MHz.
    pub memory_mhz: u32,
    /// Power drawn, watts.
    pub power_w: f64,
    /// Degrees Celsius.
    pub temperature_c: u32,
}

/// One of our kernels, and what was found out about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// Entry name; ` dependent` follows where the launches were dependent ones, which run a variant of it.
    pub name: String,
    /// Whether the planner chooses it for the call; it chooses among plain launches.
    pub chosen: bool,
    /// Parts into which its blocks split the keys of a head, of a kernel that can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<u32>,
    /// SHA-256 of its PTX text.
    pub sha256: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Local memory of a thread, bytes.
    pub local_bytes: u32,
    /// Shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Blocks that one multiprocessor holds at a time.
    pub blocks_per_sm: u32,
    /// Relative error of its answer, by the Frobenius norm.
    pub relative_error: f64,
    /// Time that the planner's model predicted, microseconds; of a call that quantises, with the least time that this
    /// takes.
    pub predicted_us: f64,
}

impl Record {
    /// Reads a results file, whose name is for messages.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong with it.
    pub fn read_all(name: &str, text: &str) -> Result<Vec<Self>> {
        let read = |line: &str| -> Result<Self> {
            let record: Self = serde_json::from_str(line)?;
            record.check().map(|()| record)
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let records: Result<Vec<_>> =
            lines.map(|(i, line)| read(line).with_context(|| format!("{name}, line {}", i + 1))).collect();
        let records = records?;
        ensure!(!records.is_empty(), "{name}: holds no record, allowed: lines that `evo-sdpa bench --json` writes");
        Ok(records)
    }

    /// Where it was measured.
    pub fn setup(&self) -> &Setup {
        match self {
            Record::Time(time) => &time.setup,
            Record::Limits(limits) => &limits.setup,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Record::Time(time) => {
                time.call.problem()?;
                time.device_us.check("device_us")?;
                time.call_us.map_or(Ok(()), |quantiles| quantiles.check("call_us"))?;
                time.launch_us.map_or(Ok(()), |quantiles| quantiles.check("launch_us"))
            }
            Record::Limits(limits) => {
                let rates = limits.matrix_tflops.values().chain([&limits.copy_gbs]);
                check_positive("matrix_tflops, copy_gbs", rates)
            }
        }
    }
}

impl Call {
    /// The call that a problem on contiguous tensors makes. Scales are those of the queries, which are of the same
    /// blocks as those of keys and values in all that the program times. Who lays values out as planned is a call that
    /// quantises them.
    pub fn of(problem: &Problem) -> Self {
        let [batch, heads_q, q_len, head_dim] = problem.q.shape();
        let dtype = problem.dtype.to_string();
        let (dtype, out, scales) = match problem.fp8 {
            None => (dtype, None, None),
            Some(fp8) => (E4M3.into(), Some(dtype), Some(scales_option(fp8.q))),
        };
        Self {
            dtype,
            shape: [batch, heads_q, problem.heads_kv(), q_len, problem.kv_len(), head_dim],
            causal: mask_name(problem.causal),
            from: out.clone().filter(|_| problem.value_layout == ValueLayout::Planned),
            values: (problem.value_layout == ValueLayout::Transposed).then(|| problem.value_layout.to_string()),
            out,
            scales,
        }
    }

    /// The problem of the call; where it quantises, that of its attention.
    ///
    /// # Errors
    /// Names the field that no problem has.
    pub fn problem(&self) -> Result<Problem> {
        let (dtype, fp8) = match (self.dtype.as_str(), &self.out, &self.scales) {
            (E4M3, Some(out), Some(scales)) => {
                let scales = parse_scales(scales).context("scales")?;
                (parse_dtype(out).context("out")?, Some(Fp8::uniform(scales)))
            }
            (E4M3, ..) => bail!("dtype: e4m3 without the fields out and scales, allowed: e4m3 with both"),
            (dtype, None, None) if self.from.is_none() && self.values.is_none() => {
                (parse_dtype(dtype).context("dtype")?, None)
            }
            (dtype, ..) => bail!("dtype: {dtype} with the field out, scales, from or values, allowed: e4m3"),
        };
        if let Some(from) = self.from.as_ref().filter(|&from| Some(from) != self.out.as_ref()) {
            bail!("from: {from}, allowed: {dtype}, the type of the output");
        }
        let transposed = ValueLayout::Transposed.to_string();
        let value_layout = match (&self.values, &self.from) {
            (None, None) => ValueLayout::Rows,
            (None, Some(_)) => ValueLayout::Planned,
            (Some(values), None) if *values == transposed => ValueLayout::Transposed,
            (Some(values), None) => bail!("values: {values}, allowed: {transposed}"),
            (Some(values), Some(_)) => bail!("values: {values} with the field from, allowed: one of both"),
        };
        let causal = parse_mask(&self.causal).context("causal")?;
        let problem = Problem::contiguous(dtype, self.shape).with_causal(causal).with_fp8(fp8).with_lse(true);
        let problem = problem.with_value_layout(value_layout);
        problem.validate()?;
        Ok(problem)
    }

    /// Whether attention is on e4m3 inputs.
    pub fn is_quantized(&self) -> bool {
        self.scales.is_some()
    }

    /// Bytes that it moves at least: the tensors that it begins with and its output, each once. `problem` is its own.
    pub fn bytes(&self, problem: &Problem) -> f64 {
        let begins_with = if self.from.is_some() { problem.with_fp8(None) } else { *problem };
        begins_with.bytes()
    }

    /// The type of the inputs, and of quantised ones all else that tells such calls of one shape and mask apart.
    pub fn type_name(&self) -> String {
        let from = self.from.as_ref().map(|from| format!("{from} quantised to ")).unwrap_or_default();
        let values = self.values.as_ref().map(|values| format!(", values: {values}")).unwrap_or_default();
        match (&self.out, &self.scales) {
            (Some(out), Some(scales)) => format!("{from}{} to {out}, scales: {scales}{values}", self.dtype),
            _ => self.dtype.clone(),
        }
    }
}

impl Quantiles {
    /// Of times in any order; none of no time.
    pub fn of(times: &[f64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).max(1) - 1;
        let at = |percent| sorted.get(rank(percent)).copied();
        Some(Self { min: *sorted.first()?, p50: at(50)?, p90: at(90)?, p99: at(99)? })
    }

    fn check(&self, field: &str) -> Result<()> {
        check_positive(field, [&self.min, &self.p50, &self.p90, &self.p99])?;
        let ordered = self.min <= self.p50 && self.p50 <= self.p90 && self.p90 <= self.p99;
        ensure!(ordered, "{field}: {self:?} is out of order, allowed: min <= p50 <= p90 <= p99");
        Ok(())
    }
}

fn check_positive<'a>(field: &str, values: impl IntoIterator<Item = &'a f64>) -> Result<()> {
    match values.into_iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        None => Ok(()),
        Some(value) => anyhow::bail!("{field}: {value}, allowed: numbers above 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evo_sdpa::{Causal, DType, ScaleBlocks};

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Quantiles::of(&times), Some(Quantiles { min: 1.0, p50: 50.0, p90: 90.0, p99: 99.0 }));
        assert_eq!(Quantiles::of(&[7.0]), Some(Quantiles { min: 7.0, p50: 7.0, p90: 7.0, p99: 7.0 }));
        assert_eq!(Quantiles::of(&[]), None);
    }

    #[test]
    fn a_call_stands_for_its_problem() {
        for causal in [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(-3))] {
            let problem = Problem::contiguous(DType::F16, [2, 8, 4, 3, 5, 64]).with_causal(causal).with_lse(true);
            assert_eq!(Call::of(&problem).problem().unwrap(), problem);
            for blocks in [ScaleBlocks::Tensor, ScaleBlocks::Head, ScaleBlocks::Rows(128)] {
                for layout in [ValueLayout::Rows, ValueLayout::Transposed, ValueLayout::Planned] {
                    let problem = problem.with_fp8(Some(Fp8::uniform(blocks))).with_value_layout(layout);
                    assert_eq!(Call::of(&problem).problem().unwrap(), problem);
                }
            }
        }
    }

    #[test]
    fn a_call_says_that_its_inputs_are_e4m3_or_nothing_about_it() {
        let plain = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64]);
        let line = |problem: &Problem| serde_json::to_string(&Call::of(problem)).unwrap();
        assert_eq!(line(&plain), r#"{"dtype":"bf16","shape":[1,8,8,512,512,64],"causal":"none"}"#);
        let quantized = plain.with_fp8(Some(Fp8::uniform(ScaleBlocks::Rows(64))));
        let expected = r#"{"dtype":"e4m3","shape":[1,8,8,512,512,64],"causal":"none","out":"bf16","scales":"64"}"#;
        assert_eq!(line(&quantized), expected);
        assert_eq!(Call::of(&plain).type_name(), "bf16");
        assert_eq!(Call::of(&quantized).type_name(), "e4m3 to bf16, scales: 64");
        let refused = |from: &str, to: &str| {
            let call: Call = serde_json::from_str(&expected.replace(from, to)).unwrap();
            format!("{:#}", call.problem().unwrap_err())
        };
        assert!(refused(",\"scales\":\"64\"", "").starts_with("dtype: e4m3 without the fields out and scales"));
        assert!(refused("\"e4m3\"", "\"bf16\"").starts_with("dtype: bf16 with the field out, scales, from or values"));
        assert!(refused("\"64\"", "\"63\"").starts_with("scales: "));
        assert!(refused("\"bf16\"", "\"f32\"").contains("dtype: f32"));
        assert!(refused("\"bf16\"", "\"fp8\"").starts_with("out: "));
    }

    #[test]
    fn a_call_that_quantises_is_another_one_with_the_same_attention() {
        let plain = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64]).with_lse(true);
        let problem = plain.with_fp8(Some(Fp8::uniform(ScaleBlocks::Head)));
        let planned = problem.with_value_layout(ValueLayout::Planned);
        let (beforehand, within) = (Call::of(&problem), Call::of(&planned));
        assert!(beforehand != within && within.is_quantized());
        assert_eq!(within.problem().unwrap(), planned);
        assert_eq!((beforehand.bytes(&problem), within.bytes(&problem)), (problem.bytes(), plain.bytes()));
        assert_eq!(within.type_name(), "bf16 quantised to e4m3 to bf16, scales: head");
        let line = serde_json::to_string(&within).unwrap();
        assert!(line.ends_with(r#""out":"bf16","scales":"head","from":"bf16"}"#), "{line}");
        assert_eq!(serde_json::from_str::<Call>(&line).unwrap(), within);
        // What was written before there were such calls.
        let before = line.replace(r#","from":"bf16""#, "");
        assert_eq!(serde_json::from_str::<Call>(&before).unwrap(), beforehand);
        let refused = |call: Call| format!("{:#}", call.problem().unwrap_err());
        let other = Call { from: Some("f16".into()), ..within };
        assert_eq!(refused(other), "from: f16, allowed: bf16, the type of the output");
        let plain = Call { from: Some("bf16".into()), ..Call::of(&plain) };
        assert!(refused(plain).starts_with("dtype: bf16 with the field out, scales, from or values"));
    }

    #[test]
    fn a_call_on_transposed_values_is_another_one() {
        let rows = Problem::contiguous(DType::Bf16, [1, 8, 8, 512, 512, 64]).with_lse(true);
        let rows = rows.with_fp8(Some(Fp8::uniform(ScaleBlocks::Head)));
        let transposed = Call::of(&rows.with_value_layout(ValueLayout::Transposed));
        assert_eq!(transposed, Call { values: Some("transposed".into()), ..Call::of(&rows) });
        assert_eq!(transposed.type_name(), "e4m3 to bf16, scales: head, values: transposed");
        let line = serde_json::to_string(&transposed).unwrap();
        assert!(line.ends_with(r#""scales":"head","values":"transposed"}"#), "{line}");
        assert_eq!(serde_json::from_str::<Call>(&line).unwrap(), transposed);
        let refused = |call: Call| format!("{:#}", call.problem().unwrap_err());
        let other = Call { values: Some("as planned".into()), ..transposed.clone() };
        assert_eq!(refused(other), "values: as planned, allowed: transposed");
        let both = Call { from: Some("bf16".into()), ..transposed.clone() };
        assert_eq!(refused(both), "values: transposed with the field from, allowed: one of both");
        let plain = Call { dtype: "bf16".into(), out: None, scales: None, ..transposed };
        assert!(refused(plain).starts_with("dtype: bf16 with the field out, scales, from or values"));
    }

    #[test]
    fn records_from_before_launches_were_timed_are_read() {
        let old = include_str!("../../tests/data/results-ours.jsonl");
        assert!(!old.contains("launch_us"));
        let records = Record::read_all("old.jsonl", old).unwrap();
        let launches = |record: &Record| matches!(record, Record::Time(time) if time.launch_us.is_some());
        assert!(!records.iter().any(launches));
        let new =
            old.replace("\"clocks\"", "\"launch_us\":{\"min\":2.0,\"p50\":2.5,\"p90\":3.0,\"p99\":4.0},\"clocks\"");
        assert!(Record::read_all("new.jsonl", &new).unwrap().iter().any(launches));
        let error = Record::read_all("new.jsonl", &new.replace("2.5", "3.5")).unwrap_err();
        assert!(format!("{error:#}").contains("launch_us: "), "{error:#}");
    }

    #[test]
    fn a_line_that_is_no_record_is_named_with_its_file_and_number() {
        let refused = |text: &str| format!("{:#}", Record::read_all("a.jsonl", text).unwrap_err());
        assert!(refused("\n{\"kind\":\"time\"}\n").starts_with("a.jsonl, line 2: missing field"));
        assert!(refused("nonsense").starts_with("a.jsonl, line 1: expected"));
        assert!(refused("{\"kind\":\"speed\"}").contains("unknown variant `speed`"));
        assert!(refused("\n\n").contains("holds no record"));
    }
}
