//! Where metrics and spans go.

use std::fmt::Write;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt;

use crate::Failure;

/// From 1 µs to 1 s: histograms in seconds.
const BUCKETS: [f64; 13] = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0];

pub(crate) struct Telemetry {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) traces: Traces,
}

/// The spans that have ended.
#[derive(Clone)]
pub(crate) struct Traces {
    spans: InMemorySpanExporter,
    provider: SdkTracerProvider,
}

/// Installs the recorder of metrics and the subscriber of spans for this process.
pub(crate) fn install() -> Result<Telemetry, Failure> {
    let metrics = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    // In your service: an OTLP exporter, in batches.
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("axum-telemetry"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    Ok(Telemetry { metrics, traces: Traces { spans, provider } })
}

impl Traces {
    /// As text: a span a line, with its parent, or those for whom a batch of calls was made.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        self.provider.force_flush()?;
        let spans = self.spans.get_finished_spans()?;
        let name =
            |id: SpanId| spans.iter().find(|span| span.span_context.span_id() == id).map(|span| &span.name);
        let mut text = String::new();
        for span in &spans {
            write!(text, "{} {}", span.span_context.trace_id(), span.name)?;
            if let Some(parent) = name(span.parent_span_id) {
                write!(text, " in {parent}")?;
            }
            for link in span.links.iter() {
                if let Some(caller) = name(link.span_context.span_id()) {
                    write!(text, " for {caller} of {}", link.span_context.trace_id())?;
                }
            }
            writeln!(text)?;
        }
        Ok(text)
    }
}
