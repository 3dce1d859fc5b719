//! What every host of actors shares, so that all of them behave alike: an actor's life over its incarnations.
//!
//! A host brings a queue and somewhere to run. Its sending end asks [`Life::admit`] before it queues a message; its
//! task calls [`Life::serve`] once per incarnation, over its end of the queue as a [`Source`], until the actor has
//! stopped. Restarts, outages, stopping and their events are decided here.

mod incarnation;
mod life;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

pub use life::Life;

use super::Envelope;
pub use super::flume_host::spawn as spawn_on_flume;
use crate::error::Error;

/// The receiving end of a host's queue.
pub trait Source: Send {
    /// Takes the next message. When there is none, the host's task is woken by the next one: either through `cx`, or
    /// because senders call [`Life::wake`].
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Envelope>;

    /// Whether every message that was queued has been taken.
    fn is_empty(&self) -> bool;
}

/// How [`Life::serve`] ended.
#[derive(Debug)]
pub enum Served {
    /// The incarnation failed, with this, and is gone; serve the next one.
    Failed(Error),
    /// The actor was asked to stop and has; call [`Life::finish`].
    Stopped,
}

/// Drops a value of the user's: a panic in its destructor must not take the host along.
pub fn drop_quietly<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}
