//! From records in any order to one row a call.

use crate::cli::mask_name;
use crate::cli::record::{Call, Clocks, KernelRecord, Limits, Method, OURS, Record, Setup, Time};
use anyhow::{Context, Result, ensure};
use evo_sdpa::{Problem, shapes};
use std::collections::{BTreeMap, HashMap};

/// Everything that was measured on one device.
pub struct Results {
    /// [`OURS`] first where it was measured, then the peers by name.
    pub implementations: Vec<Implementation>,
    /// In the order of [`shapes::measured`], other calls after them.
    pub rows: Vec<Row>,
    /// The device's rates.
    pub limits: Vec<Limits>,
}

/// One implementation, and how all of its times were measured.
pub struct Implementation {
    /// [`OURS`], or a peer's name.
    pub name: String,
    /// Where its records come from, each setup once.
    pub setups: Vec<Setup>,
    /// How they were timed, each method once.
    pub methods: Vec<Method>,
    /// The states of the device meanwhile.
    pub clocks: Vec<Clocks>,
}

/// One call, by all who were measured on it.
pub struct Row {
    /// What was computed.
    pub call: Call,
    /// The same as a problem.
    pub problem: Problem,
    /// Whether the tensors came from memory larger than the cache.
    pub cold: bool,
    /// Our kernel that the planner chooses.
    pub ours: Option<Ours>,
    /// Our other kernels, the fastest first.
    pub others: Vec<Ours>,
    /// The peers by name.
    pub peers: BTreeMap<String, Measured>,
}

/// One of our kernels on one call.
pub struct Ours {
    /// The kernel.
    pub kernel: KernelRecord,
    /// Its times.
    pub time: Measured,
}

/// Repeated measurements of one thing: the median of each quantile.
pub struct Measured {
    /// Median time on the device, microseconds.
    pub p50: f64,
    /// Nine of ten times are not above, microseconds.
    pub p90: f64,
    /// Ninety-nine of a hundred times are not above, microseconds.
    pub p99: f64,
    /// Median time as the caller sees it, microseconds.
    pub call_us: Option<f64>,
    /// Median time of the host for one launch, microseconds.
    pub launch_us: Option<f64>,
    /// How often it was measured.
    pub times: usize,
    /// Largest median over the least, less 1.
    pub spread: f64,
}

impl Results {
    /// The types of calls, by name: see [`Call::type_name`].
    pub fn types(&self) -> Vec<String> {
        let mut types: Vec<_> = self.rows.iter().map(|row| row.call.type_name()).collect();
        types.sort();
        types.dedup();
        types
    }

    /// The rows of one type.
    pub fn rows_of(&self, of_type: &str) -> Vec<&Row> {
        self.rows.iter().filter(|row| row.call.type_name() == of_type).collect()
    }

    /// Whether some calls were timed with a cold cache and others with a warm one.
    pub fn has_both_caches(&self) -> bool {
        self.rows.iter().any(|row| row.cold != self.rows[0].cold)
    }

    /// The names of the implementations.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.implementations.iter().map(|implementation| implementation.name.as_str())
    }

    /// The peers' names.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| *name != OURS)
    }
}

impl Row {
    /// The time of an implementation.
    pub fn by(&self, implementation: &str) -> Option<&Measured> {
        if implementation == OURS { self.ours.as_ref().map(|ours| &ours.time) } else { self.peers.get(implementation) }
    }

    fn of((_, call, cold): (usize, Call, bool), times: Vec<Time>) -> Result<Self> {
        let problem = call.problem()?;
        let (ours, peers): (Vec<_>, Vec<_>) = times.into_iter().partition(|time| time.implementation == OURS);
        let chosen = ours.iter().filter_map(|time| time.kernel.as_ref()).find(|kernel| kernel.chosen);
        let chosen = chosen.map(|kernel| kernel.name.clone());
        let name = |time: &Time| time.kernel.as_ref().map(|kernel| kernel.name.clone());
        let kernels = group(ours, |time| name(time).unwrap_or_default());
        let mut kernels: Vec<_> = kernels.into_values().filter_map(|times| Ours::of(&times)).collect();
        kernels.sort_by(|a, b| a.time.p50.total_cmp(&b.time.p50));
        let ours = kernels.iter().position(|ours| Some(&ours.kernel.name) == chosen.as_ref());
        let ours = ours.map(|i| kernels.remove(i));
        let peers = group(peers, |time| time.implementation.clone());
        let peers = peers.into_iter().filter_map(|(name, times)| Some((name, Measured::of(&times)?))).collect();
        Ok(Self { call, problem, cold, ours, others: kernels, peers })
    }
}

