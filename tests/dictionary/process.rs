//! A process that is killed leaves its dictionary on its disk, and the next one reads with it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tierkeep::backend::DiskBackend;
use tierkeep::codec::{DictionaryState, ZstdCompressor};
use tierkeep::{Cache, Region, Tier};
use tierkeep_smol::SmolRuntime;

use super::support::{record, small, train};

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

async fn on_disk(directory: &Path) -> (Cache, Region<String, u64>) {
    let disk = DiskBackend::builder(directory).compressor(ZstdCompressor::default()).build().unwrap();
    let tier = Tier::new(disk).read_deadline(MINUTE).write_deadline(MINUTE).open_deadline(MINUTE);
    let cache = Cache::builder(SmolRuntime::new()).tier(tier).build().await.unwrap();
    let region = cache.region("records").ttl(MINUTE * 60).dictionary(small()).build().unwrap();
    (cache, region)
}

#[test]
fn the_next_process_reads_what_a_killed_one_wrote_with_its_dictionary() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::a_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env("TIERKEEP_DICTIONARY_DIRECTORY", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let id = lines.find_map(|line| line.strip_prefix("written with ").map(str::to_owned));
    child.kill().unwrap(); // SIGKILL on Unix
    child.wait().unwrap();
    let id: u32 = id.expect("the child wrote nothing").parse().unwrap();
    smol::block_on(async {
        let (cache, region) = on_disk(directory.path()).await;
        for n in 0..100 {
            assert_eq!(*region.get(&n).await.expect("it was written").into_arc(), record(n));
        }
        let inspection = cache.inspect();
        assert_eq!((inspection.codec.dictionaries_loaded, inspection.codec.dictionaries_unknown), (1, 0));
        let found = &inspection.dictionaries[0];
        assert_eq!((found.dictionary, found.state, found.version), (id, DictionaryState::Sampling, 1));
        // And goes on with it: a third of what it would take without.
        let before = inspection.codec.bytes_out;
        region.set(&1_000, record(1_000)).await.unwrap();
        assert!((cache.inspect().codec.bytes_out - before) * 3 < record(1_000).len() as u64);
        assert!(cache.shutdown(MINUTE).await.clean);
    });
}

#[test]
#[ignore = "run by the other test, in a process of its own"]
fn a_process() {
    let Some(directory) = std::env::var_os("TIERKEEP_DICTIONARY_DIRECTORY") else { return };
    smol::block_on(async {
        let (_cache, region) = on_disk(directory.as_ref()).await;
        let id = train(&region).await;
        for n in 0..100 {
            region.set(&n, record(n)).await.unwrap();
        }
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "\nwritten with {id}").and_then(|()| out.flush());
        std::future::pending().await
    })
}
