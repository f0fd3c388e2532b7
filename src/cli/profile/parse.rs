//! What Nsight Compute prints with `--page raw --csv`: a row of names, a row of units, a row for each launch.

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use std::collections::BTreeMap;

/// Start of the row of names.
const FIRST: &str = "\"ID\",";
/// Columns that are about the launch and not measured.
const KERNEL: &str = "Kernel Name";
const GRID: &str = "Grid Size";
const BLOCK: &str = "Block Size";
const COMPUTE_CAPABILITY: &str = "CC";

/// The figures of one launch.
#[derive(Debug)]
pub struct Profile {
    /// Entry name of the kernel.
    pub kernel: String,
    /// Blocks along x, y and z, as Nsight Compute writes them.
    pub grid: String,
    /// Threads of a block along x, y and z, likewise.
    pub block: String,
    /// Compute capability of the device, major * 10 + minor.
    pub compute_capability: u32,
    /// What was measured; times in nanoseconds.
    metrics: BTreeMap<String, f64>,
}

impl Profile {
    /// Reads the table from a text that may hold other lines before and after it.
    pub fn parse(text: &str) -> Result<Self> {
        let rows = text.lines().skip_while(|line| !line.starts_with(FIRST)).take_while(|line| line.starts_with('"'));
        let table = rows.collect::<Vec<_>>().join("\n");
        ensure!(!table.is_empty(), "no table of Nsight Compute, allowed: what `ncu --page raw --csv` prints");
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let names = reader.headers()?.clone();
        if names.iter().any(|name| name == "Metric Name") {
            bail!(
                "a table with a row for each figure, allowed: one with a row for each launch (`ncu --page raw --csv`)"
            );
        }
        let records = reader.into_records().collect::<Result<Vec<_>, _>>()?;
        let [units, launch] = &records[..] else {
            bail!("a table of {} rows, allowed: a row of units and one launch", records.len());
        };
        Self::new(&names, units, launch)
    }

    fn new(names: &StringRecord, units: &StringRecord, launch: &StringRecord) -> Result<Self> {
        let column = |name: &str| {
            let at = names.iter().position(|found| found == name);
            at.map(|at| launch[at].to_string()).with_context(|| format!("the table has no column `{name}`"))
        };
        // A launch has an ID, a unit does not.
        ensure!(units[0].is_empty(), "the table has no row of units");
        let compute_capability = column(COMPUTE_CAPABILITY)?;
        let compute_capability = parse_compute_capability(&compute_capability)
            .with_context(|| format!("{COMPUTE_CAPABILITY}: `{compute_capability}`, allowed: such as 9.0"))?;
        let mut metrics = BTreeMap::new();
        for ((name, unit), value) in names.iter().zip(units).zip(launch) {
            // What an architecture does not have reads `n/a`; other columns hold words.
            if let Some(value) = parse_number(value) {
                metrics.insert(name.to_string(), value * scale(unit));
            }
        }
        Ok(Self { kernel: column(KERNEL)?, grid: column(GRID)?, block: column(BLOCK)?, compute_capability, metrics })
    }

    /// A figure, if it was measured.
    pub fn get(&self, metric: &str) -> Option<f64> {
        self.metrics.get(metric).copied()
    }
}

/// `9.0` as 90.
fn parse_compute_capability(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 100 && minor < 10).then_some(major * 10 + minor)
}

/// A number with commas between thousands.
fn parse_number(text: &str) -> Option<f64> {
    text.replace(',', "").parse().ok().filter(|value: &f64| value.is_finite())
}

/// Nanoseconds of a unit of time, 1 for any other unit: `--print-units auto` changes times, and none of the others that
/// are used here.
fn scale(unit: &str) -> f64 {
    match unit {
        "us" | "usecond" => 1e3,
        "ms" | "msecond" => 1e6,
        "s" | "second" => 1e9,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{DRAM, TIME};
    use super::*;

    const HEADER: &str = r#""ID","Process ID","Kernel Name","Context","Block Size","Grid Size","Device","CC""#;
    const LAUNCH: &str = r#""0","77","fwd","1","(128, 1, 1)","(8, 8, 2)","0","9.0""#;

    fn table(names: &str, units: &str, values: &str) -> String {
        format!(
            "==PROF== Connected to process 77\nthe program's own words\n{HEADER},{names}\n\
             \"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",{units}\n{LAUNCH},{values}\n==PROF== Disconnected from process 77\n"
        )
    }

    #[test]
    fn the_table_is_found_between_other_lines() {
        let profile = Profile::parse(&table(r#""x.sum""#, r#""inst""#, r#""1,234,567""#)).unwrap();
        assert_eq!(profile.get("x.sum"), Some(1234567.0));
        assert_eq!((&profile.kernel[..], profile.compute_capability), ("fwd", 90));
        assert_eq!((&profile.grid[..], &profile.block[..]), ("(8, 8, 2)", "(128, 1, 1)"));
    }

    #[test]
    fn times_are_nanoseconds_whatever_their_unit() {
        for (unit, value) in [("ns", "7,610"), ("nsecond", "7610.0"), ("us", "7.61"), ("ms", "0.00761")] {
            let text = table(&format!("\"{TIME}\""), &format!("\"{unit}\""), &format!("\"{value}\""));
            let time = Profile::parse(&text).unwrap().get(TIME).unwrap();
            assert!((time - 7610.0).abs() < 1e-6, "{time} from {value} {unit}");
        }
    }

    #[test]
    fn what_was_not_measured_is_missing_and_not_zero() {
        for value in ["n/a", "", "nan", "inf", "some words"] {
            let names = r#""dram__throughput.avg.pct_of_peak_sustained_elapsed","y""#;
            let profile = Profile::parse(&table(names, r#""%","""#, &format!("\"{value}\",\"0\""))).unwrap();
            assert_eq!(DRAM.busy(|metric| profile.get(metric)), None, "{value}");
            assert_eq!((profile.get("y"), profile.get("z")), (Some(0.0), None));
        }
    }

    #[test]
    fn other_tables_are_refused_with_what_they_are() {
        let refused = |text: &str| format!("{:#}", Profile::parse(text).unwrap_err());
        let details = format!("{HEADER},\"Section Name\",\"Metric Name\",\"Metric Unit\",\"Metric Value\"\n");
        assert!(refused(&details).contains("a row for each figure"));
        for text in ["", "a,b\n1,2\n", "==ERROR== nothing", "\u{0}\u{1}"] {
            assert!(refused(text).contains("no table of Nsight Compute"), "{text:?}");
        }
        let good = table(r#""x""#, r#""""#, r#""1""#);
        let launch = format!("{LAUNCH},\"1\"");
        assert!(refused(&good.replace(&launch, &format!("{launch}\n{launch}"))).contains("of 3 rows"));
        assert!(refused(&good.replace(&launch, "")).contains("of 1 rows"));
        assert!(refused(&good.replace(&launch, LAUNCH)).contains("record"), "a short row");
        assert!(
            refused(&good.replace("\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"", &launch)).contains("row of units")
        );
        assert!(refused(&good.replace("\"CC\"", "\"C\"")).contains("no column `CC`"));
        assert!(refused(&good.replace("\"9.0\"", "\"nine\"")).contains("`nine`"));
    }
}
