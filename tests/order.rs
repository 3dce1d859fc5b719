//! Order: how an older value never wins (DESIGN, section 6), as exact interleavings.
//!
//! A `Gate` is a byte tier whose calls the test lets through one by one; the simulator's schedules vary around it.
//! Every test below was seen to fail with its rule taken out; `taken_out` repeats that for the rules that can be
//! taken out at run time (`tierkeep::Plant`, named in brackets).
//!
//! | rule | where it stands | test |
//! |---|---|---|
//! | a refill or fill applies only if its fence holds [`NoFence`] | `Fences::holds`, asked in `TierCore::fill` | `interleavings::a_refill_captured_before_a_set…` |
//! | a fence is taken before anything is read below [`FenceLate`] | `Engine::read` | the same |
//! | a load fills under the fence taken before it [`FenceAtFill`] | `Store::get_or_load` | `fences::a_load_that_a_removal_overtook…` |
//! | a fence taken while its stripe is busy is void [`FenceBusy`] | `Fences::take` | `fences::a_fence_taken_while_a_set…` |
//! | a queued fill is given up once a mutation began (a saving: the mutation waits for it anyway) | `TierCore::drop_settled` | `fences::a_fill_that_waited…` |
//! | nothing older than what has settled is applied [`NoLedger`] | `Ledger::arrive` | `ledger::a_mutation_that_arrives_after…` |
//! | a mutation is announced at every tier before it is numbered | `Engine::begin` | the same |
//! | nothing is dropped for a newer one that is merely numbered [`DropMinted`] | `Ledger::arrive` | `ledger::a_mutation_is_not_dropped…` |
//! | overtaken mutations settle with their successor [`OvertakenEarly`] | `Ledger::next` | `ledger::overtaken_mutations_settle…` |
//! | …and never over it: their deadline leaves the newest change wanted | `Ledger::want`, in `complete` | `ledger::…_does_not_undo_its_successor` |
//! | …also if nobody waits for the newest | `Ledger::want`, in `overdue_mutation` | `ledger::a_late_successor…` |
//! | …and if it is not yet sent | `TierCore::drop_settled` | `ledger::…_does_not_lose_its_successor` |
//! | a mutation settles once | `Open`, in `TierCore::expire` | `quarantine::the_end_of_a_race_leaves…` |
//! | waiting mutations are bounded | `Ledger::arrive` | `ledger::a_key_for_which_too_many_wait…` |
//! | one writing attempt per key is out [`TwoOut`] | `Ledger::arrive` | `interleavings::of_two_mutations…` |
//! | a fill in flight is one [`FillNotOut`] | `Ledger::begin_fill` | `fences::a_fill_in_flight…` |
//! | a fill that timed out quarantines [`FillNoQuarantine`] | `TierCore::overdue` | `fences::a_fill_that_timed_out…` |
//! | a byte tier that refused quarantines [`NoQuarantine`] | `Ledger::complete` | `interleavings::a_set_confirmed_above…` |
//! | a memory tier that could not apply quarantines [`NoQuarantineInProcess`] | `Ledger::expire` | `quarantine::a_memory_tier_that_could_not…` |
//! | its port looks at the quarantine [`PortIgnoresQuarantine`] | `Engine::peek` and `Engine::read_tier`, each by itself | the same |
//! | what is lost with a mailbox or an incarnation quarantines [`LostOnRestart`] | `Mutation::drop`, `Ledger::lost` | `interleavings::a_key_removed_while…`, `leaving::a_set_dropped…` |
//! | a repair waits for what may still be applied [`LiftAtConfirmation`] | `Ledger::enter_quarantine` | `quarantine::a_repair_waits…` |
//! | …a late repair included | `Ledger::repair_overdue` | `quarantine::a_repair_that_is_late_itself…` |
//! | a repair writes the newest change wanted [`RepairsOldest`] | `Ledger::enter_quarantine`, `repaired` | `quarantine::a_repair_overtaken…` |
//! | mutations of a quarantined key go to its repair | `Ledger::arrive` | `quarantine::a_repair_waits…` |
//! | an overflow bypasses the whole tier | `TierCore::set_gate` | `quarantine::an_overflowing_quarantine…` |
//! | …until it answers and a clear is recorded | `repair::recover` | the same |
//! | …with everything up to that clear hidden [`BypassHidesNothing`] | `TierCore::lift_bypass` | the same |
//! | …and not while a call may still be applied | `repair::round`, `TierCore::is_quiet` | `quarantine::a_bypassed_tier_is_not_cleared…` |
//! | an open breaker quarantines at once | `TierCore::send_writes` | `quarantine::a_tier_with_an_open_breaker…` |
//! | race losers are quarantined [`RaceLoserShows`] | `Engine::write_race` | `interleavings::a_race_loser…` |
//! | reads join only calls not yet sent | `Queue::take_reads` | `ledger::a_read_joins_none…` |
//! | a mutation detaches the key's load [`LateJoiner`] | `Engine::begin` | `interleavings::a_load_overtaken…` |
//! | a clear detaches the loads of its scope | `Engine::clear` | `clears::who_asks_after_a_clear…` |
//! | a clear hides what is applied after it [`ClearHidesNothing`] | `Clears::hide`, `Order::admit` | `clears::a_clear_hides…` |
//! | a clear moves every fence (a saving: what would be filled is hidden by its stamp) | `Fences::begin_all` | `interleavings::a_clear_voids…`, by its count of fills |
//! | a clear that no tier took over is recorded later | `ClearOp::drop` | `clears::a_clear_that_found_no_room…` and two more |
//! | …also if it meets a recovery | `repair::recover` | `clears::a_clear_that_meets…` |
//! | inherited stamps are brought down to this process's origin [`InheritedAhead`] | `Order::admit` | `interleavings::an_entry_of_an_earlier_process…` |
//! | a tier that goes down answers what it had drained | `TierCore::refuse_queued` | `leaving::a_tier_that_goes_down…` |
//! | a shutdown makes good what it can | `repair::run` | `leaving::a_shutdown_makes_good…` |
//! | values are dropped under no lock | `TierCore::with_ledger`, `carry_out` | `destructors::a_destructor_may_ask…` |
//! | …and one that panics costs the others nothing | `Store::sweep`, `ClearWalk::step` | `destructors::destructors_that_panic…` |
//! | events are told under no lock | `Outbox`, in `TierCore::with_ledger` and `Breaker` | `telling`: `rude::a_listener_may_ask…` |

#[path = "order/clears.rs"]
mod clears;
#[path = "order/destructors.rs"]
mod destructors;
#[path = "order/fences.rs"]
mod fences;
#[path = "order/gate.rs"]
mod gate;
#[path = "order/interleavings.rs"]
mod interleavings;
#[path = "order/leaving.rs"]
mod leaving;
#[path = "order/ledger.rs"]
mod ledger;
#[path = "order/quarantine.rs"]
mod quarantine;
#[path = "order/taken_out.rs"]
mod taken_out;
#[path = "order/world.rs"]
mod world;
