//! Processes that share a Redis share the dictionaries that one of them has trained.

use std::time::Duration;

use tierkeep::codec::{DictionaryOptions, ZstdCompressor};
use tierkeep::{Cache, Region, Tier};
use tierkeep_smol::SmolRuntime;

use crate::support::{SERVER, builder, namespace};

const LONG: Duration = Duration::from_secs(60);

/// What a process of its own has: a connection, a cache, a region.
async fn process(namespace: &str) -> (Cache, Region<String, u32>) {
    let redis = builder(&SERVER, namespace).compressor(ZstdCompressor::default()).build().unwrap();
    let tier = Tier::new(redis).read_deadline(LONG).write_deadline(LONG);
    let cache = Cache::builder(SmolRuntime::new()).tier(tier).build().await.unwrap();
    let options = DictionaryOptions::default().size(2 << 10).samples(48 << 10);
    let region = cache.region("user").ttl(LONG * 60).dictionary(options).build().unwrap();
    (cache, region)
}

fn user(n: u32) -> String {
    format!(r#"{{"id":{n},"city":"Reykjavik","roles":["reader","writer"],"active":true,"plan":"standard"}}"#)
}

fn id(region: &Region<String, u32>) -> Option<u32> {
    region.dictionary()?.current().map(|dictionary| dictionary.id())
}

#[test]
fn a_dictionary_of_one_process_is_read_and_used_by_the_others() {
    smol::block_on(async {
        let namespace = namespace();
        let (first, trained) = process(&namespace).await;
        for n in 0.. {
            trained.set(&(n % 1_000), user(n % 1_000)).await.unwrap();
            if id(&trained).is_some() {
                break;
            }
            assert!(n < 100_000, "no dictionary came of it: {:?}", trained.dictionary());
        }
        let known = id(&trained);
        trained.set(&7, user(7)).await.unwrap();

        let (second, other) = process(&namespace).await;
        assert_eq!(*other.get(&7).await.unwrap().into_arc(), user(7));
        assert_eq!(id(&other), known, "it is taken over");
        other.set(&8, user(9_999)).await.unwrap();
        assert_eq!(*trained.get(&8).await.unwrap().into_arc(), user(9_999));
        let stored = |cache: &Cache| cache.inspect().codec.bytes_out;
        let before = stored(&second);
        other.set(&9, user(9)).await.unwrap();
        assert!((stored(&second) - before) * 2 < user(9).len() as u64);

        // A region that trains none reads all the same, and in batches.
        let (third, _) = process(&namespace).await;
        let plain: Region<String, u32> = third.region("user").no_expiry().build().unwrap();
        let found = plain.get_many(&[7, 8, 9]).await;
        let found: Vec<_> = found.into_iter().map(|hit| hit.unwrap().to_string()).collect();
        assert_eq!(found, [user(7), user(9_999), user(9)]);
        for cache in [first, second, third] {
            let codec = cache.inspect().codec;
            assert_eq!((codec.dictionaries_unknown, codec.decode_failures), (0, 0));
            assert!(cache.shutdown(LONG).await.clean);
        }
    });
}
