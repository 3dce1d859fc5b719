//! The command line of a bench binary.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::measure::Setting;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Run(Arguments),
    List,
    Help,
}

/// How to run.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// The comparisons asked for; all if empty.
    pub(crate) names: Vec<String>,
    pub(crate) json: Json,
    pub(crate) setting: Setting,
}

/// Where the figures go as JSON.
#[derive(Debug, Default)]
pub(crate) enum Json {
    #[default]
    No,
    /// To standard output, and the table not at all.
    Stdout,
    /// To a file, beside the table.
    File(PathBuf),
}

impl Arguments {
    pub(crate) const HELP: &str = "\
Usage: cargo bench -p tierkeep-benches --bench <bench> -- [NAME...] [OPTIONS]

  NAME...              the measures to run; all by default
  --list               lists the measures
  --json[=FILE]        prints the figures as JSON, or writes them to FILE beside the table
  --rounds N           counted rounds of each side (default 15; quote no figure of fewer than 10)
  --round-millis N     how long a round of one side lasts (default 60)";

    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
        Self::read(Parser::from_iter(arguments)).map_err(|error| format!("{error}\n\n{}", Self::HELP))
    }

    fn read(mut parser: Parser) -> Result<Request, lexopt::Error> {
        let mut arguments = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("bench" | "nocapture") => {} // what cargo passes
                Arg::Long("list") => return Ok(Request::List),
                Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help),
                Arg::Long("json") => {
                    arguments.json =
                        parser.optional_value().map_or(Json::Stdout, |file| Json::File(file.into()));
                }
                Arg::Long("rounds") => {
                    arguments.setting.rounds = parser.value()?.parse_with(positive)?;
                }
                Arg::Long("round-millis") => {
                    let millis = parser.value()?.parse_with(positive)?;
                    arguments.setting.round = Duration::from_millis(millis as u64);
                }
                Arg::Value(name) => arguments.names.push(name.string()?),
                unexpected => return Err(unexpected.unexpected()),
            }
        }
        Ok(Request::Run(arguments))
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a whole number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Request, String> {
        Arguments::parse(std::iter::once("peers").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn names_and_cargos_own_flag_are_told_apart() {
        let Ok(Request::Run(arguments)) = parse(&["hit_small", "--bench", "--rounds", "20"]) else {
            panic!("not understood")
        };
        assert_eq!(arguments.names, ["hit_small"]);
        assert_eq!(arguments.setting.rounds, 20);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(parse(&["--rounds", "0"]).unwrap_err().contains("at least 1"));
        assert!(parse(&["--sonj"]).unwrap_err().contains("sonj"));
    }
}
