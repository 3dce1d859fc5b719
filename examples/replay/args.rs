//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Replays a trace through a cache: each request reads its key, and loads and stores it on a miss.

Usage: cargo run --release --example replay -- --trace FILE [OPTIONS]

Options:
  --trace FILE        requests, one key each
  --format NAME       u32: big-endian 32-bit numbers; text: one key a line; either may be packed with zstd
                      [default: text if the name without `.zst` ends in .txt or .keys, else u32]
  --tier TIER         repeat from the top down [default: memory:1000]:
                        memory:ENTRIES   the in-process tier
                        moka:ENTRIES     the same on moka (feature `moka`)
                        disk:MB:DIR      on disk (feature `disk`)
  --runtime NAME      tokio, async-std or smol [default: tokio]
  --concurrency N     requests under way at a time [default: 16]
  --load-delay US     how long the origin takes, in microseconds [default: 0]
  --svg FILE          draws hit ratio and median latency over time, per tier
  -h, --help          print this
";

pub(crate) enum Command {
    Help,
    Run(Args),
}

pub(crate) struct Args {
    pub(crate) trace: PathBuf,
    pub(crate) format: Option<Format>,
    pub(crate) tiers: Vec<String>,
    pub(crate) runtime: String,
    pub(crate) concurrency: usize,
    pub(crate) load_delay: Duration,
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Format {
    U32,
    Text,
}

pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_env();
    let mut args = Args {
        trace: PathBuf::new(),
        format: None,
        tiers: Vec::new(),
        runtime: "tokio".to_owned(),
        concurrency: 16,
        load_delay: Duration::ZERO,
        svg: None,
    };
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("trace") => args.trace = parser.value()?.into(),
            Arg::Long("format") => {
                args.format = Some(match parser.value()?.string()?.as_str() {
                    "u32" => Format::U32,
                    "text" => Format::Text,
                    other => return Err(format!("there is no format `{other}`: choose u32 or text").into()),
                });
            }
            Arg::Long("tier") => args.tiers.push(parser.value()?.string()?),
            Arg::Long("runtime") => args.runtime = parser.value()?.string()?,
            Arg::Long("concurrency") => args.concurrency = parser.value()?.parse::<usize>()?.max(1),
            Arg::Long("load-delay") => args.load_delay = Duration::from_micros(parser.value()?.parse()?),
            Arg::Long("svg") => args.svg = Some(parser.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    if args.trace.as_os_str().is_empty() {
        return Err("which trace? `--trace FILE`".into());
    }
    if args.tiers.is_empty() {
        args.tiers.push("memory:1000".to_owned());
    }
    Ok(Command::Run(args))
}
