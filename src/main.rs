//! The program `evo-sdpa`: attention on tensors from a file, the correctness grid, a look at the kernels, and
//! their profile.

mod cli;

use clap::Parser;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// The answers of a run or a verification, or the figures of a profile, are not what they have to be.
const WRONG: u8 = 1;
/// Input that cannot be used; also clap's own code.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = cli::Cli::parse().run(&mut out).and_then(|right| Ok(out.flush().map(|()| right)?));
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(WRONG),
        // A reader that has seen enough, as `head` has.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line whatever stands in a file's header.
            let reason = format!("{error:#}").replace(char::is_control, " ");
            let _ = writeln!(io::stderr(), "evo-sdpa: {reason}");
            ExitCode::from(UNUSABLE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
