//! The store applies what is newer, whoever sent it and however late it arrives.

use tierkeep::{DeleteStatus, ErrorKind, Meta, Stamp};
use tierkeep_test_servers::Reply;

use crate::support::{World, key, ms};

#[test]
fn an_older_write_is_refused_and_told_what_is_newer() {
    let world = World::new();
    let (old, new) = (world.stamp(1), world.stamp(2));
    world.write(&key(1), "new", new).unwrap();
    let refused = world.write(&key(1), "old", old).unwrap_err();
    assert_eq!((refused.kind(), refused.superseded_by()), (ErrorKind::Superseded, Some(new)));
    let refused = world.remove(&key(1), old).unwrap_err();
    assert_eq!((refused.kind(), refused.superseded_by()), (ErrorKind::Superseded, Some(new)));
    assert_eq!(world.read(&key(1)).as_deref(), Some("new"));
    assert_eq!(world.redis.stats().newer_found, 2);
}

#[test]
fn every_part_of_a_stamp_counts() {
    let world = World::new();
    let at = |time, node| Stamp { time, node };
    // All in the past: a stamp far ahead of the store's clock is not believed.
    let ascending = [
        at(0x0001, 2),
        at(0x0001_0000, 1),
        at(0xFFFF_FFFF, 7),
        at(0x0001_0000_0000, 0),
        at(0x0001_0000_0000, 0x7FFF_FFFF),
        at(0x0001_0000_0000, 0xFFFF_FFFF),
        at(0x00A0_0000_0000_0000, 1),
        at(0x0100_0000_0000_0001, 1),
    ];
    for (id, pair) in ascending.windows(2).enumerate() {
        let key = key(u32::try_from(id).unwrap());
        world.write(&key, "older", pair[0]).unwrap();
        world.write(&key, "newer", pair[1]).unwrap();
        assert!(world.write(&key, "older", pair[0]).is_err(), "{pair:?}");
        assert_eq!(world.read(&key).as_deref(), Some("newer"));
    }
}

#[test]
fn the_same_mutation_sent_again_is_applied() {
    let world = World::new();
    let stamp = world.stamp(1);
    world.write(&key(1), "a", stamp).unwrap();
    world.write(&key(1), "a", stamp).unwrap();
    assert_eq!(world.remove(&key(1), stamp).unwrap(), DeleteStatus::Deleted(1));
    assert_eq!(world.remove(&key(1), stamp).unwrap(), DeleteStatus::Missing);
}

#[test]
fn a_removal_is_remembered() {
    let mut world = World::new();
    assert_eq!(world.remove(&key(1), world.stamp(5)).unwrap(), DeleteStatus::Missing);
    assert!(world.write(&key(1), "zombie", world.stamp(0)).is_err());
    assert_eq!(world.read(&key(1)), None);
    let Reply::Integer(life) = world.command(&["PTTL", &world.name(&key(1))]) else { panic!("no life") };
    assert!((50_000..=60_000).contains(&life), "a tombstone of {life} ms");
    world.write(&key(1), "next", world.stamp(6)).unwrap();
    assert_eq!(world.read(&key(1)).as_deref(), Some("next"));
}

#[test]
fn what_expired_early_is_remembered() {
    let mut world = World::new();
    let zombie = world.stamp(0);
    let meta = Meta { stamp: world.stamp(9), expire: Some(world.wall().after(ms(40))), ..Meta::default() };
    world.write_meta(&key(1), "short", meta).unwrap();
    while world.command(&["EXISTS", &world.name(&key(1))]) == Reply::Integer(1) {}
    assert!(world.write(&key(1), "zombie", zombie).is_err());
    assert_eq!(world.read(&key(1)), None);
    world.write(&key(1), "next", world.stamp(10)).unwrap();
}

#[test]
fn a_removal_without_a_stamp_spares_what_has_one() {
    let mut world = World::new();
    world.write(&key(1), "stamped", world.stamp(1)).unwrap();
    assert_eq!(world.remove(&key(1), Stamp::ZERO).unwrap_err().kind(), ErrorKind::Superseded);
    world.command(&["SET", &world.name(&key(2)), "foreign"]);
    assert_eq!(world.remove(&key(2), Stamp::ZERO).unwrap(), DeleteStatus::Deleted(1));
    assert_eq!(world.remove(&key(3), Stamp::ZERO).unwrap(), DeleteStatus::Missing);
    assert_eq!(world.command(&["EXISTS", &world.name(&key(3))]), Reply::Integer(0), "no tombstone");
}

#[test]
fn a_script_that_the_server_has_forgotten_is_sent_again() {
    let mut world = World::new();
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    world.command(&["SCRIPT", "FLUSH"]);
    world.write(&key(1), "b", world.stamp(2)).unwrap();
    assert_eq!(world.read(&key(1)).as_deref(), Some("b"));
}

#[test]
fn another_type_of_value_is_replaced() {
    let mut world = World::new();
    world.command(&["RPUSH", &world.name(&key(1)), "not a string"]);
    assert_eq!(world.read(&key(1)), None);
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    assert_eq!(world.read(&key(1)).as_deref(), Some("a"));
    world.command(&["RPUSH", &world.name(&key(2)), "not a string"]);
    assert_eq!(world.remove(&key(2), world.stamp(2)).unwrap(), DeleteStatus::Deleted(1));
    assert_eq!(world.read(&key(2)), None);
}

#[test]
fn without_room_a_write_fails_and_a_removal_does_not() {
    let server = tierkeep_test_servers::RedisServer::start().unwrap();
    let mut world = World::on(&server, |builder| builder);
    world.write(&key(1), "a", world.stamp(1)).unwrap();
    world.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = world.write(&key(2), "b", world.stamp(2)).unwrap_err();
    assert!(full.message().contains("OOM"), "{full}");
    assert_eq!(world.remove(&key(1), world.stamp(3)).unwrap(), DeleteStatus::Deleted(1));
    assert_eq!(world.read(&key(1)), None);
}
