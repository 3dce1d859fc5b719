//! Clears reach every process, and nobody else's keys.

use std::sync::Arc;

use tierkeep::backend::Scope;
use tierkeep::{Backend, Stamp};
use tierkeep_test_servers::Reply;

use crate::support::{World, key, key_in, read, until};

fn user() -> Scope {
    Scope::Prefix(Arc::from("user"))
}

#[test]
fn every_process_honours_a_clear_at_once() {
    let world = World::new();
    let other = world.other();
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    world.write(&key_in("users", 1), "b", world.stamp(1)).unwrap();
    assert_eq!(read(&other, &key(1)).as_deref(), Some("a"));
    smol::block_on(world.redis.clear(&user(), world.stamp(2))).unwrap();
    assert_eq!(read(&other, &key(1)), None);
    assert_eq!(read(&other, &key_in("users", 1)).as_deref(), Some("b"));
    // One that starts afterwards, too, and what arrives late.
    let late = world.other();
    world.write(&key(2), "zombie", tierkeep::Stamp { time: 1 << 16, node: 1 }).unwrap();
    assert_eq!((read(&late, &key(2)), read(&other, &key(2))), (None, None));
    world.write(&key(3), "c", world.stamp(3)).unwrap();
    assert_eq!(read(&late, &key(3)).as_deref(), Some("c"));
}

#[test]
fn what_a_clear_hides_is_deleted_and_nothing_else() {
    let mut world = World::new();
    let foreign = ["foreign".to_owned(), format!("{}x:user:v1:1", world.namespace), "user:v1:1".to_owned()];
    for name in &foreign {
        world.command(&["SET", name, "theirs"]);
    }
    let own = format!("{}:not-a-key", world.namespace);
    world.command(&["SET", &own, "nobody's"]);
    for id in 0..1500 {
        world.write(&key(id), "a", world.stamp(1)).unwrap();
    }
    world.write(&key_in("users", 1), "spared", world.stamp(1)).unwrap();
    let clear = world.stamp(2);
    world.write(&key(7), "later", world.stamp(3)).unwrap();
    smol::block_on(world.redis.clear(&user(), clear)).unwrap();
    let (runtime, redis) = (world.runtime.clone(), world.redis.clone());
    smol::block_on(until(&runtime, "the deletion", async || redis.stats().cleared == 1499));
    for id in [0, 1, 6, 8, 1499] {
        assert_eq!(world.command(&["EXISTS", &world.name(&key(id))]), Reply::Integer(0));
    }
    assert_eq!(world.read(&key(7)).as_deref(), Some("later"));
    smol::block_on(world.redis.clear(&Scope::All, world.stamp(4))).unwrap();
    smol::block_on(until(&runtime, "the deletion", async || redis.stats().cleared == 1501));
    for name in foreign.iter().chain([&own]) {
        assert_eq!(world.command(&["EXISTS", name]), Reply::Integer(1), "{name} is not ours");
    }
}

#[test]
fn compact_keys_are_cleared_by_region_too() {
    let world = World::with(|builder| builder.key_format(tierkeep::CacheKeyFormat::Compact));
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    world.write(&key_in("users", 1), "b", world.stamp(1)).unwrap();
    smol::block_on(world.redis.clear(&user(), world.stamp(2))).unwrap();
    let (runtime, redis) = (world.runtime.clone(), world.redis.clone());
    smol::block_on(until(&runtime, "the deletion", async || redis.stats().cleared == 1));
    assert_eq!(world.read(&key(1)), None);
    assert_eq!(world.read(&key_in("users", 1)).as_deref(), Some("b"));
}

#[test]
fn too_many_regions_on_record_become_one_mark() {
    let mut world = World::new();
    let other = world.other();
    let marks = format!("{}:!clears", world.namespace);
    let far = format!("{:016x}", world.stamp(1).time);
    for piece in 0..64 {
        let mut command = vec!["HSET".to_owned(), marks.clone()];
        command.extend((0..64).flat_map(|id| [format!("r{piece}-{id}"), far.clone()]));
        world.command(&command.iter().map(String::as_str).collect::<Vec<_>>());
    }
    world.write(&key(1), "a", tierkeep::Stamp { time: world.stamp(0).time - (1 << 20), node: 1 }).unwrap();
    smol::block_on(world.redis.clear(&Scope::Prefix(Arc::from("one-more")), world.stamp(2))).unwrap();
    assert_eq!(world.command(&["HLEN", &marks]), Reply::Integer(1));
    assert_eq!(read(&other, &key(1)), None, "what was on record counts for all");
}

