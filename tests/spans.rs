//! Spans: none for a hit in memory, and for a backend's call links to all whom it serves.
//!
//! A process of its own: whether anyone listens to a span is remembered per process, and tests that run beside this one
//! without a listener would have it forgotten.
#![cfg(feature = "tracing")]
#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "telling/support.rs"]
mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Cache, MemoryBackend};
use tierkeep_sim::{Fault, Op};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Metadata, Subscriber, info_span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use support::{Store, exact, ms, numbers, run};

#[derive(Default)]
struct Log {
    names: HashMap<Id, &'static str>,
    parents: HashMap<Id, Option<Id>>,
    links: Vec<(Id, Id)>,
    events: Vec<String>,
}

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Log>>);

impl Recorder {
    fn spans(&self, name: &str) -> Vec<Id> {
        let log = self.0.lock().unwrap();
        log.names.iter().filter(|(_, known)| **known == name).map(|(id, _)| id.clone()).collect()
    }
}

/// An event's message, and then its fields.
struct Message<'a>(&'a mut String);

impl tracing::field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            *self.0 += &format!(" {field}={value:?}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut log = self.0.lock().unwrap();
        log.names.insert(id.clone(), attributes.metadata().name());
        let parent = context.span(id).and_then(|span| span.parent()).map(|span| span.id());
        log.parents.insert(id.clone(), parent);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().links.push((id.clone(), follows.clone()));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        event.record(&mut Message(&mut text));
        self.0.lock().unwrap().events.push(text);
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {}

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("tierkeep") || metadata.target().starts_with("spans")
    }
}

#[test]
fn a_batch_is_linked_to_the_spans_of_all_its_callers() {
    let sim = exact();
    let runtime = RuntimeHandle::new(sim.runtime());
    let store = Store::new(&runtime);
    let recorder = Recorder::default();
    tracing::subscriber::with_default(Registry::default().with(recorder.clone()), || {
        run(&sim, async {
            let cache = Cache::builder(runtime.clone())
                .tier(MemoryBackend::entries(100))
                .tier(store.tier("store").concurrency(1))
                .build()
                .await
                .unwrap();
            let region = numbers(&cache);
            region.set(&1, 1).await.unwrap();
            let before = recorder.0.lock().unwrap().names.len();
            region.get(&1).instrument(info_span!("caller")).await.unwrap();
            assert_eq!(recorder.0.lock().unwrap().names.len(), before + 1, "the caller's own and no other");

            store.plan.next_on(Op::Read, Fault::Delay, 1);
            let read = |key: u64| {
                let region = region.clone();
                async move { region.get(&key).await }.instrument(info_span!("request", key))
            };
            join_all([read(10), read(11), read(12)]).await;
            runtime.sleep(ms(50)).await;
            cache.crash_tier("store");
            runtime.sleep(ms(500)).await;
        });
    });
    let (requests, reads) = (recorder.spans("request"), recorder.spans("tierkeep.read"));
    let calls = recorder.spans("tierkeep.call");
    let log = recorder.0.lock().unwrap();
    assert_eq!((requests.len(), reads.len()), (3, 3));
    for read in &reads {
        assert!(requests.contains(log.parents[read].as_ref().unwrap()), "a read belongs to its request");
        let served: Vec<_> = log.links.iter().filter(|(_, follows)| follows == read).collect();
        assert_eq!(served.len(), 1);
        assert!(calls.contains(&served[0].0) && log.parents[&served[0].0].is_none());
    }
    let serving: std::collections::HashSet<_> =
        log.links.iter().filter(|(_, follows)| reads.contains(follows)).map(|(call, _)| call).collect();
    assert!(serving.len() < 3, "a batch served several: {serving:?}");
    for event in ["the tier is being restarted", "the tier is up"] {
        assert!(log.events.iter().any(|known| known.starts_with(event)), "{event} in {:?}", log.events);
    }
}

#[test]
fn a_queue_that_is_dropped_without_a_shutdown_says_how_much_it_held() {
    let recorder = Recorder::default();
    let warnings = || {
        let log = recorder.0.lock().unwrap();
        log.events.iter().filter(|event| event.contains("queued writes")).cloned().collect::<Vec<_>>()
    };
    tracing::subscriber::with_default(Registry::default().with(recorder.clone()), || {
        let sim = exact();
        let runtime = RuntimeHandle::new(sim.runtime());
        run(&sim, async {
            let store = Store::new(&runtime);
            let cache = async || {
                let behind = tierkeep::write_behind::WriteBehind::memory().max_delay(ms(60_000));
                let tier = store.tier("store").write_behind(behind);
                let memory = MemoryBackend::entries(100);
                Cache::builder(runtime.clone()).tier(memory).tier(tier).build().await.unwrap()
            };
            let shut_down = cache().await;
            numbers(&shut_down).set(&1, 1).await.unwrap();
            assert!(shut_down.shutdown(ms(1_000)).await.clean);
            drop(shut_down);
            let emptied = cache().await;
            numbers(&emptied).set(&1, 1).await.unwrap();
            emptied.flush(ms(1_000)).await.unwrap();
            drop(emptied);
            runtime.sleep(ms(1_000)).await;
            assert!(warnings().is_empty(), "{:?}", warnings());

            let dropped = cache().await;
            for key in 0..7 {
                numbers(&dropped).set(&key, 1).await.unwrap();
            }
            drop(dropped);
            runtime.sleep(ms(1_000)).await;
            let [warning] = &warnings()[..] else { panic!("{:?}", warnings()) };
            assert!(warning.contains("tier=\"store\"") && warning.contains("writes=7"), "{warning}");
        });
    });
}
