//! Calls to the backend: each in its own task, so that a hanging one holds up nothing but itself.
//!
//! A call that passes its deadline answers for its keys with a timeout and gives its place to the next one, but is
//! kept: until it returns, or its residual time is over, its keys stay in quarantine.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::poll_fn;

use super::breaker::Admission;
use super::core::{TierCore, backend_panic, lock, removed};
use super::counters::Counters;
use super::ledger::Attempt;
use super::message::{ClearOp, Settlement};
use super::outdated::Carried;
use super::queue::{Job, Work};
use crate::backend::Scope;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::observe::{Began, trace};
use crate::planted::{Plant, planted};
use crate::runtime::panic_message;
use crate::value::Stamp;

/// Pending changes that are settled under one lock: longer, and those who write would wait for it.
const AT_ONCE: usize = 32;

/// Turns that a writing call gives to those who are about to write.
const TURNS: usize = 4;

/// A place among the calls in flight, and the count of those that have not returned. Given up on drop, whatever
/// becomes of the task.
pub(super) struct Slot {
    core: Arc<TierCore>,
    reading: bool,
    placed: bool,
    counted: bool,
    /// A call that has not yet taken its batch: no other one of its kind starts meanwhile.
    starting: bool,
}

impl Slot {
    /// For a reading call whose place was taken under the queue's lock.
    pub(super) fn reading(core: &Arc<TierCore>) -> Self {
        core.call_began();
        Self { core: Arc::clone(core), reading: true, placed: true, counted: true, starting: true }
    }

    /// For a writing call whose place was taken under the queue's lock.
    pub(super) fn writing(core: &Arc<TierCore>) -> Self {
        core.call_began();
        Self { core: Arc::clone(core), reading: false, placed: true, counted: true, starting: false }
    }

    pub(super) fn reading_unsent(core: &Arc<TierCore>) -> Self {
        Self { core: Arc::clone(core), reading: true, placed: true, counted: false, starting: false }
    }

    /// For a writing call that has yet to take what waits.
    pub(super) fn writing_queued(core: &Arc<TierCore>) -> Self {
        let mut slot = Self::writing(core);
        slot.starting = true;
        slot
    }

    pub(super) fn writing_unsent(core: &Arc<TierCore>) -> Self {
        Self { core: Arc::clone(core), reading: false, placed: true, counted: false, starting: false }
    }

