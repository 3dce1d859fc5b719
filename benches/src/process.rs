//! Sides in a process of their own, for figures of a whole process: its resident memory.

use std::process::{Command, ExitCode};

/// A job of a process of its own, and what it is called by.
pub type Side = (&'static str, fn() -> f64);

/// Names the job to the child; its figure is the last line it prints.
const VARIABLE: &str = "TIERKEEP_BENCH_SIDE";

/// Does the job that this process was started for, if it was started for one.
pub(crate) fn run_side(sides: &[&[Side]]) -> Option<ExitCode> {
    let wanted = std::env::var(VARIABLE).ok()?;
    let Some((_, job)) = sides.iter().copied().flatten().find(|(name, _)| *name == wanted) else {
        eprintln!("error: there is no side `{wanted}`");
        return Some(ExitCode::from(2));
    };
    println!("{}", job());
    Some(ExitCode::SUCCESS)
}

/// Starts this binary again to do the job `side`, and returns the figure that it found.
///
/// # Panics
/// If the process cannot be started or fails: a bench without its figure is worth nothing.
pub fn figure_of(side: &str) -> f64 {
    let binary = std::env::current_exe().expect("the path of this binary");
    let output = Command::new(binary).env(VARIABLE, side).output().expect("this binary, started again");
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the process of `{side}` failed: {complaint}");
    let last = printed.lines().last().unwrap_or_default();
    last.parse().unwrap_or_else(|_| panic!("the process of `{side}` printed no figure: {printed}"))
}

/// The memory that this process has resident, in bytes; `None` where `/proc` does not say.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1_024)
}