impl Ours {
    fn of(times: &[Time]) -> Option<Self> {
        Some(Self { kernel: times.first()?.kernel.clone()?, time: Measured::of(times)? })
    }
}

impl Measured {
    fn of(times: &[Time]) -> Option<Self> {
        let over = |quantile: fn(&Time) -> Option<f64>| times.iter().filter_map(quantile).collect::<Vec<_>>();
        let medians = over(|time| Some(time.device_us.p50));
        let (least, largest) = medians.iter().fold((f64::MAX, 0.0f64), |(l, u), &us| (l.min(us), u.max(us)));
        Some(Self {
            p50: median(medians)?,
            p90: median(over(|time| Some(time.device_us.p90)))?,
            p99: median(over(|time| Some(time.device_us.p99)))?,
            call_us: median(over(|time| time.call_us.map(|call| call.p50))),
            launch_us: median(over(|time| time.launch_us.map(|launch| launch.p50))),
            times: times.len(),
            spread: largest / least - 1.0,
        })
    }
}

/// The middle value, or the mean of the middle two; none of no value.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[values.len() / 2 - 1], upper) } else { upper })
}

/// Joins the records of files, each with its name for messages.
///
/// # Errors
/// Names the file, and both values, where the records do not belong into one report: they come from several devices,
/// from several versions of one program, or from several kernels under one name.
pub fn join(files: Vec<(String, Vec<Record>)>) -> Result<Results> {
    let mut seen = Seen::default();
    let mut times = Vec::new();
    let mut limits = Vec::new();
    for (file, records) in files {
        for record in records {
            seen.only(&file, "device".into(), &record.setup().device)?;
            match record {
                Record::Time(time) => {
                    seen.only_program(&file, &time)?;
                    times.push(*time);
                }
                Record::Limits(measured) => limits.push(*measured),
            }
        }
    }
    let implementations = group(times.iter(), |time| (time.implementation != OURS, time.implementation.clone()));
    let implementations = implementations.into_iter().map(|((_, name), times)| Implementation::of(name, &times));
    let implementations = implementations.collect();
    let rows = group(times, |time| (place(&time.call), time.call.clone(), time.method.cold));
    let rows = rows.into_iter().map(|(key, times)| Row::of(key, times)).collect::<Result<_>>()?;
    Ok(Results { implementations, rows, limits })
}

impl Implementation {
    fn of(name: String, times: &[&Time]) -> Self {
        let mut setups: Vec<_> = times.iter().map(|time| time.setup.clone()).collect();
        setups.sort_by(|a, b| a.started.cmp(&b.started));
        setups.dedup();
        let mut methods: Vec<Method> = Vec::new();
        for time in times {
            if !methods.contains(&time.method) {
                methods.push(time.method.clone());
            }
        }
        Self { name, setups, methods, clocks: times.iter().filter_map(|time| time.clocks).collect() }
    }
}

/// What all records of a report have in common, with the file that said so first.
#[derive(Default)]
struct Seen(HashMap<String, (String, String)>);

impl Seen {
    fn only(&mut self, file: &str, what: String, value: &str) -> Result<()> {
        let (first, other) = self.0.entry(what.clone()).or_insert_with(|| (file.into(), value.into()));
        ensure!(value == other, "{file}: {what} is `{value}`, but `{other}` in {first}, allowed: one a report");
        Ok(())
    }

    /// A figure over several programs would be true of none.
    fn only_program(&mut self, file: &str, time: &Time) -> Result<()> {
        let name = &time.implementation;
        self.only(file, format!("software of {name}"), &time.setup.software)?;
        self.only(file, format!("commit of {name}"), time.setup.commit.as_deref().unwrap_or("unknown"))?;
        if name != OURS {
            return Ok(());
        }
        let kernel = time.kernel.as_ref().with_context(|| format!("{file}: kernel is missing in a time of {OURS}"))?;
        self.only(file, format!("sha256 of {}", kernel.name), &kernel.sha256)?;
        if kernel.chosen {
            let call = &time.call;
            let quantized = if call.is_quantized() { format!(", {}", call.type_name()) } else { String::new() };
            self.only(file, format!("kernel chosen for {}{quantized}", call.problem()?), &kernel.name)?;
        }
        Ok(())
    }
}

/// The place of a call among those that benchmarks time; others come after.
fn place(call: &Call) -> usize {
    let is_call = |(shape, causal)| shape == call.shape && mask_name(causal) == call.causal;
    shapes::measured().position(is_call).unwrap_or(usize::MAX)
}