    /// Gives the place to the next call.
    fn leave(&mut self) {
        if std::mem::take(&mut self.placed) {
            let mut queue = lock(&self.core.queue);
            let calls = if self.reading { &mut queue.read_calls } else { &mut queue.write_calls };
            *calls = calls.saturating_sub(1);
            if std::mem::take(&mut self.starting) {
                let starting = if self.reading { &mut queue.starting } else { &mut queue.writes_starting };
                *starting = false;
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Its task went without a turn, and so did its runtime: nobody will take what waits.
        let orphaned = self.starting;
        self.leave();
        if orphaned {
            self.core.drop_waiting(self.reading);
        }
        if self.counted {
            self.core.call_ended();
            self.core.pump();
        }
    }
}

/// Reads a batch of keys for those who wait for them: what waits when the task has its turn, not when it is spawned.
pub(super) async fn read(mut slot: Slot, pass: Admission) {
    let core = Arc::clone(&slot.core);
    let gathers = lock(&core.queue).gathers();
    if gathers {
        // Those who were answered just now ask again before it is this task's turn once more.
        yield_now().await;
    }
    slot.starting = false;
    let (keys, callers, asked) = core.take_reads();
    if keys.is_empty() {
        return;
    }
    let results = match reopen(&core, &pass).await {
        Err(error) => vec![Err(error); keys.len()],
        Ok(()) => {
            core.meter.sending(true, keys.len());
            let began = Began::now(&core.runtime);
            let read = core.backend.read_entries(&keys);
            let call = trace::call("read", &core.label, keys.len(), &callers, read);
            let call = AssertUnwindSafe(call).catch_unwind();
            // A read that is dropped has no effect, so a late one is simply dropped.
            let called =
                core.runtime.deadline(core.runtime.now().after(core.options.read_deadline), call).await;
            core.meter.called(true, began, &core.runtime);
            match called {
                Some(Ok(results)) => complete(results, keys.len()),
                Some(Err(panic)) => vec![Err(backend_panic(&panic_message(&*panic))); keys.len()],
                None => vec![Err(overdue("read", core.options.read_deadline.as_millis())); keys.len()],
            }
        }
    };
    record(&core, pass, &results);
    slot.leave();
    asked.answer(results);
}

/// Lets those who were answered just now write again first, so that calls stay as large as they were: a call costs a
/// store much more than a further key in it. Some of them have their turn on another thread, which may have to wake up.
async fn gather(core: &TierCore) {
    for _ in 0..TURNS {
        if lock(&core.queue).has_gathered_writes() {
            return;
        }
        yield_now().await;
    }
}

/// Lets the tasks that are ready have their turn.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The jobs of a writing call. Gone with them unfinished (the call's task died, or its runtime dropped it), it settles
/// them as overdue, and as over once nothing of them can be applied any more: their keys must not wait for ever.
struct Batch {
    core: Arc<TierCore>,
    /// Under which they are in the queue, where their deadlines are watched.
    call: u64,
    /// Once the call has returned.
    jobs: std::vec::IntoIter<Job>,
    /// Those that are overdue, and may still be applied.
    late: Vec<(CacheKey, Attempt)>,
}

impl Batch {
    fn new(core: &Arc<TierCore>, jobs: Vec<Job>) -> Self {
        let deadline = jobs.iter().filter_map(Job::next_deadline).min();
        let (call, unwatched) = {
            let mut queue = lock(&core.queue);
            (queue.send(jobs), queue.watch_writes(deadline))
        };
        // A watch that looked while they were between the queue and the call has ended.
        if let Some(deadline) = unwatched {
            core.watch_writes(deadline);
        }
        Self { core: Arc::clone(core), call, jobs: Vec::new().into_iter(), late: Vec::new() }
    }

    /// Takes them back: the call is over, or given up.
    fn returned(&mut self) -> &[Job] {
        self.jobs = lock(&self.core.queue).sent(self.call).into_iter();
        self.jobs.as_slice()
    }

    fn take(&mut self) -> Vec<Job> {
        self.returned();
        self.jobs.by_ref().collect()
    }

    /// Settles the jobs as overdue.
    fn overdue(&mut self, error: &Error) {
        for job in self.jobs.by_ref() {
            self.late.push((job.key().clone(), job.attempt));
            self.core.overdue(job, error);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.jobs.len() == 0 {
            self.returned();
        }
        if self.jobs.len() + self.late.len() == 0 {
            return;
        }
        // In a panic, another one would end the process.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.overdue(&Error::new(ErrorKind::Restarted, "the call's task ended before the call did"));
        }));
        let (core, late) = (Arc::clone(&self.core), std::mem::take(&mut self.late));
        self.core.runtime.spawn(async move {
            // A store that says nothing of itself is given as long again as a call may take.
            let residual = core.options.residual.or_else(|| core.backend.residual());
            core.runtime.sleep(residual.unwrap_or(core.options.write_deadline)).await;
            for (key, attempt) in late {
                core.late(&key, attempt, None);
            }
        });
    }
}

/// Stores or removes what waits when the task has its turn.
pub(super) async fn write_queued(mut slot: Slot, pass: Admission) {
    if !slot.core.immediate {
        gather(&slot.core).await;
    }
    slot.starting = false;
    let jobs = slot.core.take_writes();
    if !jobs.is_empty() {
        write(slot, jobs, pass).await;
    }
}

