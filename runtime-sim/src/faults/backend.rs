//! The backend that fails.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use tierkeep::backend::{Holds, OpenContext, Port, Scope};
use tierkeep::codec::{Compressor, Format};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{
    Backend, BackendLabel, BackendResult, CacheKey, CacheValue, DeleteStatus, Entry, Payload, Raw, Stamp,
    Timestamp,
};

use super::call::{Call, Run, injected};
use super::plan::{Fault, FaultPlan, Op};

/// A backend that passes everything on to another and fails as its [`FaultPlan`] says. On any runtime; under the
/// simulator it repeats with the seed.
pub struct Faulty<B> {
    inner: Arc<B>,
    runtime: RuntimeHandle,
    plan: FaultPlan,
}

impl<B: Backend> Faulty<B> {
    /// Wraps `backend`; waits and late calls go through `runtime`.
    pub fn new(backend: B, runtime: &RuntimeHandle, plan: &FaultPlan) -> Self {
        Self { inner: Arc::new(backend), runtime: runtime.clone(), plan: plan.clone() }
    }

    /// The backend behind the faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// The plan it follows.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    async fn many<I, T>(&self, call: Call<B, I, T>, items: Vec<I>) -> Vec<BackendResult<T>>
    where
        I: Send + 'static,
        T: Send + 'static,
    {
        call.make(Arc::clone(&self.inner), &self.runtime, &self.plan, items).await
    }

    /// A call for one entry, or for none in particular.
    async fn one<I, T>(&self, call: Call<B, I, T>, item: I) -> BackendResult<T>
    where
        I: Send + 'static,
        T: Send + 'static,
    {
        let op = call.op;
        let results = self.many(call, vec![item]).await;
        // One entry, one answer; the error stands for the case that cannot be.
        results.into_iter().next().unwrap_or_else(|| Err(injected(Fault::Error, op)))
    }
}

type Value = Option<CacheValue<Raw>>;

fn corrupt_value(plan: &FaultPlan, value: Value) -> Value {
    value.map(|value| value.map(|raw| plan.corrupt(&raw)))
}

fn corrupt_entry(plan: &FaultPlan, entry: Option<Entry>) -> Option<Entry> {
    entry.map(|mut entry| {
        if let Payload::Bytes(raw) = &entry.payload {
            entry.payload = Payload::Bytes(plan.corrupt(raw));
        }
        entry
    })
}

fn half(bytes: &Raw) -> Raw {
    bytes.slice(..bytes.len() / 2)
}

fn tear_value((key, value): (CacheKey, CacheValue<Raw>)) -> (CacheKey, CacheValue<Raw>) {
    (key, value.map(|raw| half(&raw)))
}

fn tear_entry((key, mut entry): (CacheKey, Entry)) -> (CacheKey, Entry) {
    if let Payload::Bytes(raw) = &entry.payload {
        entry.payload = Payload::Bytes(half(raw));
    }
    (key, entry)
}

fn whole<I>(item: I) -> I {
    item
}

fn keep<T>(_: &FaultPlan, value: T) -> T {
    value
}

fn deleted() -> DeleteStatus {
    DeleteStatus::Deleted(1)
}

fn none<T>() -> Option<T> {
    None
}

fn done() {}

/// Makes a [`Run`](super::call::Run) out of what is done for one item.
macro_rules! each {
    (|$inner:ident, $item:pat_param| $call:expr) => {
        |$inner, items| {
            Box::pin(async move {
                let mut results = Vec::with_capacity(items.len());
                for $item in items {
                    results.push($call.await);
                }
                results
            })
        }
    };
}

