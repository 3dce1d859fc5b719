//! Dead letters in files and channels, and back into the cache.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use tierkeep::runtime::RuntimeHandle;
use tierkeep::write_behind::{
    ChannelLetters, DeadLetter, DeadLetterSink, DeadReason, FileLetters, JournalSync, Overload, Redriven,
    WriteBehind,
};
use tierkeep::{BreakerOptions, Cache, ErrorKind, MemoryBackend, Region, Tier, WriteBehindInspection};
use tierkeep_sim::{Fault, FaultPlan, Faulty, MapBackend};
use tierkeep_smol::SmolRuntime;

const NEVER: Duration = Duration::from_secs(3600);

fn runtime() -> RuntimeHandle {
    RuntimeHandle::new(SmolRuntime::new())
}

/// Memory over a store that is away and hardly queues anything: each further key makes a letter of the oldest.
async fn dropping(store: &MapBackend, sink: impl DeadLetterSink) -> (Cache, Region<u64, u64>, FaultPlan) {
    let plan = FaultPlan::new(&runtime());
    plan.rate(Fault::Error, 1.0);
    let behind =
        WriteBehind::memory().entries(1).max_delay(NEVER).overload(Overload::DropOldest).dead_letters(sink);
    let tier = Tier::new(Faulty::new(store.clone(), &runtime(), &plan))
        .label("store")
        .breaker(BreakerOptions::disabled())
        .write_deadline(NEVER)
        .write_behind(behind);
    let cache =
        Cache::builder(runtime()).tier(MemoryBackend::entries(1_000)).tier(tier).build().await.unwrap();
    let numbers = cache.region("number").no_expiry().build().unwrap();
    (cache, numbers, plan)
}

fn queue(cache: &Cache) -> WriteBehindInspection {
    cache.inspect().tier("store").unwrap().write_behind.clone().unwrap()
}

async fn delivered(cache: &Cache, count: u64) {
    while queue(cache).letters_delivered < count {
        smol::future::yield_now().await;
    }
}

async fn read(path: &Path) -> Vec<tierkeep::Result<DeadLetter>> {
    let mut reader = FileLetters::read(path, runtime());
    let mut letters = Vec::new();
    while let Some(letter) = reader.next().await {
        letters.push(letter);
    }
    letters
}

#[test]
fn letters_in_a_file_are_read_back_and_redriven() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters.jsonl");
    smol::block_on(async {
        let store = MapBackend::new();
        let (cache, numbers, plan) = dropping(&store, FileLetters::new(&path, runtime())).await;
        for id in 0..300 {
            numbers.set(&id, id * 10).await.unwrap();
        }
        numbers.remove(&300).await.unwrap();
        numbers.set(&301, 0).await.unwrap();
        delivered(&cache, 301).await;
        let letters = read(&path).await;
        assert_eq!(letters.len(), 301);
        assert!(store.is_empty());
        plan.heal();
        cache.shutdown(Duration::from_secs(10)).await;

        let behind = WriteBehind::memory();
        let tier = Tier::new(store.clone()).label("store").write_behind(behind);
        let cache =
            Cache::builder(runtime()).tier(MemoryBackend::entries(10)).tier(tier).build().await.unwrap();
        let numbers: Region<u64, u64> = cache.region("number").no_expiry().build().unwrap();
        numbers.set(&7, 7_777).await.unwrap();
        for (id, letter) in (0..).zip(letters) {
            let letter = letter.unwrap();
            assert_eq!((&letter.key, letter.reason), (&numbers.key(&id), DeadReason::Overload));
            assert_eq!(letter.is_removal(), id == 300);
            let redriven = cache.redrive(&letter).await.unwrap();
            let expected = if id == 7 { Redriven::Superseded } else { Redriven::Queued };
            assert_eq!(redriven, expected, "{letter:?}");
        }
        cache.flush(Duration::from_secs(30)).await.unwrap();
        assert_eq!(numbers.get(&7).await.map(|hit| *hit), Some(7_777));
        assert_eq!(numbers.get(&299).await.map(|hit| *hit), Some(2_990));
        // The one that was queued when the first cache was shut down is there, too.
        assert_eq!(store.len(), 301);
        cache.shutdown(Duration::from_secs(10)).await;
    });
}

#[test]
fn files_of_letters_are_bounded_and_a_full_set_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters.jsonl");
    smol::block_on(async {
        let sink = FileLetters::new(&path, runtime()).max_bytes(2_000).files(3).sync(false);
        let (cache, numbers, _) = dropping(&MapBackend::new(), sink).await;
        for id in 0..100 {
            numbers.set(&id, id).await.unwrap();
        }
        while queue(&cache).letters_delivered + queue(&cache).letters_undelivered < 99 {
            smol::future::yield_now().await;
        }
        let again = FileLetters::new(&path, runtime()).files(3);
        let paths = again.paths().await.unwrap();
        assert_eq!(paths.len(), 3);
        let mut letters = Vec::new();
        for path in &paths {
            assert!(std::fs::metadata(path).unwrap().len() <= 2_000);
            letters.extend(read(path).await.into_iter().map(|letter| letter.unwrap().key));
        }
        let in_files = letters.len() as u64;
        assert!(in_files > 10 && in_files < 99, "{in_files}");
        assert_eq!(queue(&cache).letters_undelivered, 99 - in_files);
        letters.extend(cache.undelivered_letters().into_iter().map(|letter| letter.key));
        assert_eq!(letters.len(), 99);
        // A short one may still fit into a file that a longer one before it did not.
        let (letters, all): (HashSet<_>, HashSet<_>) =
            (letters.into_iter().collect(), (0..99).map(|id| numbers.key(&id)).collect());
        assert_eq!(letters, all, "each is in a file or kept");
        // Somebody has dealt with the oldest.
        std::fs::remove_file(&paths[0]).unwrap();
        numbers.set(&100, 100).await.unwrap();
        delivered(&cache, in_files + 1).await;
        cache.shutdown(Duration::from_millis(1)).await;
    });
}

