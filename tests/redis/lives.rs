//! How long the store keeps what it is given.

use tierkeep::Meta;
use tierkeep_test_servers::Reply;

use crate::support::{World, key, ms};

#[test]
fn lives_are_exact_to_the_millisecond() {
    let mut world = World::new();
    for (id, life) in [(1, 999), (2, 1000), (3, 1001), (4, 30 * 24 * 3600 * 1000)] {
        let before = world.wall();
        let until = before.after(ms(life));
        let meta = Meta { stamp: world.stamp(0), expire: Some(until), ..Meta::default() };
        world.write(&key(id), "a", meta).unwrap();
        let took = world.wall().since(before);
        let Reply::Integer(ends) = world.command(&["PEXPIRETIME", &world.name(&key(id))]) else {
            panic!("no expiry time");
        };
        // The store counts from when the command arrives.
        let late = ms(u64::try_from(ends).unwrap() - until.as_millis());
        assert!(
            late <= took + ms(1),
            "a life of {life} ms ends {late:?} late, having taken {took:?} to write"
        );
    }
    world.write(&key(5), "a", Meta { stamp: world.stamp(0), ..Meta::default() }).unwrap();
    assert_eq!(world.command(&["PTTL", &world.name(&key(5))]), Reply::Integer(-1));
}
