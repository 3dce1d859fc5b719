//! How long the store keeps what it is given.

use tierkeep::{DeleteStatus, Meta};
use tierkeep_test_servers::Reply;

use crate::support::{World, key, ms};

#[test]
fn lives_are_exact_to_the_millisecond() {
    for compare in [true, false] {
        let mut world = World::with(|builder| builder.compare_stamps(compare));
        for (id, life) in [(1, 999), (2, 1000), (3, 1001), (4, 30 * 24 * 3600 * 1000)] {
            let before = world.wall();
            let until = before.after(ms(life));
            let meta = Meta { stamp: world.stamp(0), expire: Some(until), ..Meta::default() };
            world.write_meta(&key(id), "a", meta).unwrap();
            let took = world.wall().since(before);
            let Reply::Integer(ends) = world.command(&["PEXPIRETIME", &world.name(&key(id))]) else {
                panic!("no expiry time");
            };
            // The store counts from when the command arrives.
            let late = ms(u64::try_from(ends).unwrap() - until.as_millis());
            assert!(late <= took + ms(1), "a life of {life} ms ends {late:?} late, having taken {took:?}");
        }
        world.write(&key(5), "a", world.stamp(0)).unwrap();
        assert_eq!(world.command(&["PTTL", &world.name(&key(5))]), Reply::Integer(-1));
    }
}

#[test]
fn a_life_of_one_millisecond_is_one() {
    let mut world = World::new();
    // Written again until it arrives before it ends: then it has an expiry, of a millisecond at most.
    loop {
        let meta = Meta { stamp: world.stamp(0), expire: Some(world.wall().after(ms(1))), ..Meta::default() };
        world.write_meta(&key(1), "a", meta).unwrap();
        match world.command(&["PTTL", &world.name(&key(1))]) {
            Reply::Integer(left @ 0..=1) => break assert!(left >= 0),
            // Gone already, or a tombstone for what was over before it was sent.
            Reply::Integer(other) => assert_ne!(other, -1, "it would have stayed for ever"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn retained_bytes_outlive_their_expiry() {
    let mut world = World::new();
    let now = world.wall();
    let (expire, retain) = (Some(now.after(ms(1))), Some(now.after(ms(100_000))));
    world
        .write_meta(&key(1), "a", Meta { stamp: world.stamp(0), expire, retain, ..Meta::default() })
        .unwrap();
    let Reply::Integer(left) = world.command(&["PTTL", &world.name(&key(1))]) else { panic!("no life") };
    assert!((60_000..=100_000).contains(&left), "{left}");
}

#[test]
fn what_is_dead_already_is_not_written_and_takes_what_was_there() {
    for compare in [true, false] {
        let world = World::with(|builder| builder.compare_stamps(compare));
        world.write(&key(1), "alive", world.stamp(1)).unwrap();
        let dead = Meta { stamp: world.stamp(2), expire: Some(world.wall()), ..Meta::default() };
        world.write_meta(&key(1), "dead", dead).unwrap();
        assert_eq!(world.read(&key(1)), None);
        assert_eq!(world.remove(&key(1), world.stamp(3)).unwrap(), DeleteStatus::Missing);
    }
}

/// What a cache sends together is stored by fewer commands, whose lives are told apart from the values.
#[test]
fn lives_in_a_batch_are_exact_to_the_millisecond() {
    const LIVES: [u64; 6] = [999, 1000, 59_999, 60_001, 61_000, 30 * 24 * 3600 * 1000];
    let server = tierkeep_test_servers::RedisServer::start().unwrap();
    let mut world = World::on(&server, |builder| builder);
    let (before, after) = smol::block_on(async {
        let tier = tierkeep::Tier::new(world.redis.clone()).write_deadline(ms(5000));
        let cache = tierkeep::Cache::builder(world.runtime.clone()).tier(tier).build().await.unwrap();
        let dated: tierkeep::Region<u64, u32> = cache.region("dated").no_expiry().build().unwrap();
        let endless: tierkeep::Region<u64, u32> = cache.region("endless").no_expiry().build().unwrap();
        let ids: Vec<u32> = (0..100).collect();
        let before = world.wall();
        let dated = (0..600_u32).map(|id| {
            let life = ms(LIVES[id as usize % LIVES.len()]);
            let dated = &dated;
            async move { dated.set_for(&id, u64::from(id), life).await }
        });
        let endless = endless.set_many(ids.iter().map(|id| (id, u64::from(*id))));
        let (dated, endless) =
            futures_util::future::join(futures_util::future::join_all(dated), endless).await;
        assert!(dated.into_iter().chain(endless).all(|set| set.is_ok()));
        (before, world.wall())
    });
    assert!(server.info("cmdstat_mset").is_ok(), "some were stored together");
    for id in (0..600_u32).rev() {
        let life = LIVES[id as usize % LIVES.len()];
        let name = format!("{}:dated:v1:{id}", world.namespace);
        let Reply::Integer(ends) = world.command(&["PEXPIRETIME", &name]) else { panic!("no expiry time") };
        if ends == -2 {
            assert!(world.wall() >= before.after(ms(life)), "{life} ms: gone too soon");
            continue;
        }
        let written = u64::try_from(ends).unwrap() - life;
        let range = before.as_millis()..=after.as_millis() + 1;
        assert!(range.contains(&written), "{life} ms: ends as if written at {written}, of {range:?}");
    }
    for id in 0..100 {
        let name = format!("{}:endless:v1:{id}", world.namespace);
        assert_eq!(world.command(&["PTTL", &name]), Reply::Integer(-1));
    }
}
