//! One server: connected when it is first needed, again whenever the connection is lost, and refused meanwhile.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use redis::aio::MultiplexedConnection;
#[cfg(feature = "backplane")]
use redis::aio::PubSubStream;
use redis::{Cmd, Pipeline, RedisError, Value};

#[cfg(feature = "backplane")]
use super::connect::Connector;
use super::failure;
use super::shared::Shared;
use super::state::{ConnectionState, Counts};
use super::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Instant, RuntimeHandle, jitter};

pub(super) struct Node {
    this: Weak<Self>,
    shared: Arc<Shared>,
    target: Target,
    link: Mutex<Link>,
    /// Under which opening of the backend the task that connects was started.
    connecting: AtomicU64,
    /// Told when an attempt has ended.
    changed: Event,
    /// Told when the next attempt is not to wait for its time.
    hurry: Event,
}

enum Link {
    Idle,
    /// An attempt that callers wait for.
    Connecting,
    Up(Live),
    /// Attempts go on in the background; callers are refused.
    Down(Error),
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    /// Under which opening of the backend it was made: another's runtime may be gone, and its clock another one.
    opening: u64,
    pulse: Arc<Pulse>,
}

/// Whether anything comes back. Answers come in order: a late one proves that all before it came.
#[derive(Default)]
struct Pulse {
    outstanding: AtomicUsize,
    /// Since when an answer is due, in ns of the runtime's clock; 0: none is.
    due_since: AtomicU64,
    /// When somebody asked last, by the same clock.
    asked_at: AtomicU64,
    /// Somebody asks to see whether anything comes back.
    probing: AtomicBool,
}