fn group<T, K: Ord>(items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) -> BTreeMap<K, Vec<T>> {
    let mut groups = BTreeMap::<K, Vec<T>>::new();
    for item in items {
        groups.entry(key(&item)).or_default().push(item);
    }
    groups
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const OUR_FILE: &str = include_str!("../../../tests/data/results-ours.jsonl");
    const PEER_FILE: &str = include_str!("../../../tests/data/results-peers.jsonl");

    fn joined(files: &[(&str, &str)]) -> Result<Results> {
        let read = |(name, text): &(&str, &str)| Ok((name.to_string(), Record::read_all(name, text)?));
        join(files.iter().map(read).collect::<Result<_>>()?)
    }

    /// What the files of the tests hold.
    pub fn example() -> Results {
        joined(&[("ours", OUR_FILE), ("peers", PEER_FILE)]).unwrap()
    }

    /// What is wrong with our file beside itself after a change.
    #[track_caller]
    fn refused(from: &str, to: &str) -> String {
        assert!(OUR_FILE.contains(from), "{from}");
        joined(&[("a", OUR_FILE), ("b", &OUR_FILE.replace(from, to))]).err().expect("refused").to_string()
    }

    #[test]
    fn measurements_of_one_call_become_one_row() {
        let results = example();
        assert_eq!(results.rows.len(), 4);
        let Row { ours, others, peers, .. } = &results.rows[0];
        let ours = ours.as_ref().unwrap();
        // 5.0 and 5.2.
        assert_eq!((ours.time.p50, ours.time.times), (5.1, 2));
        assert!((ours.time.spread - 0.04).abs() < 1e-12);
        assert_eq!(ours.time.call_us, Some(9.0));
        assert_eq!(ours.kernel.name, "fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1");
        let others: Vec<_> = others.iter().map(|other| (other.kernel.name.as_str(), other.time.p50)).collect();
        assert_eq!(others, [("fwd_sm80_bf16_d64_q128_kv64_w4_s2", 8.16)]);
        // 8.0, 8.4 and 8.2.
        assert_eq!((peers["library B"].p50, peers["library B"].times), (8.2, 3));
        assert!(!results.rows[1].peers.contains_key("library B"));
    }

    #[test]
    fn implementations_are_ours_and_then_the_peers_with_all_of_their_setups() {
        let results = example();
        let of = |of: &Implementation| (of.name.clone(), of.setups.len(), of.methods.len(), of.clocks.len());
        let expected = [(OURS, 2, 1, 6), ("library A", 1, 1, 0), ("library B", 1, 1, 0)];
        let found: Vec<_> = results.implementations.iter().map(of).collect();
        assert_eq!(found, expected.map(|(name, setups, methods, clocks)| (name.into(), setups, methods, clocks)));
        assert_eq!(results.peers().collect::<Vec<_>>(), ["library A", "library B"]);
    }

    #[test]
    fn cold_and_warm_calls_are_two_rows() {
        let cold = OUR_FILE.replace("\"cold\":false", "\"cold\":true");
        let results = joined(&[("a", OUR_FILE), ("b", &cold)]).unwrap();
        assert_eq!(results.rows.len(), 8);
        assert!(results.has_both_caches() && !example().has_both_caches());
        assert_eq!(results.rows[0].call, results.rows[1].call);
        assert_eq!((results.rows[0].cold, results.rows[1].cold), (false, true));
    }

    #[test]
    fn records_that_a_figure_cannot_be_over_are_refused_with_both_values() {
        for (what, from, to) in [
            ("device", "Example GPU", "Other GPU"),
            ("commit of evo-sdpa", "0123456789abcdef", "fedcba9876543210"),
            ("software of evo-sdpa", "evo-sdpa 0.0.0", "evo-sdpa 0.0.1"),
            ("sha256 of fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1", &"1".repeat(64), &"4".repeat(64)),
            (
                "kernel chosen for bf16 B1 Hq8 Sq512 Skv512 D64 full",
                "fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1",
                "fwd_sm80_bf16_d64_q64_kv64_w4_s2",
            ),
        ] {
            assert_eq!(refused(from, to), format!("b: {what} is `{to}`, but `{from}` in a, allowed: one a report"));
        }
        let other = PEER_FILE.replace("library A 1.0", "library A 1.1");
        let error = joined(&[("a", PEER_FILE), ("b", &other)]).err().unwrap().to_string();
        assert_eq!(
            error,
            "b: software of library A is `library A 1.1`, but `library A 1.0` in a, allowed: one a report"
        );
    }

    #[test]
    fn a_time_of_ours_has_a_kernel() {
        let without = PEER_FILE.replace("library A\",\"call", "evo-sdpa\",\"call");
        assert_eq!(joined(&[("a", &without)]).err().unwrap().to_string(), "a: kernel is missing in a time of evo-sdpa");
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 8.0]), Some(3.0));
        assert_eq!(median(vec![]), None);
    }
}
