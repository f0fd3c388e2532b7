//! Reading what ptxas says.

use crate::gates::Defect;
use crate::manifest::Resources;

/// What ptxas says about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the entry needs.
    pub resources: Resources,
    /// Warnings and remarks, line by line.
    pub warnings: Vec<String>,
}

impl Report {
    /// What is wrong with an entry on `arch`, whose threads may use `budget` registers there if that is bounded.
    pub fn defects(&self, arch: &'static str, budget: Option<u32>) -> Vec<Defect> {
        let Resources { registers, stack, spill_stores, spill_loads, .. } = self.resources;
        let mut defects = Vec::new();
        if stack > 0 {
            defects.push(Defect::Stack { arch, bytes: stack });
        }
        if spill_stores + spill_loads > 0 {
            defects.push(Defect::Spills { arch, bytes: spill_stores + spill_loads });
        }
        match budget {
            Some(budget) if registers > budget => {
                defects.push(Defect::Registers { arch, used: registers, budget });
            }
            _ => {}
        }
        defects.extend(self.warnings.iter().map(|message| Defect::Warning { arch, message: message.clone() }));
        defects
    }
}

/// The report in the output of `ptxas -v` on a text with one entry; `None` when it has none.
pub fn parse_report(output: &str) -> Option<Report> {
    // "Used 40 registers, used 1 barriers, 16 bytes smem, 528 bytes cmem[0]": the number before a word.
    let number = |what: &str| {
        output
            .lines()
            .flat_map(|line| line.split([',', ':']))
            .find_map(|part| part.trim().trim_start_matches("Used ").strip_suffix(what)?.trim().parse().ok())
    };
    let resources = Resources {
        registers: number("registers")?,
        stack: number("bytes stack frame")?,
        spill_stores: number("bytes spill stores")?,
        spill_loads: number("bytes spill loads")?,
        static_shared: number("bytes smem").unwrap_or(0),
    };
    let is_warning = |line: &&str| line.contains("warning") || line.contains("(C75");
    Some(Report { resources, warnings: output.lines().filter(is_warning).map(|line| line.trim().to_owned()).collect() })
}

/// The version in the output of `ptxas --version`.
pub fn parse_version(output: &str) -> Option<String> {
    let (_, version) = output.lines().find(|line| line.contains("release"))?.rsplit_once(", V")?;
    Some(version.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fwd_sm80_f16_d96_q64_kv64_w4_s2' for 'sm_89'
ptxas info    : Function properties for fwd_sm80_f16_d96_q64_kv64_w4_s2
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 528 bytes cmem[0]
ptxas info    : Compile time = 2.034 ms
";
    const SPILLED: &str = "\
ptxas info    : Compiling entry function 'k' for 'sm_90'
ptxas info    : Function properties for k
    40 bytes stack frame, 36 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 40 bytes cumulative stack size, 1024 bytes smem
";

    #[test]
    fn a_clean_report_is_read_and_passes() {
        let report = parse_report(CLEAN).unwrap();
        let expected = Resources { registers: 12, stack: 0, spill_stores: 0, spill_loads: 0, static_shared: 0 };
        assert_eq!(report.resources, expected);
        assert_eq!(report.defects("sm_89", Some(12)), []);
    }

    #[test]
    fn stack_and_spills_are_defects_on_every_gpu() {
        let report = parse_report(SPILLED).unwrap();
        assert_eq!(report.resources.static_shared, 1024);
        assert_eq!(
            report.defects("sm_90", None),
            [Defect::Stack { arch: "sm_90", bytes: 40 }, Defect::Spills { arch: "sm_90", bytes: 80 }]
        );
    }

    #[test]
    fn a_register_over_the_budget_is_a_defect() {
        let report = parse_report(CLEAN).unwrap();
        assert_eq!(report.defects("sm_89", Some(11)), [Defect::Registers { arch: "sm_89", used: 12, budget: 11 }]);
        assert_eq!(report.defects("sm_80", None), []);
    }

    #[test]
    fn warnings_and_c75_remarks_are_defects() {
        let warning = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are \
                       serialized due to insufficient register resources in function 'k'";
        let report = parse_report(&format!("{CLEAN}{warning}\n")).unwrap();
        assert_eq!(report.defects("sm_90", None), [Defect::Warning { arch: "sm_90", message: warning.to_owned() }]);
    }

    #[test]
    fn output_without_a_report_is_none() {
        assert_eq!(parse_report("ptxas fatal   : Ptx assembly aborted due to errors"), None);
    }

    #[test]
    fn the_version_is_read() {
        let output = "ptxas: NVIDIA (R) Ptx optimizing assembler\nCuda compilation tools, release 13.5, V13.5.37\n";
        assert_eq!(parse_version(output), Some("13.5.37".to_owned()));
        assert_eq!(parse_version("something else"), None);
    }
}
