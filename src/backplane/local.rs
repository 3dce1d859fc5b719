//! A backplane within one process: for tests, and for several caches of one application over one store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Backplane, Subscription};
use crate::backend::BackendResult;
use crate::runtime::RuntimeHandle;
use crate::value::Raw;

/// Messages that wait for a subscriber; past it, its subscription ends and it subscribes anew.
const CAPACITY: usize = 1024;

/// Connects caches of one process. Clones are one backplane.
#[derive(Debug, Clone, Default)]
pub struct LocalBackplane {
    subscribers: Arc<Mutex<Vec<flume::Sender<Raw>>>>,
}

impl LocalBackplane {
    /// A backplane that nobody is on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all subscriptions, as a server that goes away does: they are made anew.
    pub fn disconnect(&self) {
        self.subscribers().clear();
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<flume::Sender<Raw>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Backplane for LocalBackplane {
    async fn publish(&self, _: &RuntimeHandle, message: Raw) -> BackendResult<()> {
        self.subscribers().retain(|subscriber| subscriber.try_send(message.clone()).is_ok());
        Ok(())
    }

    async fn subscribe(&self, _: &RuntimeHandle) -> BackendResult<Box<dyn Subscription>> {
        let (sender, messages) = flume::bounded(CAPACITY);
        self.subscribers().push(sender);
        Ok(Box::new(Messages(messages)))
    }
}

struct Messages(flume::Receiver<Raw>);

#[async_trait]
impl Subscription for Messages {
    async fn next(&mut self) -> Option<Raw> {
        self.0.recv_async().await.ok()
    }
}