/// Stores or removes a batch of keys. Dropped before it is polled, it settles them as any call that ends too early.
pub(super) fn write(slot: Slot, jobs: Vec<Job>, pass: Admission) -> impl Future<Output = ()> + Send {
    let core = Arc::clone(&slot.core);
    let keys = jobs.len();
    let op = if jobs.first().is_some_and(|job| job.entry().is_none()) { "remove" } else { "write" };
    let behind = jobs.first().is_some_and(|job| matches!(job.work, Work::Behind(_)));
    let within = core.attempt_deadline(&jobs);
    let callers = jobs.iter().filter_map(Job::caller);
    let call = trace::call(op, &core.label, keys, callers, send(&core, &jobs));
    let batch = Batch::new(&core, jobs);
    async move {
        // The jobs are settled before the place is given to the next call, should this one be dropped.
        let (mut slot, mut batch) = (slot, batch);
        if let Err(error) = reopen(&core, &pass).await {
            record::<()>(&core, pass, &[Err(error.clone())]);
            slot.leave();
            return core.refuse_unsent(batch.take(), &error);
        }
        core.meter.sending(false, keys);
        let began = Began::now(&core.runtime);
        let mut call = Box::pin(AssertUnwindSafe(call).catch_unwind());
        let called = core.runtime.deadline(core.runtime.now().after(within), &mut call).await;
        core.meter.called(false, began, &core.runtime);
        match called {
            Some(Ok(mut results)) => {
                if planted(Plant::BatchShifted) {
                    results.rotate_right(1);
                }
                record(&core, pass, judged(behind, &results));
                slot.leave();
                batch.returned();
                let mut results = results.into_iter();
                while behind && results.len() > 0 {
                    core.finish_behind(batch.jobs.by_ref().zip(results.by_ref()).take(AT_ONCE).collect());
                }
                core.finish_all(batch.jobs.by_ref().zip(results));
            }
            Some(Err(panic)) => {
                let error = backend_panic(&panic_message(&*panic));
                record::<()>(&core, pass, &[Err(error.clone())]);
                slot.leave();
                core.refuse(batch.take(), &error);
            }
            None => {
                let error = overdue("write", within.as_millis());
                let results = vec![Err::<(), _>(error.clone()); keys];
                record(&core, pass, judged(behind, &results));
                let attempts: Vec<(CacheKey, Attempt, Stamp, Carried)> = batch
                    .returned()
                    .iter()
                    .map(|job| (job.key().clone(), job.attempt, job.stamp(), job.carried()))
                    .collect();
                batch.overdue(&error);
                slot.leave();
                core.pump();
                // Caught: a call that panics as it is dropped is over as well, and its keys must not wait for ever.
                let results = AssertUnwindSafe(outlive(&core, call)).catch_unwind().await;
                let results = results.ok().flatten().unwrap_or_else(|| unknown(attempts.len()));
                Counters::one(&core.counters.late);
                for ((key, attempt, stamp, carried), result) in attempts.into_iter().zip(results) {
                    core.note_answer(&key, carried, &result);
                    core.late(&key, attempt, result.is_ok().then_some(stamp));
                }
                batch.late.clear();
            }
        }
    }
}

/// What a batch says of the store. One of pending writes that fails as a whole counts once: it may be for one of its
/// entries, and is split to find out.
fn judged<T>(behind: bool, results: &[Result<T>]) -> &[Result<T>] {
    if behind && results.iter().all(Result::is_err) { &results[..results.len().min(1)] } else { results }
}

/// Waits until a late call can no longer be applied: it returns, or has been dropped for its residual time.
async fn outlive<F, E>(core: &Arc<TierCore>, call: F) -> Option<Vec<Result<Settlement>>>
where
    F: Future<Output = Result<Vec<Result<Settlement>>, E>> + Unpin,
{
    let results = match core.options.residual.or_else(|| core.backend.residual()) {
        None => Some(call.await),
        Some(residual) => {
            let results = core.runtime.deadline(core.runtime.now().after(residual), call).await;
            if results.is_none() {
                // Dropped now; what it sent may still be on its way.
                core.runtime.sleep(residual).await;
            }
            results
        }
    };
    results.and_then(Result::ok)
}

/// As many unknown results as a call has keys.
fn unknown(keys: usize) -> Vec<Result<Settlement>> {
    let unknown = || Err(Error::new(ErrorKind::Timeout, "the call never returned"));
    std::iter::repeat_with(unknown).take(keys).collect()
}

/// The backend call for a batch, which is all stores or all removals. Owns what it needs: it may outlive the batch.
fn send(core: &Arc<TierCore>, batch: &[Job]) -> impl Future<Output = Vec<Result<Settlement>>> + Send + use<> {
    let backend = Arc::clone(&core.backend);
    let is_store = batch.first().is_some_and(|job| job.entry().is_some());
    let mut stores = Vec::with_capacity(if is_store { batch.len() } else { 0 });
    stores.extend(batch.iter().filter_map(|job| Some((job.key().clone(), job.entry()?.clone()))));
    let removals: Vec<_> = if stores.is_empty() {
        batch.iter().map(|job| (job.key().clone(), job.stamp())).collect()
    } else {
        Vec::new()
    };
    let expected = batch.len();
    let core = Arc::clone(core);
    async move {
        let results: Vec<Result<Settlement>> = if removals.is_empty() {
            let results = backend.write_entries(stores).await;
            complete(results, expected)
                .into_iter()
                .map(|result| result.map(|()| Settlement::Applied))
                .collect()
        } else {
            let results = backend.remove_entries(removals).await;
            complete(results, expected).into_iter().map(|result| result.map(removed)).collect()
        };
        results.into_iter().map(|result| result.or_else(|error| core.compared(error))).collect()
    }
}

