//! The supervisor: starts the tiers' actors, hears how they fare, and publishes the route that callers follow.
//!
//! It is the control plane only. A tier's actor reports to its core and then here; should the supervisor itself be
//! between two incarnations, the report waits in its mailbox, and a new incarnation publishes from the cores anyway.

use std::sync::{Arc, Weak};

use super::engine::Engine;
use crate::observe::EventKind;
use crate::runtime::{
    ActorEvent, ActorFactory, ActorSpec, ActorState, ActorWatch, Address, Envelope, Handler, RestartPolicy,
    RuntimeHandle,
};
use crate::tier::{TierActor, TierCore};

/// What the supervisor is told.
pub(crate) enum Report {
    /// A tier's actor changed its state; the core knows how.
    TierChanged,
    /// Panics, so that tests can kill the incarnation.
    #[cfg(feature = "testing")]
    Crash,
}

struct Supervisor {
    engine: Weak<Engine>,
}

impl Handler for Supervisor {
    fn handle(&mut self, message: Envelope) {
        match message.open::<Report>() {
            Ok(Report::TierChanged) => {
                if let Some(engine) = self.engine.upgrade() {
                    engine.publish_route();
                }
            }
            #[cfg(feature = "testing")]
            Ok(Report::Crash) => std::panic::panic_any("crash asked for by a test"),
            Err(_) => {}
        }
    }
}

/// Starts the supervisor of an engine that is being built.
pub(super) fn start(runtime: &RuntimeHandle, engine: &Weak<Engine>) -> Address {
    let engine = Weak::clone(engine);
    let factory: ActorFactory = Arc::new(move || {
        let engine = Weak::clone(&engine);
        Box::pin(async move {
            if let Some(engine) = engine.upgrade() {
                // Whatever the last incarnation missed.
                engine.publish_route();
            }
            Ok(Box::new(Supervisor { engine }) as Box<dyn Handler>)
        })
    });
    runtime.spawn_actor(ActorSpec {
        name: "supervisor".into(),
        capacity: 1024,
        restart: RestartPolicy::default(),
        factory,
        watch: Arc::new(|_| {}),
    })
}

/// Starts the actor of a tier, under the supervisor's eyes.
pub(super) fn start_tier(core: &Arc<TierCore>, supervisor: &Address, engine: &Weak<Engine>) -> Address {
    core.runtime.spawn_actor(ActorSpec {
        name: core.label.as_str().into(),
        capacity: core.options.mailbox,
        restart: core.options.restart,
        factory: TierActor::factory(core),
        watch: watch(core, supervisor, engine),
    })
}

fn watch(core: &Arc<TierCore>, supervisor: &Address, engine: &Weak<Engine>) -> ActorWatch {
    let core = Arc::downgrade(core);
    let supervisor = supervisor.clone();
    let engine = Weak::clone(engine);
    Arc::new(move |event| {
        if let Some(core) = core.upgrade() {
            note(&core, &event);
        }
        let reported = supervisor.try_send(Envelope::new(Report::TierChanged)).is_ok();
        if let Some(engine) = engine.upgrade() {
            if !reported {
                engine.publish_route();
            }
            engine.health_changed();
        }
    })
}

fn note(core: &Arc<TierCore>, event: &ActorEvent) {
    core.set_health(|health| match event {
        ActorEvent::Started => health.state = ActorState::Running,
        ActorEvent::Failed(error) => health.last_error = Some(error.clone().at_tier(&core.label)),
        ActorEvent::Restarting(_) => {
            health.state = ActorState::Restarting;
            health.restarts += 1;
        }
        ActorEvent::Down(_) => health.state = ActorState::Down,
        ActorEvent::Stopped => health.state = ActorState::Stopped,
    });
    match event {
        ActorEvent::Started => core.open_to_callers(true),
        ActorEvent::Failed(_) => {}
        ActorEvent::Restarting(_) | ActorEvent::Down(_) | ActorEvent::Stopped => core.open_to_callers(false),
    }
    if matches!(event, ActorEvent::Down(_)) {
        core.refuse_queued();
    }
    // Once the health says so: who hears of it may look.
    match event {
        ActorEvent::Started => {
            core.tell(EventKind::TierUp);
            core.wake_behind();
        }
        ActorEvent::Restarting(delay) => core.tell(EventKind::TierRestarting { delay: *delay }),
        ActorEvent::Down(retry) => core.tell(EventKind::TierDown { retry: *retry }),
        ActorEvent::Stopped => core.tell(EventKind::TierStopped),
        ActorEvent::Failed(_) => {}
    }
}
