//! Replays any trace through any tiers, and draws hit ratio and latency over time.
//!
//! `cargo run --release --example replay -- --help` lists the options.

#[path = "replay/args.rs"]
mod args;
#[path = "replay/chart.rs"]
mod chart;
#[path = "replay/run.rs"]
mod run;
#[path = "replay/tiers.rs"]
mod tiers;
#[path = "replay/trace.rs"]
mod trace;

use std::error::Error;
use std::process::ExitCode;

use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

use args::{Args, Command};

/// Any error: the example only reports it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match args::parse() {
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Command::Run(args)) => start(&args),
        Err(error) => Err(format!("{error} (--help lists the options)").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<(), Failure> {
    let trace = trace::read(&args.trace, args.format)?;
    println!("{} requests of {}, on {}", trace.len(), args.trace.display(), args.runtime);
    let seen = match args.runtime.as_str() {
        "tokio" => {
            let tokio = tokio::runtime::Runtime::new()?;
            tokio.block_on(run::replay(TokioRuntime::new(tokio.handle().clone()).into(), args, trace))
        }
        "async-std" => async_std::task::block_on(run::replay(AsyncStdRuntime::new().into(), args, trace)),
        "smol" => smol::block_on(run::replay(SmolRuntime::new().into(), args, trace)),
        other => Err(format!("there is no runtime `{other}`: choose tokio, async-std or smol").into()),
    }?;
    seen.print();
    if let Some(path) = &args.svg {
        chart::draw(&seen, path)?;
        println!("drawn to {}", path.display());
    }
    Ok(())
}
