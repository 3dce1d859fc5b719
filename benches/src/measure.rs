//! A measure, and the command that runs a list of them.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::{Arguments, Request};
use crate::output;
use crate::process;
use crate::report::Comparison;

/// What a measure yields: its comparisons, or why it could not run here.
pub type Outcome = Result<Vec<Comparison>, Skipped>;

/// One thing measured, on both sides.
pub struct Measure {
    /// The names of its comparisons, as they are asked for on the command line and stand in the output.
    pub names: &'static [&'static str],
    /// What is measured, in a line.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&Setting) -> Outcome,
}

/// How thoroughly to measure.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Counted rounds of each side; at least 10 for a figure to be quoted.
    pub rounds: usize,
    /// How long a round of one side lasts.
    pub round: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self { rounds: 15, round: Duration::from_millis(60) }
    }
}

/// Why a measure could not run on this machine.
#[derive(Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole of a bench binary: runs those of `measures` that the command line names (all by default) and prints what
/// they came to. `sides` are the jobs that a measure runs in a process of their own, by name.
pub fn main(measures: &[&[Measure]], sides: &[&[process::Side]]) -> ExitCode {
    if let Some(code) = process::run_side(sides) {
        return code;
    }
    let measures: Vec<&Measure> = measures.iter().copied().flatten().collect();
    let arguments = match Arguments::parse(std::env::args_os()) {
        Ok(Request::Run(arguments)) => arguments,
        Ok(Request::Help) => {
            println!("{}", Arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Request::List) => {
            print!("{}", output::list(&measures));
            return ExitCode::SUCCESS;
        }
        Err(message) => return fail(&message),
    };
    let known = |name: &str| measures.iter().any(|measure| measure.names.contains(&name));
    if let Some(unknown) = arguments.names.iter().find(|name| !known(name)) {
        let all: Vec<_> = measures.iter().flat_map(|measure| measure.names).copied().collect();
        return fail(&format!("there is no measure `{unknown}`; there are: {}", all.join(", ")));
    }
    let wanted =
        |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name);
    let mut comparisons = Vec::new();
    let mut skipped = Vec::new();
    for measure in measures {
        if !measure.names.iter().any(|name| wanted(name)) {
            continue;
        }
        eprintln!("measuring {}: {}", measure.names.join(", "), measure.about);
        match (measure.run)(&arguments.setting) {
            Ok(done) => {
                let done = done.into_iter().filter(|comparison| wanted(comparison.name));
                comparisons.extend(done.inspect(|comparison| eprintln!("  {}", output::line(comparison))));
            }
            Err(reason) => {
                eprintln!("  skipped: {reason}");
                skipped.push((measure.names.join(", "), reason));
            }
        }
    }
    match output::write(&comparisons, &skipped, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
}
