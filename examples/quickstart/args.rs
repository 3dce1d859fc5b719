//! What the command line says.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Replays 95,607 real requests through a memory and a disk tier, in front of a simulated origin.

Usage: cargo run --release --example quickstart -- [OPTIONS]

Options:
  --runtime NAME  tokio, async-std or smol [default: tokio]
  --dir DIR       where the disk tier keeps its entries; given again, the next run starts warm
                  [default: a new directory under the system's temporary one]
  -h, --help      print this
";

pub(crate) enum Command {
    Help,
    Run(Args),
}

pub(crate) struct Args {
    pub(crate) runtime: Chosen,
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Chosen {
    Tokio,
    AsyncStd,
    Smol,
}

impl Chosen {
    const ALL: [Self; 3] = [Self::Tokio, Self::AsyncStd, Self::Smol];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::AsyncStd => "async-std",
            Self::Smol => "smol",
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|chosen| chosen.name() == name);
        found.ok_or_else(|| format!("there is no runtime `{name}`: choose tokio, async-std or smol"))
    }
}

pub(crate) fn parse() -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_env();
    let mut args = Args { runtime: Chosen::Tokio, dir: None };
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Long("runtime") => args.runtime = Chosen::named(&parser.value()?.string()?)?,
            Arg::Long("dir") => {
                let dir = PathBuf::from(parser.value()?);
                if dir.as_os_str().is_empty() {
                    return Err("`--dir` is empty: give it a directory".into());
                }
                args.dir = Some(dir);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Run(args))
}
