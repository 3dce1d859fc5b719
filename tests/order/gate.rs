//! A byte tier driven by hand: a call that a test has set a trap for waits until the test says what becomes of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use tierkeep::backend::{OpenContext, Scope};
use tierkeep::{
    Backend, BackendLabel, BackendResult, CacheKey, CacheValue, DeleteStatus, Error, ErrorKind, Raw, Stamp,
};

/// What the store was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Remove,
    Clear,
}

/// A store of bytes. Calls go through unless a trap or an outage is set for them. Clones share the store.
#[derive(Clone)]
pub(crate) struct Gate {
    label: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<CacheKey, CacheValue<Raw>>,
    traps: Vec<(Kind, Option<CacheKey>, oneshot::Sender<Call>)>,
    /// Kinds of calls that fail, having done nothing.
    failing: Vec<Kind>,
    refuses_to_open: bool,
    log: Vec<(Kind, Option<CacheKey>)>,
}

enum Answer {
    Value(Option<CacheValue<Raw>>),
    Written,
    Removed(DeleteStatus),
    Cleared,
}

/// A call that fell into a trap. Dropped, its reply is lost: the caller never hears.
pub(crate) struct Call {
    kind: Kind,
    key: Option<CacheKey>,
    value: Option<CacheValue<Raw>>,
    state: Arc<Mutex<State>>,
    reply: oneshot::Sender<BackendResult<Answer>>,
    answer: Option<Answer>,
}

impl Gate {
    pub(crate) fn new(label: &'static str) -> Self {
        Self { label, state: Arc::default() }
    }

    /// The next call of this kind for this key that is not trapped already.
    pub(crate) fn catch(&self, kind: Kind, key: &CacheKey) -> Trap {
        self.trap(kind, Some(key.clone()))
    }

    /// The next clear.
    pub(crate) fn catch_clear(&self) -> Trap {
        self.trap(Kind::Clear, None)
    }

    fn trap(&self, kind: Kind, key: Option<CacheKey>) -> Trap {
        let (sender, caught) = oneshot::channel();
        self.lock().traps.push((kind, key, sender));
        Trap(caught)
    }

    /// From now on, or no longer, calls of this kind fail without doing anything.
    pub(crate) fn fail(&self, kind: Kind, fails: bool) {
        let mut state = self.lock();
        state.failing.retain(|known| *known != kind);
        if fails {
            state.failing.push(kind);
        }
    }

    pub(crate) fn refuse_to_open(&self, refuses: bool) {
        self.lock().refuses_to_open = refuses;
    }

    /// Loses an entry, as an eviction does.
    pub(crate) fn forget(&self, key: &CacheKey) {
        self.lock().entries.remove(key);
    }

    /// The two characters that the entry under `key` ends with: every value of these tests is that long.
    pub(crate) fn shows(&self, key: &CacheKey) -> Option<String> {
        let state = self.lock();
        let bytes = state.entries.get(key)?.data();
        Some(String::from_utf8_lossy(&bytes[bytes.len() - 2..]).into_owned())
    }

    /// How many calls of this kind there have been for the key, trapped and failed ones included.
    pub(crate) fn calls(&self, kind: Kind, key: &CacheKey) -> usize {
        self.lock().log.iter().filter(|(k, of)| *k == kind && of.as_ref() == Some(key)).count()
    }

    pub(crate) fn clears(&self) -> usize {
        self.lock().log.iter().filter(|(kind, _)| *kind == Kind::Clear).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn act(
        &self,
        kind: Kind,
        key: Option<&CacheKey>,
        value: Option<CacheValue<Raw>>,
    ) -> BackendResult<Answer> {
        let verdict = {
            let mut state = self.lock();
            state.log.push((kind, key.cloned()));
            let trap = state.traps.iter().position(|(k, of, _)| *k == kind && of.as_ref() == key);
            match trap {
                Some(trap) => {
                    let (_, _, trap) = state.traps.remove(trap);
                    let (reply, verdict) = oneshot::channel();
                    let (key, state) = (key.cloned(), Arc::clone(&self.state));
                    // A trap that the test has dropped catches for ever: a hanging call.
                    drop(trap.send(Call { kind, key, value, state, reply, answer: None }));
                    verdict
                }
                None if state.failing.contains(&kind) => return Err(refused()),
                None => return Ok(perform(&mut state, kind, key, value)),
            }
        };
        match verdict.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }
}

fn perform(state: &mut State, kind: Kind, key: Option<&CacheKey>, value: Option<CacheValue<Raw>>) -> Answer {
    match (kind, key, value) {
        (Kind::Read, Some(key), _) => Answer::Value(state.entries.get(key).cloned()),
        (Kind::Write, Some(key), Some(value)) => {
            state.entries.insert(key.clone(), value);
            Answer::Written
        }
        (Kind::Remove, Some(key), _) => Answer::Removed(match state.entries.remove(key) {
            Some(_) => DeleteStatus::Deleted(1),
            None => DeleteStatus::Missing,
        }),
        // Deleting bytes is a later matter: what a clear hides, it hides by its stamp.
        _ => Answer::Cleared,
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Backend, "refused by the test")
}

/// A call to come.
pub(crate) struct Trap(oneshot::Receiver<Call>);

impl Trap {
    /// The call, when it has come.
    pub(crate) async fn sprung(self) -> Call {
        self.0.await.expect("the gate is still there")
    }

    /// The call, if it has come.
    pub(crate) fn sprung_by_now(&mut self) -> Option<Call> {
        self.0.try_recv().expect("the gate is still there")
    }
}

impl Call {
    /// Does what was asked, without a reply. A read sees what is there now.
    pub(crate) fn apply(&mut self) {
        let mut state = self.state.lock().unwrap();
        self.answer = Some(perform(&mut state, self.kind, self.key.as_ref(), self.value.take()));
    }

    /// Replies to an applied call; to whom it may concern, as the engine may have given it up.
    pub(crate) fn reply(self) {
        let answer = self.answer.expect("applied first");
        drop(self.reply.send(Ok(answer)));
    }

    pub(crate) fn pass(mut self) {
        self.apply();
        self.reply();
    }

    /// Replies with an error, whatever was done.
    pub(crate) fn fail(self) {
        drop(self.reply.send(Err(refused())));
    }
}

#[async_trait]
impl Backend for Gate {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        match self.act(Kind::Read, Some(key), None).await? {
            Answer::Value(value) => Ok(value),
            _ => Err(refused()),
        }
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.act(Kind::Write, Some(key), Some(value)).await.map(drop)
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        match self.act(Kind::Remove, Some(key), None).await? {
            Answer::Removed(status) => Ok(status),
            _ => Err(refused()),
        }
    }

    async fn clear(&self, _scope: &Scope, _stamp: Stamp) -> BackendResult<()> {
        self.act(Kind::Clear, None, None).await.map(drop)
    }

    async fn open(&self, _context: &OpenContext) -> BackendResult<()> {
        if self.lock().refuses_to_open { Err(refused()) } else { Ok(()) }
    }

    fn label(&self) -> BackendLabel {
        self.label.into()
    }

    /// Calls are never dropped: each may be applied for as long as the test likes.
    fn residual(&self) -> Option<Duration> {
        None
    }
}
