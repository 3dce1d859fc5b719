//! Small servers that evict, or refuse: what is promised of values, tombstones and the marks of clears.

use std::sync::Arc;

use tierkeep::backend::Scope;
use tierkeep::{Backend, Entry, Meta, Payload, Raw, Stamp};
use tierkeep_test_servers::{RedisServer, Reply};

use crate::support::{World, builder, key, key_in, ms, open, read, until};

const VALUES: u32 = 6000;

fn user() -> Scope {
    Scope::Prefix(Arc::from("user"))
}

/// A server with room for half of the values.
fn small(policy: &str) -> (RedisServer, World) {
    let server = RedisServer::start().unwrap();
    let used: u64 = server.info("used_memory").unwrap().parse().unwrap();
    server.command(&["CONFIG", "SET", "maxmemory-policy", policy]).unwrap();
    // As many as it can compare at a time: with the usual five, luck would decide what stays.
    server.command(&["CONFIG", "SET", "maxmemory-samples", "64"]).unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", &(used + 4_000_000).to_string()]).unwrap();
    let world = World::on(&server, |builder| builder);
    (server, world)
}

fn text(id: u32) -> String {
    format!("{id:01000}")
}

/// Writes more than there is room for. Returns how many writes were confirmed.
fn fill(world: &World) -> usize {
    let life = Some(world.wall().after(ms(600_000)));
    let entry = |id| {
        let meta = Meta { stamp: world.stamp(100), expire: life, ..Meta::default() };
        (key_in("fill", id), Entry::new(Payload::Bytes(Raw::from(text(id))), meta))
    };
    let pieces = (0..VALUES / 100).map(|piece| (piece * 100..(piece + 1) * 100).map(entry).collect());
    let written = pieces.flat_map(|piece| smol::block_on(world.redis.write_entries(piece)));
    written.filter(|written| written.as_ref().is_ok()).count()
}

/// What is read is what was written, or nothing. Returns how much there is.
fn found(world: &World) -> u32 {
    let keys: Vec<_> = (0..VALUES).map(|id| key_in("fill", id)).collect();
    let values = smol::block_on(world.redis.read_many(&keys));
    let mut found = 0;
    for (id, value) in (0..VALUES).zip(values) {
        let Some(value) = value.unwrap() else { continue };
        assert_eq!(value.into_inner(), text(id).as_bytes());
        found += 1;
    }
    found
}

fn exists(world: &mut World, name: &str) -> bool {
    world.command(&["EXISTS", name]) == Reply::Integer(1)
}

#[test]
fn marks_of_clears_outlast_evictions_of_what_has_an_expiry() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let (server, mut world) = small(policy);
        smol::block_on(world.redis.clear(&user(), world.stamp(9))).unwrap();
        world.remove(&key_in("gone", 1), world.stamp(9)).unwrap();
        assert_eq!(fill(&world), VALUES as usize, "{policy}: all are taken");
        let there = found(&world);
        let evicted: u32 = server.info("evicted_keys").unwrap().parse().unwrap();
        assert!(
            evicted > 1000 && there > 500 && there + evicted >= VALUES,
            "{policy}: {evicted} and {there}"
        );
        // What arrives late is hidden, also from a process that has not seen the clear.
        world.write(&key(1), "zombie", world.stamp(1)).unwrap();
        let other = builder(&server, &world.namespace).build().unwrap();
        open(&other, &world.runtime);
        assert_eq!((world.read(&key(1)), read(&other, &key(1))), (None, None), "{policy}");
        let tombstone = world.name(&key_in("gone", 1));
        let remembered = exists(&mut world, &tombstone);
        if policy == "volatile-ttl" {
            assert!(!remembered, "what ends first goes first: tombstones before values");
        } else if remembered {
            assert!(world.write(&key_in("gone", 1), "zombie", world.stamp(1)).is_err(), "{policy}");
        }
    }
}

#[test]
fn a_clear_whose_marks_are_evicted_stays_known_and_done() {
    let (server, mut world) = small("allkeys-random");
    world.write(&key(1), "before", world.stamp(1)).unwrap();
    smol::block_on(world.redis.clear(&user(), world.stamp(9))).unwrap();
    let (runtime, redis) = (world.runtime.clone(), world.redis.clone());
    smol::block_on(until(&runtime, "the deletion", async || redis.stats().cleared == 1));
    let marks = format!("{}:!clears", world.namespace);
    let mut rounds = 0;
    while exists(&mut world, &marks) {
        rounds += 1;
        assert!(rounds < 50, "a mark is evicted like anything else");
        assert_eq!(fill(&world), VALUES as usize);
    }
    assert!(found(&world) > 500);
    // The process that cleared still knows; what the clear hid was deleted, and shows nowhere.
    let other = builder(&server, &world.namespace).build().unwrap();
    open(&other, &world.runtime);
    assert_eq!((world.read(&key(1)), read(&other, &key(1))), (None, None));
    world.write(&key(1), "zombie", world.stamp(2)).unwrap();
    assert_eq!(world.read(&key(1)), None);
    // Another clear is recorded again.
    smol::block_on(world.redis.clear(&user(), world.stamp(20))).unwrap();
    assert_eq!(read(&other, &key(1)), None);
}

#[test]
fn a_full_server_that_evicts_nothing_is_emptied_by_a_clear() {
    let (server, world) = small("noeviction");
    let written = fill(&world);
    assert!(written > 500 && written < VALUES as usize, "{written} fit");
    // So full that it stays so until much is deleted.
    let used: u64 = server.info("used_memory").unwrap().parse().unwrap();
    // As many as it can compare at a time: with the usual five, luck would decide what stays.
    server.command(&["CONFIG", "SET", "maxmemory-samples", "64"]).unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", &(used - 1_000_000).to_string()]).unwrap();
    let refused = world.write(&key_in("fill", VALUES), "more", world.stamp(101)).unwrap_err();
    assert!(refused.message().contains("OOM"), "{refused}");
    assert_eq!(found(&world) as usize, written, "what fitted is read");
    assert_eq!(
        world.remove(&key_in("fill", 1), world.stamp(101)).unwrap(),
        tierkeep::DeleteStatus::Deleted(1),
        "a removal needs no room"
    );
    // No room for the mark: told so, and deleted all the same, after which there is room.
    let fill = Scope::Prefix(Arc::from("fill"));
    let stamp = Stamp { time: world.stamp(0).time + 1000, node: 1 };
    let (runtime, redis) = (world.runtime.clone(), world.redis.clone());
    let first = smol::block_on(redis.clear(&fill, stamp)).unwrap_err();
    assert!(first.message().contains("OOM"), "{first}");
    smol::block_on(until(&runtime, "room", async || redis.clear(&fill, stamp).await.is_ok()));
    smol::block_on(until(&runtime, "the deletion", async || redis.stats().cleared + 1 >= written as u64));
    assert_eq!(found(&world), 0);
    world.write(&key(1), "after", world.stamp(2000)).unwrap();
    assert_eq!(world.read(&key(1)).as_deref(), Some("after"));
}
