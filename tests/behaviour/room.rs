//! Who waits for room in a full queue: first come, first served, and nobody is forgotten.

use std::time::Duration;

use tierkeep::runtime::{Runtime, TaskHandle};
use tierkeep::write_behind::{Overload, Retry};
use tierkeep::{ErrorKind, Region};
use tierkeep_sim::{Fault, Op};

use super::world::{NEVER, World};
use super::write_behind::{Bench, patient};

/// A queue of 10,000 bytes, 9,000 of them taken by the first key, before a store that is away; others wait for room.
async fn line(world: &World, longest: Duration) -> (Bench, Region<Vec<u8>, u64>) {
    let retry = Retry::default().attempts(u32::MAX);
    let behind = patient().retry(retry).bytes(10_000).overload(Overload::Block(longest));
    let bench = Bench::new(world.clone(), behind).await;
    bench.plan.rate_on(Op::Write, Fault::Error, 1.0);
    let blobs: Region<Vec<u8>, u64> = bench.cache.region("blob").no_expiry().build().unwrap();
    blobs.set(&1, vec![1; 9_000]).await.unwrap();
    (bench, blobs)
}

/// Waits for room for so much, behind those who wait already.
async fn join(
    bench: &Bench,
    blobs: &Region<Vec<u8>, u64>,
    key: u64,
    len: usize,
) -> TaskHandle<tierkeep::Result<()>> {
    let (blobs, waiting) = (blobs.clone(), bench.queue().waiting);
    let set = bench.world.runtime.spawn(async move { blobs.set(&key, vec![1; len]).await });
    bench.world.until("it waits", || bench.queue().waiting == waiting + 1).await;
    set
}

pub(crate) async fn who_waits_for_room_is_told_of_a_lighter_value(world: World) {
    let (bench, blobs) = line(&world, NEVER).await;
    let waits = join(&bench, &blobs, 2, 3_000).await;
    blobs.set(&1, vec![1; 5_000]).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!((bench.queue().queued, bench.queue().waiting), (2, 0));
}

pub(crate) async fn who_waits_for_room_is_passed_by_nobody(world: World) {
    let (bench, blobs) = line(&world, NEVER).await;
    let large = join(&bench, &blobs, 2, 6_000).await;
    let small = join(&bench, &blobs, 3, 100).await;
    // Room for the second, and for one who comes now, but not for the first.
    blobs.set(&1, vec![1; 7_000]).await.unwrap();
    let late = join(&bench, &blobs, 4, 100).await;
    bench.world.settle().await;
    assert_eq!((bench.queue().queued, bench.queue().waiting), (1, 3));
    // For all of them: whoever is served hands the turn on.
    blobs.set(&1, vec![1; 1_000]).await.unwrap();
    for set in [large, small, late] {
        set.await.unwrap().unwrap();
    }
    assert_eq!((bench.queue().queued, bench.queue().waiting), (4, 0));
}

pub(crate) async fn who_leaves_the_line_for_room_hands_the_turn_on(world: World) {
    let (bench, blobs) = line(&world, NEVER).await;
    let large = join(&bench, &blobs, 2, 6_000).await;
    let small = join(&bench, &blobs, 3, 100).await;
    blobs.set(&1, vec![1; 7_000]).await.unwrap();
    bench.world.settle().await;
    assert_eq!(bench.queue().waiting, 2);
    large.abort();
    small.await.unwrap().unwrap();
    assert_eq!((bench.queue().queued, bench.queue().waiting), (2, 0));
}

pub(crate) async fn who_is_not_polled_holds_the_line_up_no_longer_than_it_would_wait(world: World) {
    let Some(sim) = world.sim() else { return };
    let longest = Duration::from_millis(50);
    let (bench, blobs) = line(&world, longest).await;
    let began = sim.now();
    let mut large = Box::pin(blobs.set(&2, vec![1; 6_000]));
    while bench.queue().waiting == 0 {
        assert!(futures_util::poll!(&mut large).is_pending());
        world.runtime.sleep(Duration::from_micros(1)).await;
    }
    world.runtime.sleep(longest / 2).await;
    let small = join(&bench, &blobs, 3, 100).await;
    blobs.set(&1, vec![1; 7_000]).await.unwrap();
    small.await.unwrap().unwrap();
    let took = sim.now().since(began);
    assert!((longest..longest + Duration::from_millis(2)).contains(&took), "{took:?}");
    assert_eq!(large.await.unwrap_err().kind(), ErrorKind::Overloaded);
}

pub(crate) async fn who_waits_with_a_place_outlasts_one_who_is_not_polled(world: World) {
    if world.sim().is_none() {
        return;
    }
    let longest = Duration::from_millis(50);
    let (bench, blobs) = line(&world, longest).await;
    blobs.set(&5, vec![1; 500]).await.unwrap();
    let mut first = Box::pin(blobs.set(&2, vec![1; 6_000]));
    while bench.queue().waiting == 0 {
        assert!(futures_util::poll!(&mut first).is_pending());
        world.runtime.sleep(Duration::from_micros(1)).await;
    }
    world.runtime.sleep(longest / 2).await;
    // It has a place, and grows beyond what there is room for; the first one's patience ends meanwhile.
    let grows = join(&bench, &blobs, 1, 9_800).await;
    assert_eq!(grows.await.unwrap().unwrap_err().kind(), ErrorKind::Overloaded);
    assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Overloaded);
}
