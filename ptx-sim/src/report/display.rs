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
