//! One server: connected when it is first needed, again whenever the connection is lost, and refused meanwhile.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use event_listener::{Event, EventListener};
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
    /// Tasks that connect so far.
    tries: AtomicU64,
    /// The number of the one that is at it; 0: none is.
    trying: AtomicU64,
    /// Connections in a row that were of use for a moment only.
    brief: AtomicU32,
    /// Whether it has ever been connected.
    was_up: AtomicBool,
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
    made: Instant,
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
    /// Another connection is on its way to take this one's place.
    replacing: AtomicBool,
}

impl Link {
    /// Whether it is up, on the connection with that pulse.
    fn is(&self, pulse: &Arc<Pulse>) -> bool {
        matches!(self, Self::Up(live) if Arc::ptr_eq(&live.pulse, pulse))
    }
}

impl Node {
    pub(super) fn new(shared: &Arc<Shared>, target: Target) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            shared: Arc::clone(shared),
            target,
            link: Mutex::new(Link::Idle),
            connecting: AtomicU64::new(0),
            tries: AtomicU64::new(0),
            trying: AtomicU64::new(0),
            brief: AtomicU32::new(0),
            was_up: AtomicBool::new(false),
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
                    let trying = self.trying.load(Ordering::SeqCst);
                    *link = if trying > 0 { Link::Connecting } else { Link::Idle };
                    self.hurry.notify(usize::MAX);
                }
                Link::Idle | Link::Connecting => {}
            }
        }
        self.one(&redis::cmd("PING")).await.map(drop)
    }

    /// Has the next attempt made at once; callers are refused meanwhile, as before.
    #[cfg(feature = "cluster")]
    pub(super) fn hurry(&self) {
        self.hurry.notify(usize::MAX);
    }

    /// Whether it had better not be waited for by those who ask others too: an answer has been due for a while, or its
    /// connection was lost and there is no other yet.
    #[cfg(feature = "cluster")]
    pub(super) fn is_slow(&self) -> bool {
        let due = match &*self.link() {
            Link::Up(live) => live.pulse.due_since.load(Ordering::Relaxed),
            Link::Connecting => return self.was_up.load(Ordering::Relaxed),
            Link::Idle | Link::Down(_) => return false,
        };
        let Ok(runtime) = self.shared.runtime() else { return false };
        due != 0 && runtime.now().since(Instant::from_nanos(due)) >= SLOW
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
                        // It took its time to be noticed: that is pause enough.
                        self.drop_link(link, error, Duration::ZERO);
                        continue;
                    }
                    Link::Down(_) | Link::Connecting if self.is_deserted() => {
                        *link = Link::Idle;
                        continue;
                    }
                    Link::Down(error) => return Err(error.clone()),
                    Link::Connecting => self.changed.listen(),
                    Link::Idle => {
                        // Before anybody waits: without a runtime nothing would ever come of it.
                        let runtime = self.shared.runtime()?;
                        *link = Link::Connecting;
                        let changed = self.changed.listen();
                        self.begin_connecting(link, &runtime, Duration::ZERO);
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
            let link = self.link();
            if link.is(&live.pulse) {
                let pause = self.shared.runtime().map(|runtime| self.pause_after(live, &runtime));
                self.drop_link(link, failure.clone(), pause.unwrap_or_default());
            }
        }
        failure
    }

    /// Looks for answers that ask for another connection. This one serves until there is another, for what it can do
    /// (a replica is read), and those that turn out no better follow each other with backoff.
    fn look(&self, live: &Live, answers: &[Value]) {
        let Some(error) = answers.iter().find_map(failure::that_wants_new_connection) else { return };
        let Ok(runtime) = self.shared.runtime() else { return };
        if live.pulse.replacing.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.counts.failed(&failure::refusal(error));
        let pause = self.pause_after(live, &runtime);
        let replacement = replace(Weak::clone(&self.this), runtime.clone(), live.clone(), pause);
        runtime.spawn(replacement);
    }

    /// How long to wait with another connection after this one.
    fn pause_after(&self, live: &Live, runtime: &RuntimeHandle) -> Duration {
        if runtime.now().since(live.made) >= BRIEF {
            self.brief.store(0, Ordering::Relaxed);
            return Duration::ZERO;
        }
        // The first one may have met a server that was just going.
        match self.brief.fetch_add(1, Ordering::Relaxed) {
            0 => Duration::ZERO,
            before => {
                let doubled = FIRST_BACKOFF.saturating_mul(1 << before.min(16));
                jitter(doubled.min(self.shared.max_backoff), runtime.random())
            }
        }
    }

    /// Gives up the connection. The next attempt begins at once, and callers wait for it: a server that was restarted
    /// is there again. With a pause they are refused, so that one that ends as soon as it is used is not made on and on.
    fn drop_link(&self, mut link: MutexGuard<'_, Link>, error: Error, pause: Duration) {
        Counts::one(&self.shared.counts.disconnects);
        self.shared.counts.failed(&error);
        let runtime = match self.shared.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return *link = Link::Down(error),
        };
        *link = if pause.is_zero() { Link::Connecting } else { Link::Down(error) };
        self.begin_connecting(link, &runtime, pause);
    }

    /// Connects in a task of its own, which no caller's deadline ends, until it succeeds or the node is gone.
    fn begin_connecting(&self, link: MutexGuard<'_, Link>, runtime: &RuntimeHandle, pause: Duration) {
        let opening = self.shared.openings();
        self.connecting.store(opening, Ordering::SeqCst);
        let number = self.tries.fetch_add(1, Ordering::SeqCst) + 1;
        self.trying.store(number, Ordering::SeqCst);
        // Listening before anyone can see that there is something to hurry.
        let wait = (!pause.is_zero()).then(|| (pause, self.hurry.listen()));
        // A runtime that has ended drops the task where it stands, which then asks for the lock.
        drop(link);
        let trying = Trying { node: Weak::clone(&self.this), opening, number };
        runtime.spawn(connect(trying, runtime.clone(), wait));
    }

    /// One attempt. A panic of the driver (no runtime where it looked for one) is a failed attempt.
    async fn attempt(&self, runtime: &RuntimeHandle) -> Result<MultiplexedConnection> {
        let attempt = self.target.connect(&self.shared.connector, runtime);
        AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|panic| {
            let message = crate::runtime::panic_message(&*panic);
            Err(Error::new(ErrorKind::Panicked, format!("the Redis driver panicked: {message}")))
        })
    }

    fn up(&self, connection: MultiplexedConnection, opening: u64, runtime: &RuntimeHandle) -> Link {
        self.was_up.store(true, Ordering::Relaxed);
        Link::Up(Live { connection, opening, made: runtime.now(), pulse: Arc::default() })
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

/// The task that connects. Should it be dropped before its end, nobody waits for it.
struct Trying {
    node: Weak<Node>,
    opening: u64,
    number: u64,
}

impl Drop for Trying {
    fn drop(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let mut link = node.link();
        // Under the lock, since another may begin as soon as this one has ended.
        let last = node.trying.compare_exchange(self.number, 0, Ordering::SeqCst, Ordering::SeqCst);
        if last.is_ok() && matches!(&*link, Link::Connecting) {
            let message = "the runtime on which Redis was being connected to has ended";
            *link = Link::Down(Error::new(ErrorKind::Unavailable, message));
            node.changed.notify(usize::MAX);
        }
    }
}

async fn connect(trying: Trying, runtime: RuntimeHandle, mut wait: Option<(Duration, EventListener)>) {
    let opening = trying.opening;
    let pause = wait.as_ref().map_or(Duration::ZERO, |(pause, _)| *pause);
    let mut backoff = FIRST_BACKOFF.max(pause);
    loop {
        if let Some((delay, hurry)) = wait
            && let Either::Right(_) = select(runtime.sleep(delay), hurry).await
        {
            backoff = FIRST_BACKOFF;
        }
        let Some(node) = trying.node.upgrade() else { return };
        let attempt = node.attempt(&runtime).await;
        if node.connecting.load(Ordering::SeqCst) != opening {
            return;
        }
        let counts = &node.shared.counts;
        match attempt {
            Ok(connection) => {
                Counts::one(&counts.connects);
                return node.set(node.up(connection, opening, &runtime));
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

/// Makes a connection that takes the place of `old`, unless that is lost meanwhile.
async fn replace(node: Weak<Node>, runtime: RuntimeHandle, old: Live, pause: Duration) {
    if !pause.is_zero() {
        runtime.sleep(pause).await;
    }
    let Some(node) = node.upgrade() else { return };
    if !node.link().is(&old.pulse) {
        return;
    }
    let counts = &node.shared.counts;
    match node.attempt(&runtime).await {
        Ok(connection) => {
            let up = node.up(connection, old.opening, &runtime);
            let mut link = node.link();
            if link.is(&old.pulse) {
                Counts::one(&counts.disconnects);
                Counts::one(&counts.connects);
                *link = up;
            }
        }
        Err(error) => {
            Counts::one(&counts.connect_failures);
            counts.failed(&error);
            // The next refusal asks again.
            old.pulse.replacing.store(false, Ordering::SeqCst);
        }
    }
}

/// For how long a connection has to serve so that the next one is made without a pause.
const BRIEF: Duration = Duration::from_secs(2);

/// For how long an answer may be due before a node counts as slow.
#[cfg(feature = "cluster")]
const SLOW: Duration = Duration::from_millis(100);

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