#[test]
fn a_clear_from_a_clock_far_ahead_hides_nothing_that_is_written_later() {
    let mut world = World::new();
    let other = world.other();
    world.write(&key(1), "before", world.stamp(1)).unwrap();
    let hour = 1 << 38; // over an hour, in stamps' time
    let ahead = Stamp { time: world.stamp(1).time + 2 * hour, node: 1 };
    smol::block_on(world.redis.clear(&user(), ahead)).unwrap();
    assert_eq!((world.read(&key(1)), read(&other, &key(1))), (None, None));
    let later = Stamp { time: (world.wall().as_millis() + 1) << 16, node: 1 };
    world.write(&key(1), "after", later).unwrap();
    assert_eq!(world.read(&key(1)).as_deref(), Some("after"));
    assert_eq!(read(&other, &key(1)).as_deref(), Some("after"));
    // Nor does one that is on record already.
    let (marks, version) =
        (format!("{}:!clears", world.namespace), format!("{}:!clears:version", world.namespace));
    world.command(&["HSET", &marks, "user", &format!("{:016x}", ahead.time)]);
    world.command(&["SET", &version, "another"]);
    assert_eq!(read(&other, &key(1)).as_deref(), Some("after"));
    smol::block_on(world.redis.clear(&user(), Stamp { time: later.time + 1, node: 1 })).unwrap();
    assert_eq!(read(&other, &key(1)), None, "it was overwritten");
}

#[test]
fn a_damaged_mark_fails_no_read_and_no_clear() {
    let mut world = World::new();
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    let (marks, version) =
        (format!("{}:!clears", world.namespace), format!("{}:!clears:version", world.namespace));
    for damage in ["", "no number", "+00000000000000f", "ffffffffffffffffffff"] {
        world.command(&["HSET", &marks, "user", damage, "", damage]);
        world.command(&["SET", &version, damage]);
        assert_eq!(read(&world.other(), &key(1)).as_deref(), Some("a"), "{damage:?}");
    }
    smol::block_on(world.redis.clear(&user(), world.stamp(2))).unwrap();
    assert_eq!(read(&world.other(), &key(1)), None);
}

#[test]
fn deletion_goes_on_after_its_connection_has_fallen_silent() {
    use tierkeep::backend::{RedisBackend, RedisDriver};
    use tierkeep::{Entry, Meta, Payload, Raw};
    let proxy = tierkeep_test_servers::FaultProxy::to(crate::support::SERVER.addr()).unwrap();
    let mut world = World::new();
    let builder = RedisBackend::builder(RedisDriver::Smol).url(&proxy.url()).namespace(&world.namespace);
    let redis = builder.silence_timeout(crate::support::ms(1000)).build().unwrap();
    crate::support::open(&redis, &world.runtime);
    let entry = |id| {
        let meta = Meta { stamp: world.stamp(1), ..Meta::default() };
        (key(id), Entry::new(Payload::Bytes(Raw::from_static(b"a")), meta))
    };
    let written = smol::block_on(redis.write_entries((0..10_000).map(entry).collect()));
    assert!(written.iter().all(Result::is_ok));
    // So slow that the deletion takes seconds: it is at it when nothing comes back any more, and nobody else asks.
    proxy.set(tierkeep_test_servers::Network::Delay(crate::support::ms(200)));
    smol::block_on(redis.clear(&user(), world.stamp(2))).unwrap();
    proxy.strand();
    proxy.set(tierkeep_test_servers::Network::Healthy);
    assert!(redis.stats().cleared < 10_000, "it is at it");
    // What was deleted by the step whose answer got lost is not counted.
    let (runtime, pattern) = (world.runtime.clone(), format!("{}:user:*", world.namespace));
    smol::block_on(until(&runtime, "the deletion", async || {
        let left = world.command(&["EVAL", "return #redis.call('KEYS', ARGV[1])", "0", &pattern]);
        runtime.sleep(crate::support::ms(200)).await;
        left == Reply::Integer(0)
    }));
}

#[test]
fn deletion_goes_on_after_its_runtime_is_gone() {
    use tierkeep::backend::{OpenContext, RedisBackend, RedisDriver};
    use tierkeep_tokio::TokioRuntime;
    let mut world = World::new();
    let builder = RedisBackend::builder(RedisDriver::Tokio).url(&crate::support::SERVER.url());
    let redis = builder.namespace(&world.namespace).build().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = async || redis.open(&OpenContext::new(TokioRuntime::current().into())).await.unwrap();
    for id in 1..=2 {
        world.write(&key_in(&format!("r{id}"), id), "a", world.stamp(1)).unwrap();
    }
    // Its tasks run only inside of `block_on`: this one ends before anything is deleted.
    runtime().block_on(async {
        open().await;
        redis.clear(&Scope::Prefix(Arc::from("r1")), world.stamp(2)).await.unwrap();
    });
    assert_eq!(world.command(&["EXISTS", &world.name(&key_in("r1", 1))]), Reply::Integer(1));
    runtime().block_on(async {
        open().await;
        redis.clear(&Scope::Prefix(Arc::from("r2")), world.stamp(2)).await.unwrap();
        until(&TokioRuntime::current().into(), "the deletion", async || redis.stats().cleared == 2).await;
    });
}
