//! Every built-in backend keeps the contract, and so do backends behind pointers and adapters.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tierkeep::backend::contract::{CASES, Case, Subject};
use tierkeep::backend::{Blocking, BlockingBackend};
use tierkeep::{Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, MemoryBackend, Raw};
use tierkeep_sim::{MapBackend, Sim};
use tierkeep_smol::SmolRuntime;

fn on_smol(case: Case, backend: impl Backend) {
    smol::block_on(case(Subject::new(SmolRuntime::new(), backend)));
}

mod memory_by_entries {
    tierkeep::backend_contract!(|case| super::on_smol(case, tierkeep::MemoryBackend::entries(10_000)));
}

mod memory_by_bytes {
    tierkeep::backend_contract!(|case| super::on_smol(case, tierkeep::MemoryBackend::bytes(256 << 20)));
}

#[cfg(feature = "moka")]
mod moka {
    tierkeep::backend_contract!(|case| {
        super::on_smol(case, tierkeep::backend::MokaBackend::entries(10_000));
    });
}

#[cfg(feature = "disk")]
mod disk {
    fn run(case: tierkeep::backend::contract::Case) {
        let directory = tempfile::tempdir().unwrap();
        let disk = tierkeep::backend::DiskBackend::builder(directory.path()).capacity_bytes(256 << 20);
        super::on_smol(case, disk.build().unwrap());
    }

    tierkeep::backend_contract!(run);
}

/// Each case has a namespace of its own on one server.
#[cfg(feature = "redis-smol")]
mod redis {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tierkeep::backend::contract::Case;
    use tierkeep::backend::{RedisBackend, RedisDriver};
    use tierkeep_test_servers::RedisServer;

    static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::start().unwrap());

    pub(super) fn run(case: Case) {
        static CASE: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("case-{}", CASE.fetch_add(1, Ordering::Relaxed));
        let redis = RedisBackend::builder(RedisDriver::Smol).url(&SERVER.url()).namespace(namespace);
        super::on_smol(case, redis.build().unwrap());
    }

    tierkeep::backend_contract!(run);
}

/// Only the three required methods.
mod map {
    tierkeep::backend_contract!(|case| super::on_smol(case, tierkeep_sim::MapBackend::new()));
}

mod comparing_map {
    tierkeep::backend_contract!(|case| super::on_smol(case, tierkeep_sim::MapBackend::comparing()));
}

mod behind_pointers {
    use std::sync::Arc;

    use tierkeep::{Backend, MemoryBackend};

    tierkeep::backend_contract!(|case| {
        let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::entries(10_000));
        super::on_smol(case, Box::new(inner) as Box<dyn Backend>);
    });
}

#[derive(Default)]
struct BlockingMap(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);

impl BlockingBackend for BlockingMap {
    fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
        self.0.lock().unwrap().insert(key.clone(), value);
        Ok(())
    }

    fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
        let found = self.0.lock().unwrap().remove(key);
        Ok(found.map_or(DeleteStatus::Missing, |_| DeleteStatus::Deleted(1)))
    }
}

mod blocking {
    tierkeep::backend_contract!(|case| {
        super::on_smol(case, tierkeep::backend::Blocking::new(super::BlockingMap::default()));
    });
}

/// Virtual time and seeded schedules: the same cases, in other orders.
#[test]
fn under_the_simulator() {
    type Make = fn() -> Arc<dyn Backend>;
    let backends: [Make; 3] = [
        || Arc::new(MemoryBackend::entries(10_000)),
        || Arc::new(MapBackend::new()),
        || Arc::new(Blocking::new(BlockingMap::default()).with_permits(2)),
    ];
    for seed in 0..5 {
        for make in backends {
            for (name, case) in CASES {
                let sim = Sim::new(seed);
                let run = sim.block_on(case(Subject::new(sim.runtime(), make())));
                assert!(run.is_ok(), "{name} under seed {seed}: {run:?}");
            }
        }
    }
}

/// The suite is worth something only if what breaks the contract fails it.
mod broken {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use tierkeep::backend::Scope;
    use tierkeep::{CacheValue, Raw, Stamp, async_trait};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Flaw {
        None,
        EmptyIsAbsent,
        KeepsRemoved,
        AlwaysDeleted,
        CutsLarge,
        FoldsCase,
        FirstWriteWins,
        TrimsBytes,
        ProlongsExpiry,
        BatchOutOfOrder,
        LosesOnFlush,
        LosesOnReopen,
        LosesOnOpen,
        ClearTakesEverything,
        ClearTakesNothing,
        OnlySaysThatItCompares,
        Torn,
    }

    struct Flawed(MapBackend, Flaw);

    impl Flawed {
        fn key(&self, key: &CacheKey) -> CacheKey {
            if self.1 != Flaw::FoldsCase {
                return key.clone();
            }
            CacheKey::parse(&key.as_str().to_ascii_lowercase().replace("%c", "%C"))
                .unwrap_or_else(|| key.clone())
        }
    }

    #[async_trait]
    impl Backend for Flawed {
        async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
            let value = self.0.read(&self.key(key)).await?;
            Ok(value.filter(|value| self.1 != Flaw::EmptyIsAbsent || !value.data().is_empty()))
        }

