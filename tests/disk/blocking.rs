//! The adapter: permits, panics, callers that go away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use tierkeep::backend::{Blocking, BlockingBackend};
use tierkeep::{Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, ErrorKind, Raw};

use crate::harness::{Threads, assert_kind, block_on, key};

/// A store whose reads hang until they are let go, and whose removals panic.
#[derive(Clone, Default)]
struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    open: Mutex<bool>,
    changed: Condvar,
    inside: Mutex<usize>,
    entered: AtomicUsize,
}

impl Gate {
    fn let_go(&self) {
        *self.0.open.lock().unwrap() = true;
        self.0.changed.notify_all();
    }

    fn wait_until_inside(&self, count: usize) {
        let mut inside = self.0.inside.lock().unwrap();
        while *inside < count {
            inside = self.0.changed.wait(inside).unwrap();
        }
    }
}

impl BlockingBackend for Gate {
    fn read(&self, _: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        self.0.entered.fetch_add(1, Ordering::SeqCst);
        *self.0.inside.lock().unwrap() += 1;
        self.0.changed.notify_all();
        let mut open = self.0.open.lock().unwrap();
        while !*open {
            open = self.0.changed.wait(open).unwrap();
        }
        Ok(None)
    }

    fn write(&self, _: &CacheKey, _: CacheValue<Raw>) -> BackendResult<()> {
        Ok(())
    }

    fn remove(&self, _: &CacheKey) -> BackendResult<DeleteStatus> {
        panic!("no removals today")
    }
}

fn gated(permits: usize) -> (Gate, Blocking<Gate>) {
    let gate = Gate::default();
    let backend = Blocking::new(gate.clone()).with_permits(permits);
    block_on(backend.open(&Threads::new().context())).unwrap();
    (gate, backend)
}

#[test]
fn before_it_is_open_every_call_is_unavailable() {
    let backend = Blocking::new(Gate::default());
    assert_kind(block_on(backend.read(&key("k", 1))), ErrorKind::Unavailable);
    assert_kind(block_on(backend.flush()), ErrorKind::Unavailable);
    assert_eq!(backend.permits(), 4);
    assert_eq!(backend.residual(), None);
}

#[test]
fn a_permit_comes_back_when_the_job_returns_and_not_when_its_caller_goes() {
    let (gate, backend) = gated(2);
    let key = key("k", 1);
    block_on(async {
        for _ in 0..2 {
            let mut read = backend.read(&key);
            assert!(futures_util::poll!(&mut read).is_pending());
        }
        gate.wait_until_inside(2);
        assert_eq!(backend.running_jobs(), 2, "their callers are gone, the jobs are not");
        // A third waits, is given up, and must never run.
        let mut given_up = backend.read(&key);
        assert!(futures_util::poll!(&mut given_up).is_pending());
        drop(given_up);
        let mut write = backend.write(&key, CacheValue::new(Raw::new(), None, None));
        assert!(futures_util::poll!(&mut write).is_pending());
        gate.let_go();
        write.await.unwrap();
    });
    assert_eq!(gate.0.entered.load(Ordering::SeqCst), 2);
}

#[test]
fn a_waiter_that_was_woken_and_dropped_passes_its_turn_on() {
    let (gate, backend) = gated(1);
    let key = key("k", 1);
    block_on(async {
        let mut running = backend.read(&key);
        assert!(futures_util::poll!(&mut running).is_pending());
        let mut first = backend.write(&key, CacheValue::new(Raw::new(), None, None));
        let mut second = backend.write(&key, CacheValue::new(Raw::new(), None, None));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        gate.let_go();
        running.await.unwrap();
        // `first` has been notified by now and has not run.
        drop(first);
        second.await.unwrap();
    });
    assert_eq!(backend.running_jobs(), 0);
}

#[test]
fn a_panic_is_an_error_and_gives_the_permit_back() {
    let (_, backend) = gated(1);
    for _ in 0..3 {
        let message = assert_kind(block_on(backend.remove(&key("k", 1))), ErrorKind::Panicked);
        assert!(message.contains("no removals today"), "{message}");
        assert_eq!(backend.running_jobs(), 0);
    }
    for answer in block_on(backend.remove_many(&[key("k", 1), key("k", 2)])) {
        assert_kind(answer, ErrorKind::Panicked);
    }
}

#[test]
fn no_more_jobs_run_at_once_than_there_are_permits() {
    let (gate, backend) = gated(3);
    let key = key("k", 1);
    block_on(async {
        let mut reads: Vec<_> = (0..10).map(|_| backend.read(&key)).collect();
        for read in &mut reads {
            assert!(futures_util::poll!(read).is_pending());
        }
        gate.wait_until_inside(3);
        assert_eq!((backend.running_jobs(), gate.0.entered.load(Ordering::SeqCst)), (3, 3));
        gate.let_go();
        for read in reads {
            read.await.unwrap();
        }
    });
    assert_eq!((backend.running_jobs(), gate.0.entered.load(Ordering::SeqCst)), (0, 10));
}
