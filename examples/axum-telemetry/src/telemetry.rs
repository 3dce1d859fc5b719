//! Where metrics and spans go.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt;

use crate::Failure;

/// From 1 µs to 1 s: histograms in seconds.
const BUCKETS: [f64; 13] = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0];

pub(crate) struct Telemetry {
    pub(crate) metrics: PrometheusHandle,
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
    Ok(Telemetry { metrics, spans, provider })
}

impl Telemetry {
    /// Prints the spans, and fails if a call to the remote store is linked to nobody.
    pub(crate) fn check_spans(&self) -> Result<(), Failure> {
        self.provider.force_flush()?;
        let spans = self.spans.get_finished_spans()?;
        let mut linked = 0;
        println!("\n{} spans; those of calls to the remote store:", spans.len());
        for span in spans.iter().filter(|span| span.name == "tierkeep.call") {
            let callers = span.links.links.iter().map(|link| link.span_context.span_id());
            let callers: Vec<_> = callers
                .filter_map(|id| spans.iter().find(|span| span.span_context.span_id() == id))
                .map(|caller| format!("{} of trace {}", caller.name, caller.span_context.trace_id()))
                .collect();
            linked += callers.len();
            println!("  {} for {callers:?}", span.name);
        }
        for name in ["request", "tierkeep.read", "tierkeep.load", "tierkeep.call"] {
            if !spans.iter().any(|span| span.name == name) {
                return Err(format!("no span `{name}` was exported").into());
            }
        }
        if linked == 0 {
            return Err("no call is linked to the read that it served".into());
        }
        Ok(())
    }
}