#[async_trait]
impl<B: Backend> Backend for Faulty<B> {
    async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        let run: Run<B, _, _> = each!(|inner, key| inner.read(&key));
        self.one(Call { op: Op::Read, run, pretend: none, tear: whole, corrupt: corrupt_value }, key.clone())
            .await
    }

    async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        let run: Run<B, _, _> = each!(|inner, (key, value)| inner.write(&key, value));
        self.one(
            Call { op: Op::Write, run, pretend: done, tear: tear_value, corrupt: keep },
            (key.clone(), value),
        )
        .await
    }

    async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let run: Run<B, _, _> = each!(|inner, key| inner.remove(&key));
        self.one(Call { op: Op::Remove, run, pretend: deleted, tear: whole, corrupt: keep }, key.clone())
            .await
    }

    fn label(&self) -> BackendLabel {
        self.inner.label()
    }

    fn value_format(&self) -> &dyn Format {
        self.inner.value_format()
    }

    fn compressor(&self) -> &dyn Compressor {
        self.inner.compressor()
    }

    async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
        let run: Run<B, CacheKey, _> = |inner, keys| Box::pin(async move { inner.read_many(&keys).await });
        self.many(
            Call { op: Op::Read, run, pretend: none, tear: whole, corrupt: corrupt_value },
            keys.to_vec(),
        )
        .await
    }

    async fn write_many(&self, entries: Vec<(CacheKey, CacheValue<Raw>)>) -> Vec<BackendResult<()>> {
        let run: Run<B, _, _> = |inner, entries| Box::pin(async move { inner.write_many(entries).await });
        self.many(Call { op: Op::Write, run, pretend: done, tear: tear_value, corrupt: keep }, entries).await
    }

    async fn remove_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<DeleteStatus>> {
        let run: Run<B, CacheKey, _> = |inner, keys| Box::pin(async move { inner.remove_many(&keys).await });
        self.many(Call { op: Op::Remove, run, pretend: deleted, tear: whole, corrupt: keep }, keys.to_vec())
            .await
    }

    async fn read_entries(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<Entry>>> {
        let run: Run<B, CacheKey, _> = |inner, keys| Box::pin(async move { inner.read_entries(&keys).await });
        self.many(
            Call { op: Op::Read, run, pretend: none, tear: whole, corrupt: corrupt_entry },
            keys.to_vec(),
        )
        .await
    }

    async fn write_entries(&self, entries: Vec<(CacheKey, Entry)>) -> Vec<BackendResult<()>> {
        let run: Run<B, _, _> = |inner, entries| Box::pin(async move { inner.write_entries(entries).await });
        self.many(Call { op: Op::Write, run, pretend: done, tear: tear_entry, corrupt: keep }, entries).await
    }

    async fn remove_entries(&self, entries: Vec<(CacheKey, Stamp)>) -> Vec<BackendResult<DeleteStatus>> {
        let run: Run<B, _, _> = |inner, entries| Box::pin(async move { inner.remove_entries(entries).await });
        self.many(Call { op: Op::Remove, run, pretend: deleted, tear: whole, corrupt: keep }, entries).await
    }

    fn holds(&self) -> Holds {
        self.inner.holds()
    }

    async fn clear(&self, scope: &Scope, stamp: Stamp) -> BackendResult<()> {
        let run: Run<B, _, _> = each!(|inner, (scope, stamp)| inner.clear(&scope, stamp));
        self.one(
            Call { op: Op::Clear, run, pretend: done, tear: whole, corrupt: keep },
            (scope.clone(), stamp),
        )
        .await
    }

    async fn flush(&self) -> BackendResult<()> {
        let run: Run<B, _, _> = each!(|inner, ()| inner.flush());
        self.one(Call { op: Op::Flush, run, pretend: done, tear: whole, corrupt: keep }, ()).await
    }

    async fn open(&self, context: &OpenContext) -> BackendResult<()> {
        let run: Run<B, _, _> = each!(|inner, context| inner.open(&context));
        self.one(Call { op: Op::Open, run, pretend: done, tear: whole, corrupt: keep }, context.clone()).await
    }

    async fn reopen(&self) -> BackendResult<()> {
        let run: Run<B, _, _> = each!(|inner, ()| inner.reopen());
        self.one(Call { op: Op::Reopen, run, pretend: done, tear: whole, corrupt: keep }, ()).await
    }

    fn sweep(&self, now: Timestamp) -> usize {
        self.inner.sweep(now)
    }

    /// The inner port while faults are off when this is asked, else none: a port cannot fail.
    fn port(&self) -> Option<Arc<dyn Port>> {
        if self.plan.is_enabled() { None } else { self.inner.port() }
    }

    fn immediate(&self) -> bool {
        self.inner.immediate()
    }

    fn residual(&self) -> Option<Duration> {
        self.inner.residual()
    }

    fn compares(&self) -> bool {
        self.inner.compares()
    }

    fn shared(&self) -> bool {
        self.inner.shared()
    }

    fn authoritative(&self) -> bool {
        self.inner.authoritative()
    }
}

impl<B> fmt::Debug for Faulty<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("plan", &self.plan).finish_non_exhaustive()
    }
}
