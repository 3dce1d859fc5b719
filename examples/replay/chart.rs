//! The drawing: hit ratio above, median latency below, over the requests of the trace.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use crate::Failure;
use crate::run::{STRETCHES, Seen};

type Line = Vec<(f64, f64)>;

/// Draws an SVG.
pub(crate) fn draw(seen: &Seen, path: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(path, (960, 720)).into_drawing_area();
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(360);
    let ratios: Vec<Line> = (0..seen.sources.len()).map(|source| ratio(seen, source)).collect();
    panel(&upper, "share of the requests answered, %", &seen.sources, &ratios, 100.0)?;
    let latencies: Vec<Line> = (0..seen.sources.len()).map(|source| latency(seen, source)).collect();
    let highest = latencies.iter().flatten().map(|point| point.1).fold(1.0, f64::max);
    panel(&lower, "median latency, µs", &seen.sources, &latencies, highest * 1.05)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    sources: &[String],
    lines: &[Line],
    highest: f64,
) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..100.0, 0.0..highest)?;
    chart.configure_mesh().x_desc("% of the trace").draw()?;
    for (index, (source, line)) in sources.iter().zip(lines).enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)))?
            .label(source)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}

/// Where a stretch stands on the horizontal axis.
fn at(stretch: usize) -> f64 {
    (stretch as f64 + 0.5) * 100.0 / STRETCHES as f64
}

fn ratio(seen: &Seen, source: usize) -> Line {
    let share = |(stretch, answers): (usize, &Vec<Histogram<u64>>)| {
        let total: u64 = answers.iter().map(Histogram::len).sum();
        (total > 0).then(|| (at(stretch), answers[source].len() as f64 * 100.0 / total as f64))
    };
    seen.stretches.iter().enumerate().filter_map(share).collect()
}

fn latency(seen: &Seen, source: usize) -> Line {
    let median = |(stretch, answers): (usize, &Vec<Histogram<u64>>)| {
        let answers = &answers[source];
        (!answers.is_empty()).then(|| (at(stretch), answers.value_at_quantile(0.5) as f64 / 1000.0))
    };
    seen.stretches.iter().enumerate().filter_map(median).collect()
}