impl Node {
    pub(super) fn new(shared: &Arc<Shared>, target: Target) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            shared: Arc::clone(shared),
            target,
            link: Mutex::new(Link::Idle),
            connecting: AtomicU64::new(0),
            changed: Event::new(),
            hurry: Event::new(),
        })
    }

    pub(super) fn state(&self) -> ConnectionState {
        match &*self.link() {
            Link::Idle => ConnectionState::Idle,
            Link::Connecting => ConnectionState::Connecting,
            Link::Up(_) => ConnectionState::Connected,
            Link::Down(_) => ConnectionState::Disconnected,
        }
    }

    /// Sends one command. An error of the server's is a value here.
    pub(super) async fn one(&self, command: &Cmd) -> Result<Value> {
        let mut live = self.live().await?;
        let due = Due::begin(&self.shared, &live.pulse)?;
        let answer = live.connection.send_packed_command(command).await;
        due.answered(&answer);
        let answer = answer.map_err(|error| self.failed(&live, &error))?;
        self.look(&live, std::slice::from_ref(&answer));
        Ok(answer)
    }

    /// Sends several commands in one piece. Errors of the server's are values here.
    pub(super) async fn many(&self, mut commands: Vec<Cmd>) -> Result<Vec<Value>> {
        if commands.len() == 1 {
            let command = commands.remove(0);
            return Ok(vec![self.one(&command).await?]);
        }
        self.piped(&pipeline(commands)).await
    }

    /// The same with the commands in a pipeline, for those who want to send some of them again.
    pub(super) async fn piped(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut live = self.live().await?;
        let due = Due::begin(&self.shared, &live.pulse)?;
        let answer = live.connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        due.answered(&answer);
        let answers = answer.map_err(|error| self.failed(&live, &error))?;
        self.look(&live, &answers);
        if answers.len() == pipeline.len() { Ok(answers) } else { Err(failure::unexpected("a pipeline")) }
    }

    /// A connection of its own that hears a channel.
    #[cfg(feature = "backplane")]
    pub(super) async fn listen(
        &self,
        connector: &Connector,
        runtime: &RuntimeHandle,
        channel: &str,
    ) -> Result<PubSubStream> {
        self.target.listen(connector, runtime, channel).await
    }

    /// Tries to connect at once, whatever the backoff says, and waits for the outcome.
    pub(super) async fn connect_now(&self) -> Result<()> {
        {
            let mut link = self.link();
            match &*link {
                // Up is what it takes itself for: whoever asks has reason to doubt it.
                Link::Up(_) => {}
                Link::Down(_) => {
                    *link = Link::Connecting;
                    self.hurry.notify(usize::MAX);
                }
                Link::Idle | Link::Connecting => {}
            }
        }
        self.one(&redis::cmd("PING")).await.map(drop)
    }

    /// The connection, if there is one or the first is being made.
    async fn live(&self) -> Result<Live> {
        loop {
            let changed = {
                let mut link = self.link();
                match &*link {
                    Link::Up(live) if live.opening != self.shared.openings() => {
                        *link = Link::Idle;
                        continue;
                    }
                    Link::Up(live) if !self.is_silent(live) => return Ok(live.clone()),
                    Link::Up(_) => {
                        let error = Error::new(
                            ErrorKind::Unavailable,
                            format!("Redis has not answered for {} ms", self.shared.silence.as_millis()),
                        );
                        self.drop_link(&mut link, error);
                        continue;
                    }
                    Link::Down(_) | Link::Connecting if self.is_deserted() => {
                        *link = Link::Idle;
                        continue;
                    }
                    Link::Down(error) => return Err(error.clone()),
                    Link::Connecting => self.changed.listen(),
                    Link::Idle => {
                        *link = Link::Connecting;
                        let changed = self.changed.listen();
                        self.begin_connecting()?;
                        changed
                    }
                }
            };
            changed.await;
        }
    }

    /// Whether the task that connects belongs to an earlier opening, whose runtime may be gone.
    fn is_deserted(&self) -> bool {
        self.connecting.load(Ordering::SeqCst) != self.shared.openings()
    }

    fn is_silent(&self, live: &Live) -> bool {
        let Ok(runtime) = self.shared.runtime() else { return false };
        let (now, pulse) = (runtime.now(), &live.pulse);
        let is_long_ago = |at: u64| now.since(Instant::from_nanos(at)) >= self.shared.silence;
        let due = pulse.due_since.load(Ordering::Relaxed);
        if due == 0 || !is_long_ago(due) {
            return false;
        }
        // Nobody has asked for as long: what was due may have come when nobody waited for it any more. One call finds out.
        if is_long_ago(pulse.asked_at.load(Ordering::Relaxed)) && !pulse.probing.swap(true, Ordering::Relaxed)
        {
            pulse.due_since.store(now.as_nanos().max(1), Ordering::Relaxed);
            return false;
        }
        true
    }

    /// A call failed without an answer: the connection is of no more use, unless it has been replaced already.
    fn failed(&self, live: &Live, error: &RedisError) -> Error {
        let failure = failure::connection(error);
        if error.is_unrecoverable_error() || error.is_io_error() {
            self.replace(live, &failure);
        }
        failure
    }

    /// Looks for answers that ask for another connection.
    fn look(&self, live: &Live, answers: &[Value]) {
        if let Some(error) = answers.iter().find_map(failure::that_wants_new_connection) {
            self.replace(live, &failure::refusal(error));
        }
    }

    fn replace(&self, live: &Live, error: &Error) {
        let mut link = self.link();
        if matches!(&*link, Link::Up(current) if Arc::ptr_eq(&current.pulse, &live.pulse)) {
            self.drop_link(&mut link, error.clone());
        }
    }

    /// Gives up the connection. The next attempt begins at once, and callers wait for it: a server that was restarted
    /// is there again.
    fn drop_link(&self, link: &mut Link, error: Error) {
        Counts::one(&self.shared.counts.disconnects);
        self.shared.counts.failed(&error);
        *link = Link::Connecting;
        if let Err(error) = self.begin_connecting() {
            *link = Link::Down(error);
        }
    }

    /// Connects in a task of its own, which no caller's deadline ends, until it succeeds or the node is gone.
    fn begin_connecting(&self) -> Result<()> {
        let opening = self.shared.openings();
        let runtime = self.shared.runtime()?;
        self.connecting.store(opening, Ordering::SeqCst);
        runtime.spawn(connect(Weak::clone(&self.this), runtime.clone(), opening));
        Ok(())
    }

    /// One attempt. A panic of the driver (no runtime where it looked for one) is a failed attempt.
    async fn attempt(&self, runtime: &RuntimeHandle) -> Result<MultiplexedConnection> {
        let attempt = self.target.connect(&self.shared.connector, runtime);
        AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|panic| {
            let message = crate::runtime::panic_message(&*panic);
            Err(Error::new(ErrorKind::Panicked, format!("the Redis driver panicked: {message}")))
        })
    }

    fn set(&self, link: Link) {
        // The old link is dropped outside the lock.
        let _old = std::mem::replace(&mut *self.link(), link);
        self.changed.notify(usize::MAX);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pipeline(commands: Vec<Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

async fn connect(node: Weak<Node>, runtime: RuntimeHandle, opening: u64) {
    let mut backoff = FIRST_BACKOFF;
    let mut wait = None;
    loop {
        if let Some((delay, hurry)) = wait
            && let Either::Right(_) = select(runtime.sleep(delay), hurry).await
        {
            backoff = FIRST_BACKOFF;
        }
        let Some(node) = node.upgrade() else { return };
        let attempt = node.attempt(&runtime).await;
        if node.connecting.load(Ordering::SeqCst) != opening {
            return;
        }
        let counts = &node.shared.counts;
        match attempt {
            Ok(connection) => {
                Counts::one(&counts.connects);
                return node.set(Link::Up(Live { connection, opening, pulse: Arc::default() }));
            }
            Err(error) => {
                Counts::one(&counts.connect_failures);
                counts.failed(&error);
                // Listening before anyone can see that there is something to hurry.
                wait = Some((jitter(backoff, runtime.random()), node.hurry.listen()));
                node.set(Link::Down(error));
            }
        }
        backoff = backoff.saturating_mul(2).min(node.shared.max_backoff);
    }
}

/// The longest wait before the second attempt; doubles with each failure.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// A call whose answer is due. Dropped unanswered (its caller's deadline passed), the answer stays due.
struct Due<'a> {
    pulse: &'a Pulse,
    runtime: RuntimeHandle,
}

impl<'a> Due<'a> {
    fn begin(shared: &Shared, pulse: &'a Pulse) -> Result<Self> {
        let runtime = shared.runtime()?;
        pulse.outstanding.fetch_add(1, Ordering::Relaxed);
        let now = runtime.now().as_nanos().max(1);
        pulse.asked_at.store(now, Ordering::Relaxed);
        let _ = pulse.due_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        Ok(Self { pulse, runtime })
    }

    fn answered<T>(self, answer: &std::result::Result<T, RedisError>) {
        if answer.is_ok() {
            let others = self.pulse.outstanding.load(Ordering::Relaxed) > 1;
            let due = if others { self.runtime.now().as_nanos().max(1) } else { 0 };
            self.pulse.due_since.store(due, Ordering::Relaxed);
            self.pulse.probing.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        self.pulse.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}
