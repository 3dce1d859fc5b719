//! Replays a real trace of a shop's product pages through memory and disk, in front of a simulated origin.
//!
//! `cargo run --release --example quickstart -- --help` lists the options. The cache itself is set up in `run`; the
//! files beside this one are the arguments, the trace, the origin, the replay and the table.

#[path = "quickstart/args.rs"]
mod args;
#[path = "quickstart/origin.rs"]
mod origin;
#[path = "quickstart/replay.rs"]
mod replay;
#[path = "quickstart/report.rs"]
mod report;
#[path = "quickstart/trace.rs"]
mod trace;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tierkeep::backend::DiskBackend;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend, Region, Tier};
use tierkeep_async_std::AsyncStdRuntime;
use tierkeep_smol::SmolRuntime;
use tierkeep_tokio::TokioRuntime;

use args::{Args, Chosen, Command};
use origin::{Origin, Product};

/// Any error: the quick start only reports it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// 5 % of the trace's 13,756 keys.
const MEMORY_ENTRIES: usize = 687;

fn main() -> ExitCode {
    let result = match args::parse() {
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(())
        }
        Ok(Command::Run(args)) => start(args),
        Err(error) => Err(format!("{error} (--help lists the options)").into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Hands the cache the runtime that was chosen: the only difference between the three.
fn start(args: Args) -> Result<(), Failure> {
    let (dir, fresh) = directory(args.dir)?;
    println!("runtime    {}", args.runtime.name());
    println!("disk tier  {}{}", dir.display(), if fresh { " (new, and kept)" } else { "" });
    match args.runtime {
        Chosen::Tokio => {
            let tokio = tokio::runtime::Runtime::new()?;
            tokio.block_on(run(TokioRuntime::new(tokio.handle().clone()).into(), &dir))
        }
        Chosen::AsyncStd => async_std::task::block_on(run(AsyncStdRuntime::new().into(), &dir)),
        Chosen::Smol => smol::block_on(run(SmolRuntime::new().into(), &dir)),
    }?;
    if fresh {
        println!("run it again with `-- --dir {}` and it starts warm", dir.display());
    }
    Ok(())
}

async fn run(runtime: RuntimeHandle, dir: &PathBuf) -> Result<(), Failure> {
    let trace = trace::web12()?;
    let origin = Arc::new(Origin::new(runtime.clone()));
    println!("origin     simulated: {} ms a load, on the runtime's timer\n", origin::DELAY.as_millis());

    // The memory tier on top, the disk tier below. `required`: a directory that cannot be opened is an error here.
    // Without it the cache would serve from memory, and try the directory again in the background.
    let disk = DiskBackend::builder(dir).capacity_bytes(256 << 20).build()?;
    let cache = Cache::builder(runtime.clone())
        .tier(MemoryBackend::entries(MEMORY_ENTRIES))
        .tier(Tier::new(disk).required(true))
        .build()
        .await?;
    let products: Region<Product, u32> = cache.region("product").ttl(Duration::from_secs(86_400)).build()?;

    let replayed = replay::replay(&runtime, &products, &origin, trace).await?;
    report::print(&cache.inspect(), &replayed, origin.loads());

    let ended = cache.shutdown(Duration::from_secs(10)).await;
    if !ended.clean {
        return Err(format!("the cache did not end cleanly: {ended:?}").into());
    }
    println!("shut down in {} ms, everything flushed", ended.elapsed.as_millis());
    Ok(())
}

/// The directory to use, and whether it was made for this run.
fn directory(given: Option<PathBuf>) -> Result<(PathBuf, bool), Failure> {
    match given {
        Some(dir) => Ok((dir, false)),
        None => Ok((tempfile::Builder::new().prefix("tierkeep-quickstart-").tempdir()?.keep(), true)),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // Some messages quote their cause already.
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}
