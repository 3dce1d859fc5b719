//! Plays random caches under random work and faults, and checks every hit against the history of its key.
//!
//! ```text
//! cargo run --release -p tierkeep-sim --example explore -- --seeds 10000 --from 0
//! ```
//!
//! `--seeds N` how many (default 1,000); `--from N` the first (default 0); `--once` plays each seed once instead of
//! twice; `--plant RULE` takes out a rule of the engine (see `tierkeep::Plant`) and reports the first seed that notices;
//! `--behind` plays caches with write-behind tiers, and takes out their rules;
//! `--keep 3,7` plays only these steps of each scenario (as a shrunk violation prints them). Ends with exit code
//! 1 if anything was wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;

use tierkeep::{FenceCounts, Plant, plant};
use tierkeep_sim::exploration::{Outcome, Scenario, Violation, newest_stamp_wins, run, shrink};

struct Arguments {
    seeds: u64,
    from: u64,
    twice: bool,
    behind: bool,
    keep: Option<Vec<usize>>,
    plants: Vec<Plant>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    // Planned panics are part of the work; their messages are not news.
    std::panic::set_hook(Box::new(|_| {}));
    if !arguments.plants.is_empty() {
        return seek(&arguments);
    }
    let mut totals = Totals::default();
    for seed in arguments.from..arguments.from + arguments.seeds {
        let mut scenario = arguments.draw(seed);
        if let Some(keep) = &arguments.keep {
            scenario.steps.retain(|step| keep.contains(&step.id));
        }
        totals.play(&scenario, arguments.twice, if arguments.behind { "--behind " } else { "" });
    }
    totals.print();
    let idle = totals.idle_faults();
    if arguments.keep.is_none() && totals.seeds >= ENOUGH && !idle.is_empty() {
        println!("faults that never struck: {}", idle.join(" "));
        return ExitCode::FAILURE;
    }
    if totals.violations + totals.stalls + totals.diverged == 0 && totals.is_below_ceiling() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments =
        Arguments { seeds: 1000, from: 0, twice: true, behind: false, keep: None, plants: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
        match word.as_str() {
            "--seeds" => arguments.seeds = number(value()?)?,
            "--from" => arguments.from = number(value()?)?,
            "--plant" => arguments.plants = plants(&value()?)?,
            "--once" => arguments.twice = false,
            "--behind" => arguments.behind = true,
            "--keep" => {
                let steps = value()?;
                let steps = steps.split(',').filter(|step| !step.is_empty());
                let steps = steps.map(|step| step.parse().map_err(|_| format!("`{step}` is not a step")));
                arguments.keep = Some(steps.collect::<Result<_, _>>()?);
            }
            other => {
                return Err(format!(
                    "unknown argument `{other}`; known: --seeds --from --once --behind --plant --keep"
                ));
            }
        }
    }
    Ok(arguments)
}

impl Arguments {
    fn draw(&self, seed: u64) -> Scenario {
        if self.behind { Scenario::draw_behind(seed) } else { Scenario::draw(seed) }
    }
}

fn plants(name: &str) -> Result<Vec<Plant>, String> {
    let bugs: Vec<_> = Plant::ALL.into_iter().chain(Plant::BEHIND).collect();
    let known: Vec<_> = bugs.iter().map(|bug| format!("{bug:?}")).collect();
    match known.iter().position(|bug| bug == name) {
        Some(index) => Ok(vec![bugs[index]]),
        None if name == "all" => Ok(Plant::ALL.to_vec()),
        None if name == "behind" => Ok(Plant::BEHIND.to_vec()),
        None => Err(format!("no rule `{name}`; known: all behind {}", known.join(" "))),
    }
}

/// Finds the first seed that notices each planted bug.
fn seek(arguments: &Arguments) -> ExitCode {
    let mut caught = 0;
    for &bug in &arguments.plants {
        plant(Some(bug));
        let seeds = arguments.from..arguments.from + arguments.seeds;
        let played = seeds.map(|seed| {
            let mut violations = run(&arguments.draw(seed)).violations;
            violations.extend(newest_stamp_wins(seed));
            (seed, violations)
        });
        let found = played.into_iter().find(|(_, violations)| !violations.is_empty());
        plant(None);
        match found {
            Some((seed, violations)) => {
                caught += 1;
                println!("{bug:?}: seed {seed}: {}", violations[0]);
            }
            None => println!("{bug:?}: not noticed"),
        }
    }
    println!("caught={caught}/{}", arguments.plants.len());
    if caught == arguments.plants.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    checked: u64,
    hits: u64,
    violations: u64,
    stalls: u64,
    diverged: u64,
    fills: u64,
    fills_void: u64,
    faults: BTreeMap<&'static str, u64>,
    /// By stripes of the table.
    fences: BTreeMap<usize, FenceCounts>,
}

