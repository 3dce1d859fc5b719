//! Formats and compressors of an application's that do not keep their word, in a running cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tierkeep::codec::{Compressor, Format, JsonFormat, PassthroughCompressor, PostcardFormat, Visit, frame};
use tierkeep::{Cache, Error, ErrorKind, Region, Result};
use tierkeep_sim::MapBackend;
use tierkeep_smol::SmolRuntime;

use super::support::Coded;

async fn region(coded: &Coded) -> Region<String, u32> {
    let cache = Cache::builder(SmolRuntime::new()).tier(coded.tier()).build().await.unwrap();
    cache.region("texts").no_expiry().build().unwrap()
}

/// Writes, and reads, half of a value before it fails, as often as it is told to.
#[derive(Default)]
struct HalfWay {
    writing: Arc<AtomicBool>,
    reading: Arc<AtomicBool>,
}

impl Format for HalfWay {
    fn id(&self) -> u8 {
        140
    }

    fn name(&self) -> &'static str {
        "half-way"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        JsonFormat.encode(value, out)?;
        if self.writing.load(Ordering::Relaxed) {
            out.truncate(start + (out.len() - start) / 2);
            return Err(Error::new(ErrorKind::Encode, "the pen broke"));
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        JsonFormat.decode(bytes, visit)?;
        if self.reading.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Decode, "the glasses broke"));
        }
        Ok(())
    }
}

#[test]
fn a_format_that_fails_half_way_changes_nothing_and_serves_nothing() {
    smol::block_on(async {
        let format = HalfWay::default();
        let (writing, reading) = (Arc::clone(&format.writing), Arc::clone(&format.reading));
        let region = region(&Coded::new(MapBackend::new(), format, PassthroughCompressor)).await;
        region.set(&1, "before".to_owned()).await.unwrap();

        writing.store(true, Ordering::Relaxed);
        let error = region.set(&1, "after".to_owned()).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Encode, "the pen broke"));
        assert_eq!(region.get(&1).await.as_deref().map(String::as_str), Some("before"));

        // The value had been read whole when the format failed: it is not served.
        reading.store(true, Ordering::Relaxed);
        assert!(region.get(&1).await.is_none());
        let inspection = region.cache().inspect();
        assert_eq!(inspection.tiers[0].reads.decode_failed, 1);
        assert_eq!((inspection.codec.encode_failures, inspection.codec.decode_failures), (1, 1));

        reading.store(false, Ordering::Relaxed);
        assert_eq!(region.get(&1).await.as_deref().map(String::as_str), Some("before"));
    });
}

/// Doubles everything.
struct Grows;

impl Compressor for Grows {
    fn id(&self) -> u8 {
        141
    }

    fn name(&self) -> &'static str {
        "grows"
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(plain);
        out.extend_from_slice(plain);
        Ok(())
    }

    fn decompress(&self, packed: &[u8], _: usize) -> Result<Vec<u8>> {
        Ok(packed[..packed.len() / 2].to_vec())
    }
}

#[test]
fn what_a_compressor_grows_is_stored_plain() {
    smol::block_on(async {
        let map = MapBackend::new();
        let region = region(&Coded::new(map.clone(), PostcardFormat, Grows)).await;
        for length in [0, 1, 100, 100_000] {
            let text = "x".repeat(length);
            region.set(&1, text.clone()).await.unwrap();
            let raw = map.get(&region.key(&1)).unwrap();
            assert!(raw.len() < length + 100, "{length} bytes are stored as {}", raw.len());
            let (header, payload) = frame::open(&raw, &region.key(&1)).unwrap();
            assert_eq!((header.compressor, header.plain_len), (0, payload.len()));
            assert_eq!(region.get(&1).await.as_deref(), Some(&text));
        }
    });
}

/// Leaves out spaces, by agreement number `.0`.
struct Agreement(u32);

impl Compressor for Agreement {
    fn id(&self) -> u8 {
        142
    }

    fn name(&self) -> &'static str {
        "agreement"
    }

    fn dictionary(&self) -> u32 {
        self.0
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.push(u8::try_from(plain.len() % 256).unwrap_or(0));
        Ok(())
    }

    fn decompress(&self, packed: &[u8], _: usize) -> Result<Vec<u8>> {
        let length = packed[0];
        let mut plain = vec![length - 1];
        plain.resize(length.into(), b'a');
        Ok(plain)
    }
}

#[test]
fn a_dictionary_that_is_not_known_any_more_is_a_counted_miss() {
    smol::block_on(async {
        let map = MapBackend::new();
        let before = region(&Coded::new(map.clone(), PostcardFormat, Agreement(1))).await;
        before.set(&1, "aaaaaaaa".to_owned()).await.unwrap();
        assert_eq!(before.get(&1).await.as_deref().map(String::as_str), Some("aaaaaaaa"));

        let after = region(&Coded::new(map.clone(), PostcardFormat, Agreement(2))).await;
        let lookup = after.try_get(&1).await.unwrap();
        assert!(lookup.hit.is_none());
        assert!(lookup.degraded[0].message().contains("dictionary 1 of compressor 142"), "{lookup:?}");
        assert_eq!(after.cache().inspect().tiers[0].reads.decode_failed, 1);

        // Once the application says what it was, it is read again.
        let both = tierkeep::codec::CodecOptions::default().compressor(Arc::new(Agreement(1)));
        let coded = Coded::new(map, PostcardFormat, Agreement(2));
        let cache = Cache::builder(SmolRuntime::new()).tier(coded.tier()).codec(both).build().await.unwrap();
        let region: Region<String, u32> = cache.region("texts").no_expiry().build().unwrap();
        assert_eq!(region.get(&1).await.as_deref().map(String::as_str), Some("aaaaaaaa"));
    });
}
