//! What every [`Runtime`](super::Runtime) must do, as tests that are written once (feature `testing`).
//!
//! Say how to run a case on your runtime, and let [`runtime_conformance!`](crate::runtime_conformance) make a test
//! of each:
//!
//! ```
//! use tierkeep::runtime::conformance::Case;
//! use tierkeep_smol::SmolRuntime;
//!
//! fn run(case: Case) {
//!     smol::block_on(case(SmolRuntime::new().into()));
//! }
//!
//! mod conformance {
//!     tierkeep::runtime_conformance!(super::run);
//! }
//! # fn main() {}
//! ```
//!
//! The cases need no threads and no real time: a single-threaded runtime on a virtual clock passes them too. Events
//! decide; delays of some ms are waited for, and a minute without the awaited event is a failure.

pub mod mailbox;
mod probe;
pub mod restarts;
mod stage;
pub mod stopping;
pub mod tasks;
pub mod timers;

use super::{BoxFuture, RuntimeHandle};

/// One test of the suite: it panics if the runtime does not conform.
pub type Case = fn(RuntimeHandle) -> BoxFuture<'static, ()>;

/// Makes a `#[test]` of every case of the suite. The argument is a function that takes a
/// [`Case`](crate::runtime::conformance::Case) and runs it to its end on a fresh handle to the runtime.
#[macro_export]
macro_rules! runtime_conformance {
    ($run:expr) => {
        $crate::__runtime_cases!(__runtime_tests $run);
    };
}

/// Every case with its name, for runs that want them in a loop (under many seeds, say).
pub const CASES: &[(&str, Case)] = crate::__runtime_cases!(__runtime_list);

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_tests {
    ([$run:expr] $($module:ident { $($case:ident)* })*) => {
        fn run_conformance_case(case: $crate::runtime::conformance::Case) {
            let run: fn($crate::runtime::conformance::Case) = $run;
            run(case)
        }

        $(mod $module {
            $(#[test]
            fn $case() {
                super::run_conformance_case(|runtime| {
                    ::std::boxed::Box::pin($crate::runtime::conformance::$module::$case(runtime))
                });
            })*
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_list {
    ([] $($module:ident { $($case:ident)* })*) => {
        &[$($((
            concat!(stringify!($module), "::", stringify!($case)),
            (|runtime| Box::pin($crate::runtime::conformance::$module::$case(runtime))) as Case,
        ),)*)*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __runtime_cases {
    ($then:ident $($with:tt)*) => {
        $crate::$then! { [$($with)*]
            mailbox {
                messages_are_handled_in_order
                each_sender_keeps_its_order_and_nothing_is_lost
                a_mailbox_is_full_at_exactly_its_capacity
                a_mailbox_holds_at_least_one_message
                a_refused_message_is_given_back
                send_waits_for_room
                a_dropped_send_loses_only_its_own_message
                a_dropped_send_passes_its_room_on
                messages_wait_while_the_handler_is_not_ready
                the_handler_can_become_ready_in_idle
                idle_follows_a_burst
                idle_comes_at_least_every_64_messages
                a_busy_actor_lets_others_run
                clones_of_an_address_reach_the_same_actor
            }
            restarts {
                a_panic_restarts_the_actor_and_keeps_what_is_queued
                the_message_being_handled_is_dropped
                requests_held_by_the_handler_are_dropped
                the_old_incarnation_is_dropped_before_the_next_is_made
                a_panic_in_poll_ready_restarts_the_actor
                a_panic_in_idle_restarts_the_actor
                a_panic_while_being_made_is_a_failure
                a_panic_before_being_made_is_a_failure
                a_failing_factory_is_tried_again
                a_panicking_destructor_does_no_harm
                a_panicking_watch_does_no_harm
                restarts_within_the_limit_keep_the_actor_up
                past_the_limit_the_actor_is_down
                going_down_releases_blocked_senders
                a_blocked_sender_survives_a_restart
                an_actor_that_is_down_returns_by_itself
                an_outage_is_forgotten_after_the_return
                attempts_go_on_for_ever
                failures_outside_of_the_window_are_forgotten
                the_backoff_grows_to_its_maximum
                a_restart_waits_out_its_delay
            }
            stopping {
                stop_handles_what_is_queued
                stop_waits_for_a_handler_that_is_not_ready
                kill_drops_what_is_queued
                a_stop_overtaken_by_a_kill
                a_hanging_factory_can_be_killed
                a_hanging_factory_can_be_stopped
                stop_while_restarting_is_prompt
                stop_while_restarting_handles_what_is_queued
                stop_while_nothing_can_be_made_gives_up
                kill_while_restarting_is_prompt
                stop_while_down_is_prompt
                stopping_releases_blocked_senders
                stopped_completes_for_every_waiter
                a_stopped_actor_rejects_messages
                the_handler_is_gone_once_stopped
                a_handler_can_stop_its_own_actor
                a_watch_can_stop_the_actor
                dropping_the_last_address_stops_the_actor
                everything_is_released_after_a_stop
            }
            tasks {
                a_task_gives_its_result
                a_panic_in_a_task_is_a_value
                abort_cancels_a_task_and_drops_it
                abort_after_the_end_does_no_harm
                dropping_a_handle_detaches
                tasks_spawn_tasks
                tasks_wake_each_other
                a_blocking_job_gives_its_result
                a_panic_in_a_blocking_job_is_a_value
                a_blocking_job_outlives_its_handle
                many_blocking_jobs_all_run
                no_more_blocking_jobs_run_than_there_are_permits
                a_permit_outlives_a_caller_that_gives_up
            }
            timers {
                a_timer_is_not_early
                timers_fire_in_order
                a_past_deadline_completes_at_once
                a_dropped_timer_does_no_harm
                a_far_deadline_does_no_harm
                many_timers_all_fire
                a_timer_moves_between_tasks
                a_deadline_drops_the_loser
                a_deadline_gives_the_result
                the_monotonic_clock_never_goes_back
                the_wall_clock_is_plausible_and_moves
                random_numbers_vary
                the_runtime_describes_itself
            }
        }
    };
}
