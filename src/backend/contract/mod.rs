//! What every [`Backend`](super::Backend) must do, as tests that are written once (feature `testing`).
//!
//! Say how to run a case on a fresh, empty store, and let [`backend_contract!`](crate::backend_contract) make a test of
//! each:
//!
//! ```
//! use std::{collections::HashMap, sync::Mutex};
//! use tierkeep::backend::contract::{Case, Subject};
//! use tierkeep::{Backend, BackendResult, CacheKey, CacheValue, DeleteStatus, Raw, async_trait};
//!
//! #[derive(Default)]
//! struct Store(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);
//!
//! #[async_trait]
//! impl Backend for Store {
//!     async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
//!         Ok(self.0.lock().unwrap().get(key).cloned())
//!     }
//!     async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
//!         self.0.lock().unwrap().insert(key.clone(), value);
//!         Ok(())
//!     }
//!     async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
//!         let found = self.0.lock().unwrap().remove(key);
//!         Ok(found.map_or(DeleteStatus::Missing, |_| DeleteStatus::Deleted(1)))
//!     }
//! }
//!
//! fn run(case: Case) {
//!     smol::block_on(case(Subject::new(tierkeep_smol::SmolRuntime::new(), Store::default())));
//! }
//!
//! mod contract {
//!     tierkeep::backend_contract!(super::run);
//! }
//! # fn main() {
//! #     for (_, case) in tierkeep::backend::contract::CASES {
//! #         run(*case);
//! #     }
//! # }
//! ```
//!
//! What a backend leaves at its default is held to the default's promise: one that cannot clear passes the cases about
//! clearing by saying so. The store must have room for some 16 MB. Nothing here waits for time to pass, and a case that
//! takes longer than a minute fails.

pub mod batches;
pub mod calls;
pub mod clears;
pub mod entries;
pub mod lives;
pub mod stamps;
pub mod store;
mod subject;
pub mod values;

use std::future::Future;
use std::time::Duration;

pub use subject::Subject;

use crate::runtime::BoxFuture;

/// One test of the suite: it panics if the backend does not keep the contract.
pub type Case = fn(Subject) -> BoxFuture<'static, ()>;

/// Makes a `#[test]` of every case of the suite. The argument is a function that takes a
/// [`Case`](crate::backend::contract::Case) and runs it to its end on a fresh store.
#[macro_export]
macro_rules! backend_contract {
    ($run:expr) => {
        $crate::__backend_cases!(__backend_tests $run);
    };
}

/// Every case with its name, for runs that want them in a loop.
pub const CASES: &[(&str, Case)] = crate::__backend_cases!(__backend_list);

/// Opens the backend and runs a case on it.
#[doc(hidden)]
pub async fn run<F: Future<Output = ()>>(subject: Subject, case: fn(Subject) -> F) {
    let runtime = subject.runtime.clone();
    let deadline = runtime.now().after(Duration::from_secs(60));
    let done = runtime.deadline(deadline, async {
        subject.open().await;
        case(subject).await;
    });
    assert!(done.await.is_some(), "the case has taken more than a minute");
}

#[doc(hidden)]
#[macro_export]
macro_rules! __backend_tests {
    ([$run:expr] $($module:ident { $($case:ident)* })*) => {
        fn run_contract_case(case: $crate::backend::contract::Case) {
            let run: fn($crate::backend::contract::Case) = $run;
            run(case)
        }

        $(mod $module {
            $(#[test]
            fn $case() {
                super::run_contract_case(|subject| {
                    let case = $crate::backend::contract::$module::$case;
                    ::std::boxed::Box::pin($crate::backend::contract::run(subject, case))
                });
            })*
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __backend_list {
    ([] $($module:ident { $($case:ident)* })*) => {
        &[$($((
            concat!(stringify!($module), "::", stringify!($case)),
            (|subject| {
                Box::pin($crate::backend::contract::run(subject, $crate::backend::contract::$module::$case))
            }) as Case,
        ),)*)*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __backend_cases {
    ($then:ident $($with:tt)*) => {
        $crate::$then! { [$($with)*]
            batches {
                answers_come_in_the_order_of_the_keys
                a_key_asked_for_twice_is_answered_twice
                an_empty_batch_has_no_answers
                batches_and_single_calls_agree
            }
            calls {
                concurrent_calls_for_different_keys_do_not_mix
                one_key_written_by_many_holds_one_of_their_values
                reads_beside_writes_see_whole_values
                a_dropped_read_leaves_the_store_working
                a_dropped_write_applies_whole_or_not_at_all
            }
            clears {
                a_clear_takes_what_was_written_before
                a_clear_spares_other_prefixes
                what_is_written_after_a_clear_stays
                a_clear_is_remembered_when_the_store_is_reopened
            }
            entries {
                entries_and_values_agree
                an_entry_outlives_its_expiry_for_as_long_as_it_is_retained
                a_store_of_objects_shares_them
                the_port_and_the_entries_agree
            }
            lives {
                a_value_without_expiry_stays
                a_value_is_there_until_it_expires
                a_stale_value_is_still_there
                an_expiry_is_never_prolonged
                a_rewrite_replaces_the_expiry
                a_sweep_spares_what_lives
            }
            stamps {
                an_older_entry_is_refused
                an_equal_stamp_is_applied
                a_removal_keeps_older_entries_out
                a_removal_spares_what_is_newer
                the_stamp_of_what_has_expired_is_remembered
                a_batch_is_decided_key_by_key
            }
            store {
                it_says_the_same_of_itself_every_time
                it_reads_the_values_that_it_encodes
                opening_again_changes_nothing
                reopening_leaves_it_serving
                a_flush_keeps_everything
            }
            values {
                what_is_written_is_read
                an_absent_key_has_no_value
                the_last_write_wins
                a_removed_value_is_gone
                a_removal_tells_whether_there_was_a_value
                an_empty_value_is_a_value
                four_megabytes_come_back
                bytes_come_back_as_they_are
                keys_of_any_text_are_kept_apart
            }
        }
    };
}