        async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
            let key = &self.key(key);
            let (expire, stale) = (value.expire(), value.stale());
            let value = match self.1 {
                Flaw::FirstWriteWins if self.0.get(key).is_some() => return Ok(()),
                Flaw::CutsLarge => value.map(|bytes| bytes.slice(..bytes.len().min(1 << 20))),
                Flaw::TrimsBytes => value.map(|bytes| Raw::copy_from_slice(bytes.trim_ascii())),
                Flaw::ProlongsExpiry => {
                    let later = expire.map(|at| at.after(std::time::Duration::from_millis(1)));
                    CacheValue::new(value.into_inner(), later, stale)
                }
                Flaw::Torn => {
                    let half = value.data().slice(..value.data().len() / 2);
                    self.0.write(key, CacheValue::new(half, expire, stale)).await?;
                    smol::future::yield_now().await;
                    value
                }
                _ => value,
            };
            self.0.write(key, value).await
        }

        async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
            match self.1 {
                Flaw::KeepsRemoved => Ok(DeleteStatus::Deleted(1)),
                Flaw::AlwaysDeleted => self.0.remove(&self.key(key)).await.map(|_| DeleteStatus::Deleted(1)),
                _ => self.0.remove(&self.key(key)).await,
            }
        }

        async fn read_many(&self, keys: &[CacheKey]) -> Vec<BackendResult<Option<CacheValue<Raw>>>> {
            let mut answers = Vec::new();
            for key in keys {
                answers.push(self.read(key).await);
            }
            if self.1 == Flaw::BatchOutOfOrder {
                answers.reverse();
            }
            answers
        }

        async fn clear(&self, scope: &Scope, _: Stamp) -> BackendResult<()> {
            for (key, _) in self.0.contents() {
                let covered = scope.covers(key.prefix()) || self.1 == Flaw::ClearTakesEverything;
                if covered && self.1 != Flaw::ClearTakesNothing {
                    self.0.remove(&key).await?;
                }
            }
            Ok(())
        }

        fn compares(&self) -> bool {
            self.1 == Flaw::OnlySaysThatItCompares
        }

        async fn flush(&self) -> BackendResult<()> {
            if self.1 == Flaw::LosesOnFlush {
                self.0.wipe();
            }
            Ok(())
        }

        async fn open(&self, _: &tierkeep::backend::OpenContext) -> BackendResult<()> {
            if self.1 == Flaw::LosesOnOpen {
                self.0.wipe();
            }
            Ok(())
        }

        async fn reopen(&self) -> BackendResult<()> {
            if self.1 == Flaw::LosesOnReopen { Err(std::io::Error::other("gone").into()) } else { Ok(()) }
        }
    }

    /// The cases that a backend with this flaw fails.
    fn failed(flaw: Flaw) -> Vec<&'static str> {
        let fails = |case: Case| {
            let run = || on_smol(case, Flawed(MapBackend::new(), flaw));
            catch_unwind(AssertUnwindSafe(run)).is_err()
        };
        CASES.iter().filter(|(_, case)| fails(*case)).map(|(name, _)| *name).collect()
    }

    #[test]
    fn each_flaw_is_found_by_its_case() {
        let found_by = [
            (Flaw::EmptyIsAbsent, "values::an_empty_value_is_a_value"),
            (Flaw::KeepsRemoved, "values::a_removed_value_is_gone"),
            (Flaw::AlwaysDeleted, "values::a_removal_tells_whether_there_was_a_value"),
            (Flaw::CutsLarge, "values::four_megabytes_come_back"),
            (Flaw::FoldsCase, "values::keys_of_any_text_are_kept_apart"),
            (Flaw::FirstWriteWins, "values::the_last_write_wins"),
            (Flaw::TrimsBytes, "values::bytes_come_back_as_they_are"),
            (Flaw::ProlongsExpiry, "lives::an_expiry_is_never_prolonged"),
            (Flaw::BatchOutOfOrder, "batches::answers_come_in_the_order_of_the_keys"),
            (Flaw::LosesOnFlush, "store::a_flush_keeps_everything"),
            (Flaw::LosesOnReopen, "store::reopening_leaves_it_serving"),
            (Flaw::LosesOnOpen, "store::opening_again_changes_nothing"),
            (Flaw::ClearTakesEverything, "clears::a_clear_spares_other_prefixes"),
            (Flaw::ClearTakesNothing, "clears::a_clear_takes_what_was_written_before"),
            (Flaw::OnlySaysThatItCompares, "stamps::an_older_entry_is_refused"),
            (Flaw::OnlySaysThatItCompares, "stamps::a_removal_keeps_older_entries_out"),
            (Flaw::OnlySaysThatItCompares, "stamps::a_removal_spares_what_is_newer"),
            (Flaw::OnlySaysThatItCompares, "stamps::the_stamp_of_what_has_expired_is_remembered"),
            (Flaw::OnlySaysThatItCompares, "stamps::a_batch_is_decided_key_by_key"),
            (Flaw::Torn, "calls::a_dropped_write_applies_whole_or_not_at_all"),
        ];
        assert_eq!(failed(Flaw::None), [""; 0], "without a flaw nothing fails");
        for (flaw, case) in found_by {
            assert!(failed(flaw).contains(&case), "{flaw:?} is not found by {case}: {:?}", failed(flaw));
        }
    }
}
