//! A store that compares: older changes are refused, and what was refused is not shown either.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::{Plant, Stamp, plant};
use tierkeep_sim::{Fault, MapBackend, Op, SimRuntime};

use crate::world::{Node, ms, node, under_seeds};

/// Two processes, one of which wrote while its clock was 50 s ahead: the other's first change is older than that.
async fn overtaken(sim: &SimRuntime) -> (Node, Node, MapBackend) {
    let store = MapBackend::comparing();
    let (ahead, behind) = (node(sim, &store).await, node(sim, &store).await);
    sim.jump_wall(50_000);
    ahead.numbers.set(&1, 10).await.unwrap();
    sim.jump_wall(-50_000);
    (ahead, behind, store)
}

async fn a_refused_set_is_dropped(sim: SimRuntime) {
    let (_ahead, behind, store) = overtaken(&sim).await;
    let newest = store.stamp(&behind.numbers.key(&1));
    behind.numbers.set(&1, 20).await.expect("settled, as superseded");
    assert_eq!(store.stamp(&behind.numbers.key(&1)), newest, "the store kept the newer one");
    assert_eq!(behind.at("memory", 1).await, None, "what was refused below is not shown above");
    assert_eq!(behind.get(1).await, Some(10));
    let tier = behind.tier("map");
    assert_eq!((tier.writes.outdated, tier.writes.unconfirmed, tier.quarantined), (1, 0, 0));
    assert!(tier.last_failure.is_none(), "it is no fault of the store's: {:?}", tier.last_failure);
    // It has heard of the newer stamp, so that what it writes next is newer still.
    behind.numbers.set(&1, 30).await.unwrap();
    assert_eq!(behind.get(1).await, Some(30));
    assert_eq!(behind.at("map", 1).await, Some(30));
}

#[test]
fn a_set_that_the_store_refuses_as_older_is_settled_and_shown_nowhere() {
    under_seeds(a_refused_set_is_dropped);
}

#[test]
fn with_the_rule_taken_out_it_is_shown() {
    plant(Some(Plant::OutdatedStays));
    let shown = std::panic::catch_unwind(|| under_seeds(a_refused_set_is_dropped));
    plant(None);
    assert!(shown.is_err(), "the planted bug was not noticed");
}

#[test]
fn a_remove_that_the_store_refuses_leaves_the_newer_entry() {
    under_seeds(|sim| async move {
        let (_ahead, behind, _) = overtaken(&sim).await;
        behind.numbers.remove(&1).await.unwrap();
        assert_eq!(behind.get(1).await, Some(10));
    });
}

#[test]
fn a_loaded_value_that_the_store_refuses_is_not_kept() {
    under_seeds(|sim| async move {
        let (ahead, behind, _) = overtaken(&sim).await;
        sim.jump_wall(50_000);
        ahead.numbers.remove(&1).await.unwrap();
        sim.jump_wall(-50_000);
        // Loaded from an origin, and older than the removal.
        let load = async || Ok::<_, std::io::Error>(20);
        assert_eq!(*behind.numbers.get_or_load(&1, load).await.unwrap(), 20);
        RuntimeHandle::new(sim.clone()).sleep(ms(50)).await;
        assert_eq!(behind.get(1).await, None, "the removal is newer");
        assert_eq!(behind.tier("map").writes.outdated, 1);
    });
}

#[test]
fn a_quarantine_ends_with_its_repair_while_the_lost_call_is_still_out() {
    under_seeds(|sim| async move {
        let store = MapBackend::comparing();
        let node = node(&sim, &store).await;
        let runtime = RuntimeHandle::new(sim.clone());
        node.plan.late(ms(20_000)..=ms(20_000));
        node.plan.next_on(Op::Write, Fault::Zombie, 1);
        assert!(node.numbers.set(&1, 10).await.is_err(), "the store did not confirm it");
        runtime.sleep(ms(500)).await;
        assert_eq!(node.tier("map").quarantined, 0, "not for the residual time of the call that was lost");
        assert_eq!(node.at("map", 1).await, Some(10));
        node.numbers.set(&1, 20).await.unwrap();
        // The lost call is applied now: the store keeps what is newer.
        runtime.sleep(ms(60_000)).await;
        assert_eq!(node.at("map", 1).await, Some(20));
    });
}

#[test]
fn a_repair_that_finds_something_newer_leaves_it() {
    under_seeds(|sim| async move {
        let store = MapBackend::comparing();
        let (one, two) = (node(&sim, &store).await, node(&sim, &store).await);
        let runtime = RuntimeHandle::new(sim.clone());
        one.plan.next_on(Op::Write, Fault::Error, 3); // the set and two repairs
        one.numbers.set(&1, 10).await.unwrap_err();
        runtime.sleep(ms(2)).await;
        two.numbers.set(&1, 20).await.unwrap();
        one.rest(&sim).await;
        assert_eq!(one.at("map", 1).await, Some(20));
        assert_eq!(one.get(1).await, Some(20), "its own, older one is not shown above either");
    });
}

#[test]
fn a_key_under_a_stamp_remembers_its_removal() {
    under_seeds(|sim| async move {
        let store = MapBackend::comparing();
        let node = node(&sim, &store).await;
        node.numbers.set(&1, 10).await.unwrap();
        let written = store.stamp(&node.numbers.key(&1)).unwrap();
        node.numbers.remove(&1).await.unwrap();
        let removed = store.stamp(&node.numbers.key(&1)).unwrap();
        assert!(removed > written && written > Stamp::ZERO);
    });
}

async fn reads_that_cross(sim: SimRuntime) {
    let store = MapBackend::comparing();
    let (writer, reader) = (node(&sim, &store).await, Arc::new(node(&sim, &store).await));
    let runtime = RuntimeHandle::new(sim.clone());
    writer.numbers.set(&1, 10).await.unwrap();
    reader.held_back.store(50, Ordering::Relaxed);
    let late = Arc::clone(&reader);
    let late = runtime.spawn(async move { late.get(1).await });
    runtime.sleep(ms(10)).await;
    writer.numbers.set(&1, 20).await.unwrap();
    assert_eq!(reader.get(1).await, Some(20));
    assert_eq!(late.await.unwrap(), Some(10), "it had read before");
    runtime.sleep(ms(10)).await;
    assert_eq!(reader.get(1).await, Some(20), "what it brought up does not replace what is newer");
}

#[test]
fn a_read_that_was_overtaken_does_not_bring_back_what_another_process_replaced() {
    under_seeds(reads_that_cross);
    plant(Some(Plant::OlderFill));
    let noticed = std::panic::catch_unwind(|| under_seeds(reads_that_cross));
    plant(None);
    assert!(noticed.is_err(), "the planted bug was not noticed");
}
