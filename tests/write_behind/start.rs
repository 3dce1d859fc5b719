//! Starting again after a crash, with the store away.

use std::time::Duration;

use tierkeep::write_behind::{JournalSync, WriteBehind};
use tierkeep_test_servers::RedisServer;

use crate::support::{cache, on_tokio, redis, region};

#[test]
fn a_store_that_is_down_does_not_block_the_start_and_pending_values_show_at_once() {
    let server = RedisServer::start().unwrap();
    let url = server.url();
    server.kill().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let behind = || WriteBehind::journal(directory.path(), JournalSync::Always);
    on_tokio(async {
        let cache = cache(redis(&url, "start"), behind()).await;
        let numbers = region(&cache);
        for id in 0..100 {
            numbers.set(&id, id).await.unwrap();
        }
        numbers.set(&7, 77).await.unwrap();
        numbers.remove(&8).await.unwrap();
        let report = cache.shutdown(Duration::from_secs(1)).await;
        let left: u64 = report
            .tiers
            .iter()
            .filter_map(|tier| tier.write_behind)
            .map(|behind| behind.left_in_journal)
            .sum();
        assert_eq!(left, 100, "{report:?}");
    });
    // Still down.
    on_tokio(async {
        let cache = cache(redis(&url, "start"), behind()).await;
        let numbers = region(&cache);
        assert_eq!(numbers.get(&7).await.map(|hit| *hit), Some(77));
        assert_eq!(numbers.get(&8).await.map(|hit| *hit), None);
        assert_eq!(numbers.get(&99).await.map(|hit| *hit), Some(99));
        // New writes coalesce over what was recovered.
        numbers.set(&7, 777).await.unwrap();
        assert_eq!(cache.inspect().tiers[1].write_behind.as_ref().unwrap().queued, 100);
        server.restart().unwrap();
        cache.flush(Duration::from_secs(300)).await.unwrap();
        assert!(cache.shutdown(Duration::from_secs(300)).await.clean);
    });
    // It is in the store, without the journal.
    on_tokio(async {
        let cache = cache(redis(&url, "start"), WriteBehind::memory()).await;
        let numbers = region(&cache);
        assert_eq!(numbers.get(&7).await.map(|hit| *hit), Some(777));
        assert_eq!(numbers.get(&8).await.map(|hit| *hit), None);
        assert_eq!(numbers.get(&99).await.map(|hit| *hit), Some(99));
        cache.shutdown(Duration::from_secs(10)).await;
    });
}
