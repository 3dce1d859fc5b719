//! The table.

use hdrhistogram::Histogram;
use tierkeep::Inspection;

use crate::replay::{FIRST, Replayed, Source};

/// Prints what the cache counted and the replay measured.
pub(crate) fn print(cache: &Inspection, replayed: &Replayed, loads: u64) {
    row("tier", ["reads", "hits", "hit ratio", "refills", "p50", "p99"].map(str::to_owned));
    for tier in &cache.tiers {
        let source = if tier.label.as_str() == "memory" { Source::Memory } else { Source::Disk };
        let (p50, p99) = percentiles(replayed.latencies(source));
        let (reads, ratio) = (&tier.reads, format!("{:.1} %", 100.0 * tier.reads.hit_ratio()));
        let [total, hits] = [reads.total(), reads.hits].map(|count| count.to_string());
        row(tier.label.as_str(), [total, hits, ratio, tier.writes.fills.to_string(), p50, p99]);
    }
    let (p50, p99) = percentiles(replayed.latencies(Source::Origin));
    let [none, also_none] = ["-", "-"].map(str::to_owned);
    row("origin", [loads.to_string(), loads.to_string(), none, also_none, p50, p99]);
    println!();
    for tier in cache.tiers.iter().filter(|tier| tier.reads.degraded() > 0) {
        println!("{}: {} reads went on without it: {:?}", tier.label, tier.reads.degraded(), tier.reads);
    }

    println!("requests {}", replayed.answers());
    println!("each answer was checked against the origin's; {:.2} s", replayed.elapsed.as_secs_f64());
    match replayed.left_by_earlier_run {
        0 => println!("cold start: no entry of an earlier run was on disk"),
        warm => println!(
            "warm start: {warm} of the first {} requests were answered from disk by what an earlier run left",
            thousands(FIRST),
        ),
    }
}

fn row(name: &str, cells: [String; 6]) {
    let [reads, hits, ratio, refills, p50, p99] = cells;
    println!("{name:<8} {reads:>8} {hits:>8} {ratio:>10} {refills:>8} {p50:>10} {p99:>10}");
}

fn percentiles(latencies: &Histogram<u64>) -> (String, String) {
    let at = |quantile| match latencies.len() {
        0 => "-".to_owned(),
        _ => time(latencies.value_at_quantile(quantile)),
    };
    (at(0.5), at(0.99))
}

fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

fn thousands(number: usize) -> String {
    format!("{},{:03}", number / 1000, number % 1000)
}