#[test]
fn a_letter_cut_short_by_a_crash_costs_that_letter_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters.jsonl");
    smol::block_on(async {
        let (cache, numbers, plan) = dropping(&MapBackend::new(), FileLetters::new(&path, runtime())).await;
        for id in 0..3 {
            numbers.set(&id, id).await.unwrap();
        }
        delivered(&cache, 2).await;
        // The third is stored.
        plan.heal();
        cache.shutdown(Duration::from_secs(10)).await;
        drop((cache, numbers));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let (cache, numbers, _) = dropping(&MapBackend::new(), FileLetters::new(&path, runtime())).await;
        for id in 3..5 {
            numbers.set(&id, id).await.unwrap();
        }
        delivered(&cache, 1).await;
        let letters = read(&path).await;
        let keys: Vec<_> = letters.iter().map(|letter| letter.as_ref().map(|l| l.key.clone()).ok()).collect();
        let key = |id| Some(numbers.key(&id));
        assert_eq!(keys, [key(0), None, key(3)]);
        let error = letters[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(error.to_string().contains("line 2"), "{error}");
        cache.shutdown(Duration::from_millis(1)).await;
    });
}

#[test]
fn two_sinks_on_one_file_are_an_error_of_the_second() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters.jsonl");
    smol::block_on(async {
        let (first, numbers, _) = dropping(&MapBackend::new(), FileLetters::new(&path, runtime())).await;
        for id in 0..2 {
            numbers.set(&id, id).await.unwrap();
        }
        delivered(&first, 1).await;
        let letter = read(&path).await.remove(0).unwrap();
        let second = FileLetters::new(&path, runtime());
        let error = second.deliver(&letter).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        assert_eq!(read(&path).await.len(), 1);
        first.shutdown(Duration::from_millis(1)).await;
    });
}

#[test]
fn a_channel_hands_letters_over_until_nobody_receives() {
    smol::block_on(async {
        let (sink, letters) = ChannelLetters::bounded(2).unwrap();
        let (cache, numbers, _) = dropping(&MapBackend::new(), sink).await;
        for id in 0..5 {
            numbers.set(&id, id).await.unwrap();
        }
        for id in 0..4 {
            assert_eq!(letters.receive().await.unwrap().key, numbers.key(&id));
        }
        assert!(letters.is_empty());
        drop(letters);
        numbers.set(&5, 5).await.unwrap();
        while queue(&cache).letters_undelivered == 0 {
            smol::future::yield_now().await;
        }
        let kept: Vec<_> = cache.undelivered_letters().into_iter().map(|letter| letter.key).collect();
        assert_eq!(kept, [numbers.key(&4)]);
        cache.shutdown(Duration::from_millis(1)).await;
    });
    assert_eq!(ChannelLetters::bounded(0).unwrap_err().kind(), ErrorKind::Config);
}

/// Takes nothing.
struct Closed;

#[tierkeep::async_trait]
impl DeadLetterSink for Closed {
    async fn deliver(&self, _: &DeadLetter) -> tierkeep::Result<()> {
        Err(tierkeep::Error::new(ErrorKind::Backend, "closed"))
    }
}

#[test]
fn a_journal_does_not_grow_with_letters_that_nobody_takes() {
    let directory = tempfile::tempdir().unwrap();
    smol::block_on(async {
        let plan = FaultPlan::new(&runtime());
        plan.rate(Fault::Error, 1.0);
        let behind = WriteBehind::journal(directory.path(), JournalSync::Interval(Duration::from_millis(10)))
            .entries(10)
            .max_delay(NEVER)
            .overload(Overload::DropOldest)
            .dead_letters(Closed);
        let tier = Tier::new(Faulty::new(MapBackend::new(), &runtime(), &plan))
            .label("store")
            .breaker(BreakerOptions::disabled())
            // A busy disk takes its time.
            .write_deadline(NEVER)
            .write_behind(behind);
        let cache =
            Cache::builder(runtime()).tier(MemoryBackend::entries(1_000)).tier(tier).build().await.unwrap();
        let numbers: Region<u64, u64> = cache.region("number").no_expiry().build().unwrap();
        for id in 0..4_000 {
            numbers.set(&id, id).await.unwrap();
        }
        while queue(&cache).letters_undelivered < 3_990 {
            smol::future::yield_now().await;
        }
        let records = || queue(&cache).journal.unwrap().records;
        assert!(
            (1_024..=1_024 + 11).contains(&records()),
            "those that are kept, and what is queued: {}",
            records()
        );
        assert_eq!(cache.undelivered_letters().len(), 1_024);
        assert!(records() <= 11, "who was handed the letters has them: {}", records());
        cache.shutdown(Duration::from_millis(1)).await;
    });
}
