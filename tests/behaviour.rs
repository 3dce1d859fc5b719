//! How the engine behaves, stated once and run on every runtime: tokio (both flavours), async-std, smol, and the
//! simulator under several seeds.
//!
//! A case takes a [`World`](behaviour::world::World) and panics if the engine does not behave. Cases wait for
//! conditions, never for a time that ought to be enough; the simulator adds what only exact time can show.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod behaviour {
    mod bad_input;
    mod basics;
    mod bench;
    mod crashes;
    mod expiry;
    mod fast_path;
    mod faults;
    mod flights;
    mod formats;
    mod frames;
    mod in_place;
    mod keys;
    mod lifecycle;
    mod read_policies;
    mod recovery;
    mod room;
    mod store;
    mod world;
    mod write_behind;
    mod write_policies;

    /// Makes a `#[test]` of every case. The argument is a function that runs a case to its end on a fresh runtime.
    macro_rules! cases {
        ($run:path) => {
            cases! { $run =>
                basics {
                    what_is_set_is_read_back
                    an_absent_key_is_a_miss
                    a_removed_key_is_gone_from_every_tier
                    many_at_once_keep_their_order
                    each_writer_of_a_large_batch_hears_of_its_own_value
                    writes_have_a_batch_limit_of_their_own
                    a_write_that_waits_for_a_key_of_a_large_batch_follows_it
                    more_keys_than_a_mailbox_holds
                    a_codec_pool_without_room_costs_a_tier_not_the_call
                    a_region_s_clear_leaves_other_regions
                    a_cache_s_clear_takes_everything
                    a_lower_hit_refills_the_tiers_above
                    contains_refills_nothing
                    a_loaded_value_reaches_every_tier
                    clones_are_the_same_cache
                    keys_made_by_hand_and_regions_meet
                    versions_of_a_region_are_apart
                    inspection_serialises
                }
                expiry {
                    an_entry_dies_at_its_millisecond
                    an_entry_dies
                    a_set_can_have_its_own_ttl
                    an_upper_tier_s_cap_cuts_a_longer_life
                    an_upper_tier_s_cap_never_adds_life
                    without_expiry_entries_stay
                    expired_objects_are_swept
                    a_wall_clock_that_steps_back_revives_nothing_older
                }
                fast_path {
                    hits_in_memory_touch_neither_mailbox_nor_codec
                    refilled_objects_are_hits_in_memory_too
                }
                in_place {
                    a_store_in_process_answers_before_anyone_waits
                    what_is_held_up_goes_on_without_its_caller
                    a_read_that_is_held_up_is_made_again
                    calls_that_fail_in_the_caller_s_hands_are_misses
                    writers_of_one_key_take_turns
                }
                lifecycle {
                    shutdown_of_a_healthy_cache_is_clean
                    shutdown_names_the_stuck_tier
                    shutdown_finishes_what_is_queued
                    a_second_shutdown_is_harmless
                    after_shutdown_reads_miss_and_mutations_are_refused
                    dropping_every_handle_stops_the_actors
                    a_region_keeps_the_cache_alive
                    a_required_tier_that_stays_down_fails_the_build
                    a_failing_tier_can_fail_the_read
                }
                read_policies {
                    each_policy_with_each_state_of_three_tiers
                    refills_as_the_policy_says
                    a_predicate_that_panics_refills_nothing
                    equal_stamps_are_told_apart_by_expiry
                    nested_compositions_are_one_route
                }
                write_policies {
                    each_policy_with_each_state_of_three_tiers
                    a_removal_succeeds_by_the_word_that_counts_for_a_set
                }
                recovery {
                    what_a_lower_tier_did_not_confirm_is_made_good_under_every_write_policy
                }
                room {
                    who_waits_for_room_is_told_of_a_lighter_value
                    who_waits_for_room_is_passed_by_nobody
                    who_leaves_the_line_for_room_hands_the_turn_on
                    who_is_not_polled_holds_the_line_up_no_longer_than_it_would_wait
                    who_waits_with_a_place_outlasts_one_who_is_not_polled
                }
                write_behind {
                    a_write_is_acknowledged_before_the_store_has_it
                    every_read_sees_what_is_pending
                    of_several_writes_of_a_key_the_newest_is_sent
                    writes_go_in_batches
                    full_batches_wait_for_newer_values_too
                    a_queue_that_is_more_than_half_full_waits_no_longer
                    a_lone_write_goes_after_the_delay
                    a_clear_takes_what_is_pending
                    a_failed_write_is_tried_again
                    a_write_that_never_succeeds_is_a_dead_letter
                    a_full_queue_rejects
                    a_full_queue_blocks_until_there_is_room
                    a_full_queue_blocks_no_longer_than_it_says
                    a_full_queue_writes_through
                    a_full_queue_drops_the_oldest
                    letters_that_wait_weigh_no_more_than_the_queue_may
                    a_refused_write_leaves_what_was_accepted_queued
                    a_newer_write_takes_the_place_of_one_behind_a_refused_one
                    a_cancelled_write_leaves_what_was_accepted_queued
                    what_a_refused_write_displaced_for_good_is_a_dead_letter
                    a_bypass_hands_out_what_refused_writes_displaced
                    a_shutdown_hands_out_what_a_refused_write_stands_before
                    a_repair_that_never_succeeds_holds_up_no_flush
                    a_poison_entry_stands_alone_in_the_end
                    a_poison_key_among_many_delays_the_others_by_less_than_a_retry
                    a_store_away_for_longer_than_the_queue_holds
                    an_open_breaker_pauses_the_drain
                    a_poison_key_alone_dies_though_it_is_every_probe
                    a_store_that_does_not_answer_kills_nothing_by_its_probes
                    another_key_than_the_failing_one_is_the_probe
                    what_gets_too_old_while_the_breaker_is_open_is_given_up
                    a_shutdown_drains
                    a_shutdown_with_the_store_away_hands_out_letters
                    a_shutdown_tries_once_more_what_waits_to_be_tried_again
                    a_flush_waits_for_what_was_written_anew_in_flight
                    a_shutdown_waits_for_what_was_written_anew_in_flight
                    what_was_accepted_behind_a_call_that_never_returns_is_sent_to_a_store_that_compares
                    a_sink_that_panics_is_asked_once_a_letter
                    an_older_attempt_that_hangs_is_waited_for
                    a_failure_of_an_older_attempt_is_not_the_newer_change_s
                    a_call_whose_task_is_lost_is_tried_again
                    who_waits_for_room_is_told_of_the_shutdown
                    no_policy_acknowledges_what_is_not_queued
                    what_cannot_work_is_said_at_build
                }
                faults {
                    a_backend_that_errors
                    a_backend_that_panics_on_every_call
                    a_backend_that_hangs_for_ever
                    a_backend_that_hangs_on_the_blocking_pool
                    a_backend_that_answers_late
                    a_backend_that_applies_long_after_it_was_given_up
                    a_backend_that_applies_but_reports_failure
                    a_backend_that_refuses_to_open
                    a_full_mailbox
                    an_overflowing_quarantine
                }
                crashes {
                    an_actor_killed_while_batches_are_in_flight
                    an_actor_killed_more_often_than_the_limit
                    the_supervisor_killed
                    the_supervisor_killed_for_good
                }
                flights {
                    concurrent_callers_run_one_load
                    a_cancelled_leader_is_replaced
                    a_panicking_leader_is_replaced
                    an_error_is_shared_and_not_kept
                    a_waiter_has_a_deadline
                    a_leader_has_a_deadline
                    a_remove_parts_joiners_before_and_after
                    a_set_overtakes_a_load
                    a_clear_parts_joiners_before_and_after
                    a_broken_tier_does_not_stop_a_load
                }
                formats {
                    postcard_entries_are_read_after_a_change_to_json
                    json_entries_are_read_after_a_change_to_postcard
                    a_new_format_is_used_for_what_is_written_next
                    every_format_and_compressor_reads_back
                    tiers_of_one_codec_share_an_encoding
                    refills_of_one_codec_share_an_encoding
                }
                frames {
                    damaged_entries_are_counted_misses
                    truncated_entries_are_counted_misses
                    foreign_entries_are_counted_misses
                    entries_under_another_key_are_counted_misses
                    oversized_entries_are_counted_misses
                    a_damaged_entry_is_replaced_from_below
                    entries_of_another_type_are_counted_misses
                }
                bad_input {
                    a_cache_without_tiers
                    two_tiers_of_one_label
                    an_empty_label
                    each_option_that_is_zero
                    breaker_options_that_cannot_work
                    formats_with_ids_that_are_not_theirs
                    a_region_without_a_name
                    a_region_that_does_not_say_how_long_entries_live
                    a_region_reopened_with_other_types
                    a_ttl_of_zero
                    a_type_that_does_not_read_back
                    a_value_that_cannot_be_encoded
                    a_value_over_the_size_limit
                    a_value_that_the_store_finds_too_large
                    any_text_as_a_key_through_the_whole_cache
                }
            }
        };
        ($run:path => $($module:ident { $($case:ident)* })*) => {
            $(mod $module {
                $(#[test]
                fn $case() {
                    $run(|world| Box::pin(crate::behaviour::$module::$case(world)));
                })*
            })*
        };
    }

    mod tokio_multi_thread {
        cases!(crate::behaviour::world::on_tokio);
    }

    mod tokio_current_thread {
        cases!(crate::behaviour::world::on_tokio_current_thread);
    }

    mod async_std {
        cases!(crate::behaviour::world::on_async_std);
    }

    mod smol {
        cases!(crate::behaviour::world::on_smol);
    }

    mod sim {
        cases!(crate::behaviour::world::on_sim);
    }
}
