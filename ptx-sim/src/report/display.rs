//! Reports as text.

use std::fmt;

use super::{Class, Counters, Finding, Kind, LineCounters, Place, Report, Source, Space};

/// Instructions of a text are cut to this many characters.
const INSTRUCTION: usize = 72;

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.column > 0 { write!(f, ":{}", self.column) } else { Ok(()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        let thread = self.warp * 32 + self.lane;
        write!(f, "block ({x},{y},{z}) warp {} lane {} (thread {thread})", self.warp, self.lane)?;
        write!(f, "  ptx:{}  {}", self.line, Cut(&self.instruction))?;
        match &self.source {
            Some(source) => write!(f, "  {source}"),
            None => Ok(()),
        }
    }
}

/// A text without its end if it is long.
struct Cut<'a>(&'a str);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(INSTRUCTION) {
            Some((end, _)) => write!(f, "{}...", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// A paragraph that ends with its last character.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.kind, self.message)?;
        if self.count > 1 {
            write!(f, ", {} times, first:", self.count)?;
        }
        write!(f, "\n  at    {}", self.at)?;
        if let Some(with) = &self.with {
            write!(f, "\n  with  {with}")?;
        }
        match self.memory {
            Some((space, address, bytes)) => write!(f, "\n  {space} {address:#06x}, {}", Plural(bytes.into(), "byte")),
            None => Ok(()),
        }
    }
}

/// A number of things.
struct Plural(u64, &'static str);

impl fmt::Display for Plural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A paragraph for each finding, or a line if there is none.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        f.write_str("ptx-sim: ")?;
        match self.findings.len() as u64 {
            0 => f.write_str("no errors")?,
            kinds => Plural(kinds, "error").fmt(f)?,
        }
        write!(f, " in {}, grid ({gx},{gy},{gz}), block ({bx},{by},{bz}), seed {}", self.kernel, self.seed)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

impl Report {
    /// The counters as a table: instructions by class, and the lines whose requests cost more than they need to.
    pub fn counters_table(&self) -> impl fmt::Display + '_ {
        Table(self)
    }
}

struct Table<'a>(&'a Report);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let Counters {
            instructions,
            partial,
            divergent_branches,
            wavefronts_ideal,
            wavefronts,
            sectors_ideal,
            sectors,
        } = report.total;
        writeln!(f, "{}: {}, {partial} partial", report.kernel, Plural(instructions, "instruction"))?;
        for class in Class::ALL {
            let executed = report.executed(class);
            if executed > 0 {
                writeln!(f, "  {class:<20} {executed:>12}")?;
            }
        }
        writeln!(f, "  {:<20} {divergent_branches:>12}", "divergent branches")?;
        writeln!(f, "  {:<20} {wavefronts:>12}  ideal {wavefronts_ideal}", "shared wavefronts")?;
        lines(f, report, |counters| (counters.wavefronts_ideal, counters.wavefronts))?;
        writeln!(f, "  {:<20} {sectors:>12}  ideal {sectors_ideal}", "global sectors")?;
        lines(f, report, |counters| (counters.sectors_ideal, counters.sectors))?;
        write!(f, "  {:<20} {:>12}", "peak shared bytes", report.peak_shared)
    }
}