/// Clears a scope, and keeps trying in the background if that fails: in this process the scope is hidden already.
pub(super) async fn clear(slot: CallCount, op: ClearOp) {
    let core = Arc::clone(&slot.0);
    let (scope, stamp) = (op.scope.clone(), op.stamp);
    if core.port.is_some() {
        // Hidden is as good as gone in a store that ends with the process: nobody need wait for the walk.
        op.answer(Ok(()));
        let _ = contained_clear(&core, &scope, stamp).await;
        return;
    }
    let deadline = core.runtime.now().after(core.options.write_deadline);
    let result = core
        .runtime
        .deadline(deadline, contained_clear(&core, &scope, stamp))
        .await
        .unwrap_or_else(|| Err(overdue("clear", core.options.write_deadline.as_millis())));
    if result.is_err() {
        core.retry_clear(scope, stamp);
    }
    op.answer(result);
}

/// `Ok` if the backend recorded the clear or cannot.
pub(super) async fn contained_clear(core: &Arc<TierCore>, scope: &Scope, stamp: Stamp) -> Result<()> {
    match AssertUnwindSafe(core.backend.clear(scope, stamp)).catch_unwind().await {
        Ok(Err(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Ok(result) => result,
        Err(panic) => Err(backend_panic(&panic_message(&*panic))),
    }
}

/// Counts a call that is neither read nor write.
pub(super) struct CallCount(pub(super) Arc<TierCore>);

impl CallCount {
    pub(super) fn begin(core: &Arc<TierCore>) -> Self {
        core.call_began();
        Self(Arc::clone(core))
    }
}

impl Drop for CallCount {
    fn drop(&mut self) {
        self.0.call_ended();
    }
}

/// Before a probe, the backend may replace what is broken for good.
async fn reopen(core: &Arc<TierCore>, pass: &Admission) -> Result<()> {
    if !matches!(pass, Admission::Probe(_)) {
        return Ok(());
    }
    let call = AssertUnwindSafe(core.backend.reopen()).catch_unwind();
    match core.runtime.deadline(core.runtime.now().after(core.options.open_deadline), call).await {
        Some(Ok(result)) => result,
        Some(Err(panic)) => Err(backend_panic(&panic_message(&*panic))),
        None => Err(overdue("reopen", core.options.open_deadline.as_millis())),
    }
}

/// Tells the breaker how a call went: by keys, and never by what is the caller's own doing (too large a value) or one
/// entry's (its record is damaged: the rest of the store is as good as before, and another alarm counts these).
pub(super) fn record<T>(core: &Arc<TierCore>, pass: Admission, results: &[Result<T>]) {
    let is_fault = |result: &&Result<T>| {
        result.as_ref().is_err_and(|error| {
            !matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::Unsupported | ErrorKind::Decode)
        })
    };
    for result in results {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Decode) {
            core.note_decode(result);
        }
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let failed = results.iter().filter(is_fault).count();
    if let Some(Err(error)) = results.iter().find(is_fault) {
        core.set_health(|health| health.last_failure = Some(error.clone()));
    }
    let (now, random) = (core.runtime.now(), core.runtime.random());
    match pass {
        Admission::Yes(epoch) => {
            if failed > 0 {
                core.breaker.record(epoch, false, count(failed), now, random);
            }
            if failed < results.len() {
                core.breaker.record(epoch, true, count(results.len() - failed), now, random);
            }
        }
        Admission::Probe(permit) if failed == 0 => {
            permit.succeeded();
            core.repair_streak.store(0, std::sync::atomic::Ordering::Relaxed);
            core.healed.notify(usize::MAX);
        }
        Admission::Probe(permit) => permit.failed(now, random),
        Admission::No { .. } => {}
    }
}

/// Brings a batch's answers to the length of its keys: a backend that forgets one has failed it.
fn complete<T>(mut results: Vec<Result<T>>, expected: usize) -> Vec<Result<T>> {
    let got = results.len();
    results.truncate(expected);
    results.resize_with(expected, || {
        Err(Error::new(
            ErrorKind::Backend,
            format!("the backend answered {got} of {expected} keys of a batch"),
        ))
    });
    results
}

fn overdue(what: &str, millis: u128) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("the backend did not answer within the {what} deadline of {millis} ms"),
    )
}