/// The share of fences that may be void in vain with the default table. Nothing but keys that share a stripe makes
/// them so: of `n` keys that are written at once, one in 4,096 / `n`.
const VAIN_CEILING: f64 = 0.005;
const DEFAULT_STRIPES: usize = 4096;
/// Among so many seeds, every kind of fault strikes.
const ENOUGH: u64 = 1000;

impl Totals {
    fn play(&mut self, scenario: &Scenario, twice: bool, behind: &str) {
        let outcome = run(scenario);
        self.seeds += 1;
        self.checked += outcome.checked;
        self.hits += outcome.hits;
        self.fills += outcome.fills;
        self.fills_void += outcome.fills_void;
        let fences = self.fences.entry(scenario.stripes).or_default();
        fences.asked += outcome.fences.asked;
        fences.void += outcome.fences.void;
        fences.in_vain += outcome.fences.in_vain;
        for (fault, n) in &outcome.faults {
            *self.faults.entry(fault).or_default() += n;
        }
        let told = |outcome: &Outcome| {
            (outcome.trace, outcome.checked, outcome.hits, outcome.faults.clone(), outcome.violations.len())
        };
        if twice && told(&run(scenario)) != told(&outcome) {
            self.diverged += 1;
            println!("seed {}: two runs differ", scenario.seed);
        }
        if let Some(violation) = newest_stamp_wins(scenario.seed) {
            self.violations += 1;
            println!("seed {}: {violation}", scenario.seed);
        }
        if outcome.violations.is_empty() {
            return;
        }
        self.violations += 1;
        let stalls =
            outcome.violations.iter().filter(|violation| matches!(violation, Violation::Stall { .. }));
        self.stalls += stalls.count() as u64;
        let shortest = shrink(scenario, 300);
        println!("seed {}: {} tiers, {} steps", scenario.seed, scenario.tiers.len(), scenario.steps.len());
        println!("  read {:?}, write {:?}", scenario.read, scenario.write);
        for tier in &shortest.tiers {
            println!("  {tier:?}");
        }
        for step in &shortest.steps {
            println!("  {step:?}");
        }
        for violation in run(&shortest).violations.iter().take(4) {
            println!("  {violation}");
        }
        let keep: Vec<_> = shortest.steps.iter().map(|step| step.id.to_string()).collect();
        println!(
            "  replay: cargo run --release -p tierkeep-sim --example explore -- {behind}--seeds 1 --from {} --keep {}",
            scenario.seed,
            keep.join(",")
        );
    }

    /// The kinds of faults that never struck.
    fn idle_faults(&self) -> Vec<&'static str> {
        self.faults.iter().filter(|(_, n)| **n == 0).map(|(fault, _)| *fault).collect()
    }

    /// Whether the default table costs no more refills than stated.
    fn is_below_ceiling(&self) -> bool {
        let fences = self.fences.get(&DEFAULT_STRIPES).copied().unwrap_or_default();
        fences.in_vain as f64 <= VAIN_CEILING * fences.asked as f64
    }

    fn print(&self) {
        for (fault, n) in &self.faults {
            println!("fault {fault} {n}");
        }
        let share = 100.0 * self.fills_void as f64 / (self.fills + self.fills_void).max(1) as f64;
        println!("hits {} fills {} void {} ({share:.1} %)", self.hits, self.fills, self.fills_void);
        for (stripes, fences) in &self.fences {
            let percent = |n: u64| 100.0 * n as f64 / fences.asked.max(1) as f64;
            println!(
                "fences of {stripes} stripes: asked {} void {:.2} % in vain {:.2} %{}",
                fences.asked,
                percent(fences.void),
                percent(fences.in_vain),
                if *stripes == DEFAULT_STRIPES {
                    format!(" (ceiling {:.2} %)", 100.0 * VAIN_CEILING)
                } else {
                    String::new()
                }
            );
        }
        println!(
            "seeds={} ops_checked={} faults={} violations={} stalls={} diverged={}",
            self.seeds,
            self.checked,
            self.faults.values().sum::<u64>(),
            self.violations,
            self.stalls,
            self.diverged
        );
    }
}
