//! The table, the `RATIO` lines and the JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::arguments::{Arguments, Json};
use crate::measure::{Measure, Skipped};
use crate::report::{Comparison, Unit};

/// What `--json` gives.
#[derive(Serialize)]
struct Document<'a> {
    rounds: usize,
    comparisons: &'a [Comparison],
    skipped: Vec<Left<'a>>,
}

#[derive(Serialize)]
struct Left<'a> {
    name: &'a str,
    reason: &'a str,
}

pub(crate) fn write(
    comparisons: &[Comparison],
    skipped: &[(String, Skipped)],
    arguments: &Arguments,
) -> Result<(), String> {
    let left = skipped.iter().map(|(name, reason)| Left { name, reason: &reason.0 }).collect();
    let document = Document { rounds: arguments.setting.rounds, comparisons, skipped: left };
    let json = || serde_json::to_string_pretty(&document).map_err(|error| error.to_string());
    match &arguments.json {
        Json::Stdout => {
            println!("{}", json()?);
            return Ok(());
        }
        Json::File(path) => {
            std::fs::write(path, json()? + "\n")
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        }
        Json::No => {}
    }
    print!("{}", table(comparisons));
    for comparison in comparisons {
        println!("{}", line(comparison));
    }
    for (name, reason) in skipped {
        println!("SKIPPED name={name} reason=\"{reason}\"");
    }
    Ok(())
}

pub(crate) fn list(measures: &[&Measure]) -> String {
    measures.iter().fold(String::new(), |mut list, measure| {
        let _ = writeln!(list, "{:<28} {}", measure.names.join(", "), measure.about);
        list
    })
}

/// What other programs look for. `INFO` where there is no goal.
pub(crate) fn line(comparison: &Comparison) -> String {
    let kind = if comparison.goal.is_some() { "RATIO" } else { "INFO" };
    format!(
        "{kind} name={} ours={} peer={} theirs={} ratio={:.2}",
        comparison.name,
        plain(comparison.unit, comparison.ours),
        comparison.peer,
        plain(comparison.unit, comparison.theirs),
        comparison.ratio,
    )
}

fn plain(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::Share | Unit::PerOperation => format!("{figure:.4}"),
        _ if figure < 1_000.0 => format!("{figure:.1}{}", unit.suffix()),
        _ => format!("{figure:.0}{}", unit.suffix()),
    }
}

fn table(comparisons: &[Comparison]) -> String {
    let mut table = String::from(
        "\n| measure | tierkeep | least - greatest | peer | its figure | least - greatest | ratio | goal | |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for comparison in comparisons {
        let Comparison { name, unit, ours, ours_range, peer, theirs, theirs_range, ratio, goal } = comparison;
        let range = |(least, greatest)| format!("{} - {}", plain(*unit, least), plain(*unit, greatest));
        let verdict = match (goal, comparison.reached()) {
            (None, _) => "",
            (Some(_), true) => "reached",
            (Some(_), false) => "MISSED",
        };
        let goal = goal.map_or(String::new(), |goal| format!("≥ {goal}"));
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {peer} | {} | {} | {ratio:.2} | {goal} | {verdict} |",
            plain(*unit, *ours),
            range(*ours_range),
            plain(*unit, *theirs),
            range(*theirs_range),
        );
    }
    table + "\n"
}
