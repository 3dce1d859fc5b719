//! What only the inside shows: the expiry index holds what the map holds, and no more.

use super::*;
use crate::key::KeyPart;

fn key(i: u64) -> CacheKey {
    CacheKey::new("k", 1, [KeyPart::flag(i.to_string())])
}

fn expiring(at: u64, weight: u32) -> Entry {
    let meta = Meta {
        stamp: Stamp { time: 1, node: 0 },
        expire: Some(Timestamp::from_millis(at)),
        ..Meta::default()
    };
    Entry::new(Payload::Object(Arc::new(()), weight), meta)
}

#[test]
fn replacing_keeps_one_place_in_the_index() {
    let store = Store::new(Limit::Entries(100));
    for at in 0..10_000 {
        store.put(key(at % 3), expiring(at, 1));
    }
    assert_eq!((store.len(), store.indexed()), (3, 3));
}

#[test]
fn an_entry_without_expiry_takes_no_place() {
    let store = Store::new(Limit::Entries(100));
    store.put(key(1), expiring(7, 1));
    store.put(key(1), Entry { meta: Meta::default(), ..expiring(0, 1) });
    assert_eq!((store.len(), store.indexed()), (1, 0));
}

#[test]
fn evicted_entries_leave_the_index() {
    let store = Store::new(Limit::Entries(100));
    for i in 0..10_000 {
        store.put(key(i), expiring(i, 1));
    }
    assert!(store.len() <= 100);
    assert_eq!(store.indexed(), store.len());
}

#[test]
fn an_entry_that_was_turned_away_leaves_the_index() {
    let store = Store::new(Limit::Bytes(10_000));
    store.put(key(1), expiring(1, 100));
    store.put(key(1), expiring(2, 20_000));
    assert_eq!((store.len(), store.indexed()), (0, 0));
}

#[test]
fn removals_sweeps_and_clears_leave_nothing_behind() {
    let store = Store::new(Limit::Entries(100));
    for i in 0..90 {
        store.put(key(i), expiring(i, 1));
    }
    for i in 0..30 {
        store.remove(&key(i));
    }
    assert_eq!(store.indexed(), 60);
    assert_eq!(store.sweep(Timestamp::from_millis(59), 1_000), 30);
    assert_eq!(store.indexed(), 30);
    while store.clear(Scope::All, Stamp { time: 1, node: 0 }).step(7) {}
    assert_eq!((store.len(), store.indexed()), (0, 0));
}

#[test]
fn the_index_agrees_with_the_map_after_threads_have_raced() {
    let store = Store::new(Limit::Entries(64));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..20_000_u64 {
                    let mixed = (i * 4 + thread).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                    let key = key(mixed % 100);
                    match mixed % 16 {
                        0..=2 => {
                            store.remove(&key);
                        }
                        3 => {
                            store.sweep(Timestamp::from_millis(i), 4);
                        }
                        _ => store.put(key, expiring(i + mixed % 50, 1)),
                    }
                }
            });
        }
    });
    assert_eq!(store.indexed(), store.len());
    store.sweep(Timestamp::MAX, 1_000);
    assert_eq!((store.len(), store.indexed()), (0, 0));
}

#[test]
fn a_sweep_never_takes_an_entry_renewed_by_another_thread() {
    // Many short rounds, so that puts and sweeps meet on the same keys.
    for round in 0..300 {
        let store = Store::new(Limit::Entries(100));
        for i in 0..50 {
            store.put(key(i), expiring(1, 1));
        }
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                (0..50).for_each(|i| store.put(key(i), expiring(1_000, 1)));
            });
            start.wait();
            store.sweep(Timestamp::from_millis(500), 100);
        });
        assert_eq!((store.len(), store.indexed()), (50, 50), "round {round}");
    }
}

#[test]
fn shards_are_few_while_the_tier_is_small() {
    for (limit, shards) in [
        (Limit::Entries(1), 1),
        (Limit::Entries(255), 1),
        (Limit::Entries(256), 2),
        (Limit::Entries(16_384), 128),
        (Limit::Entries(1_000_000), 256),
        (Limit::Bytes(1), 1),
        (Limit::Bytes(15 << 20), 1),
        (Limit::Bytes(256 << 20), 32),
        (Limit::Bytes(u64::MAX), 256),
    ] {
        assert_eq!(Store::new(limit).shards(), shards, "{limit:?}");
    }
}

#[test]
fn an_entry_comes_back_with_the_stamps_it_was_put_with() {
    let times =
        [None, Some(0), Some(1), Some(7_000), Some(u64::MAX - 1)].map(|at| at.map(Timestamp::from_millis));
    let store = Store::new(Limit::Entries(100));
    // A value made with its stamp, some time before, before what the difference can say, and after.
    for (wall, created) in [(9_000, 9_000), (9_000, 2_000), (1 << 40, 5), (5, 1 << 40)] {
        for pick in 0..times.len().pow(3) {
            let [stale, expire, retain] = [pick, pick / 5, pick / 25].map(|pick| times[pick % 5]);
            let stamp = Stamp { time: (wall << 16) | 3, node: u32::MAX };
            let meta = Meta { stamp, created: Timestamp::from_millis(created), stale, expire, retain };
            for payload in [Payload::Object(Arc::new(7_u8), 12), Payload::Bytes(Raw::from_static(b"frame"))] {
                store.put(key(1), Entry::new(payload.clone(), meta));
                let entry = store.get(&key(1).probe()).unwrap();
                assert_eq!((entry.meta, entry.payload.weight()), (meta, payload.weight()));
                match entry.payload {
                    Payload::Object(object, _) => assert_eq!(object.downcast_ref(), Some(&7_u8)),
                    Payload::Bytes(raw) => assert_eq!(&*raw, b"frame"),
                }
                assert_eq!(store.indexed(), usize::from(meta.kept_until().is_some()));
            }
        }
    }
}

#[test]
fn what_is_retained_is_swept_when_its_retention_ends() {
    let store = Store::new(Limit::Entries(100));
    let meta = Meta { retain: Some(Timestamp::from_millis(20)), ..expiring(10, 1).meta };
    store.put(key(1), Entry { meta, ..expiring(10, 1) });
    assert_eq!(store.sweep(Timestamp::from_millis(19), 10), 0);
    assert_eq!(store.sweep(Timestamp::from_millis(20), 10), 1);
    assert_eq!((store.len(), store.indexed()), (0, 0));
}
