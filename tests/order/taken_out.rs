//! Each rule, taken out, is caught: the tests named here fail without the rule they stand for.

use std::panic::catch_unwind;

use tierkeep::{Plant, plant};

use crate::{clears, fences, interleavings, leaving, ledger, quarantine};

#[test]
fn each_rule_taken_out_is_caught_by_its_test() {
    let table: [(Plant, fn()); 22] = [
        (Plant::NoFence, interleavings::a_refill_captured_before_a_set_is_not_applied_after_it),
        (Plant::FenceLate, interleavings::a_refill_captured_before_a_set_is_not_applied_after_it),
        (Plant::FenceBusy, fences::a_fence_taken_while_a_set_is_under_way_is_void),
        (Plant::FenceAtFill, fences::a_load_that_a_removal_overtook_fills_nothing),
        (Plant::NoLedger, ledger::a_mutation_that_arrives_after_a_newer_one_settled_is_dropped),
        (Plant::DropMinted, ledger::a_mutation_is_not_dropped_for_a_newer_one_that_has_not_settled),
        (Plant::OvertakenEarly, ledger::overtaken_mutations_settle_with_their_successor_and_not_before),
        (
            Plant::NoQuarantineInProcess,
            quarantine::a_memory_tier_that_could_not_apply_a_set_does_not_answer_through_its_port,
        ),
        (
            Plant::PortIgnoresQuarantine,
            quarantine::a_memory_tier_that_could_not_apply_a_set_does_not_answer_through_its_port,
        ),
        (
            Plant::NoQuarantine,
            interleavings::a_set_confirmed_above_and_refused_below_is_a_miss_below_until_made_good,
        ),
        (
            Plant::LiftAtConfirmation,
            quarantine::a_repair_waits_until_the_call_that_timed_out_can_no_longer_be_applied,
        ),
        (Plant::RepairsOldest, quarantine::a_repair_overtaken_by_a_set_is_followed_by_another),
        (Plant::TwoOut, interleavings::of_two_mutations_of_one_key_only_one_is_in_flight),
        (Plant::FillNotOut, fences::a_fill_in_flight_is_the_keys_one_call),
        (Plant::FillNoQuarantine, fences::a_fill_that_timed_out_quarantines_its_key),
        (
            Plant::LostOnRestart,
            interleavings::a_key_removed_while_the_lower_tier_is_down_is_not_read_through_it,
        ),
        (Plant::LostOnRestart, leaving::a_set_dropped_while_the_tier_above_writes_leaves_nothing_older_below),
        (Plant::RaceLoserShows, interleavings::a_race_loser_that_finishes_last_is_a_miss_until_it_has),
        (
            Plant::LateJoiner,
            interleavings::a_load_overtaken_by_a_remove_serves_those_who_joined_before_it_only,
        ),
        (
            Plant::BypassHidesNothing,
            quarantine::an_overflowing_quarantine_bypasses_the_tier_until_it_has_been_cleared,
        ),
        (
            Plant::InheritedAhead,
            interleavings::an_entry_of_an_earlier_process_whose_clock_was_ahead_is_older_than_all_of_this_one,
        ),
        (Plant::ClearHidesNothing, clears::a_clear_hides_a_write_that_is_applied_after_it),
    ];
    for (rule, test) in table {
        plant(Some(rule));
        let caught = catch_unwind(test).is_err();
        plant(None);
        assert!(caught, "nothing noticed that {rule:?} was gone");
    }
}