/// The lines whose real cost exceeds the ideal.
fn lines(f: &mut fmt::Formatter<'_>, report: &Report, cost: impl Fn(&Counters) -> (u64, u64)) -> fmt::Result {
    for LineCounters { line, instruction, source, counters, .. } in &report.lines {
        let (ideal, real) = cost(counters);
        if real > ideal {
            write!(f, "    ptx:{line:<6} {real:>20}  ideal {ideal}  {}", Cut(instruction))?;
            match source {
                Some(source) => writeln!(f, "  {source}")?,
                None => writeln!(f)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let (total, lines) = (Counters::default(), Vec::new());
        let (kernel, findings) = ("forward".to_string(), Vec::new());
        Report { kernel, grid: [2, 1, 1], block: [128, 1, 1], seed: 7, findings, total, lines, peak_shared: 0 }
    }

    fn place(warp: u32, line: u32, instruction: &str) -> Place {
        let source = Some(Source { file: "src/tile.rs".to_string(), line: line / 2, column: 9 });
        Place { block: [1, 0, 0], warp, lane: 2, line, instruction: instruction.to_string(), source }
    }

    #[test]
    fn a_clean_report_is_a_line() {
        let text = report().to_string();
        assert_eq!(text, "ptx-sim: no errors in forward, grid (2,1,1), block (128,1,1), seed 7");
    }

    #[test]
    fn a_finding_is_a_paragraph() {
        let race = Finding {
            kind: Kind::SharedRace,
            at: place(1, 252, "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3,%r4}, [%r136]"),
            with: Some(place(0, 98, "cp.async.cg.shared.global [%r65], [%rd7], 16")),
            memory: Some((Space::Shared, 0x800, 16)),
            message: "read after a write of another warp, no barrier between".to_string(),
            count: 49856,
        };
        let mut trap = Finding { kind: Kind::Trap, with: None, memory: None, count: 1, ..race.clone() };
        trap.message = "the kernel panicked".to_string();
        trap.at.source = None;
        trap.at.instruction = "trap".to_string();
        let expected = "\
ptx-sim: 2 errors in forward, grid (2,1,1), block (128,1,1), seed 7
error[shared-race]: read after a write of another warp, no barrier between, 49856 times, first:
  at    block (1,0,0) warp 1 lane 2 (thread 34)  ptx:252  \
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1,%r2,%r3,%r4}, [%r136]  src/tile.rs:126:9
  with  block (1,0,0) warp 0 lane 2 (thread 2)  ptx:98  \
cp.async.cg.shared.global [%r65], [%rd7], 16  src/tile.rs:49:9
  shared 0x0800, 16 bytes
error[trap]: the kernel panicked
  at    block (1,0,0) warp 1 lane 2 (thread 34)  ptx:252  trap";
        assert_eq!(Report { findings: vec![race, trap], ..report() }.to_string(), expected);
    }

    #[test]
    fn long_instructions_are_cut() {
        let text = place(0, 2, &"é".repeat(100)).to_string();
        assert!(text.contains(&format!("  {}...  src", "é".repeat(INSTRUCTION))));
    }

    #[test]
    fn the_table_shows_classes_and_lines_that_cost_too_much() {
        let line = |line, class, counters| {
            let instruction = format!("instruction {line}");
            LineCounters { line, instruction, class, source: None, counters }
        };
        let shared = Counters { instructions: 3, wavefronts_ideal: 3, wavefronts: 24, ..Counters::default() };
        let global = Counters { instructions: 1, sectors_ideal: 4, sectors: 4, ..Counters::default() };
        let total = Counters {
            instructions: 4,
            partial: 1,
            divergent_branches: 2,
            wavefronts_ideal: 3,
            wavefronts: 24,
            sectors_ideal: 4,
            sectors: 4,
        };
        let lines = vec![line(10, Class::MatrixLoad, shared), line(20, Class::Global, global)];
        let report = Report { total, lines, peak_shared: 16384, ..report() };
        let expected = "\
forward: 4 instructions, 1 partial
  global                          1
  matrix load                     3
  divergent branches              2
  shared wavefronts              24  ideal 3
    ptx:10                       24  ideal 3  instruction 10
  global sectors                  4  ideal 4
  peak shared bytes           16384";
        assert_eq!(report.counters_table().to_string(), expected);
    }

    #[test]
    fn names_are_short_words() {
        assert_eq!(
            (Kind::SharedRace.to_string(), Kind::OutOfBounds.name()),
            ("shared-race".to_string(), "out-of-bounds")
        );
        assert_eq!((format!("{:>8}|", Class::Matrix), Space::Const.name()), ("  matrix|".to_string(), "const"));
    }
}
