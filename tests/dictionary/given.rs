//! Dictionaries made beforehand, and what hostile bytes do to them.

use proptest::prelude::*;
use tierkeep::codec::{CodecOptions, Compressor, ZstdCompressor, ZstdDictionary};
use tierkeep::{Cache, ErrorKind, Region};
use tierkeep_smol::SmolRuntime;

use super::support::{Store, other_record, record};

fn trained() -> ZstdDictionary {
    let samples: Vec<_> = (0..1_000).map(record).collect();
    ZstdDictionary::train(&samples, 4 << 10).unwrap()
}

async fn open(store: &Store, options: CodecOptions) -> (Cache, Region<String, u64>) {
    let cache = Cache::builder(SmolRuntime::new()).tier(store.tier()).codec(options).build().await.unwrap();
    let region = cache.region("records").no_expiry().build().unwrap();
    (cache, region)
}

#[test]
fn a_tier_may_have_a_dictionary_that_is_given() {
    smol::block_on(async {
        let dictionary = trained();
        let store = Store::with(ZstdCompressor::default().with_dictionary(&dictionary));
        let (_cache, region) = open(&store, CodecOptions::default()).await;
        region.set(&1, record(1)).await.unwrap();
        let header = store.header(&region.key(&1));
        assert_eq!((header.compressor, header.dictionary), (2, dictionary.id()));
        assert!(header.payload_len * 3 < record(1).len(), "{}", header.payload_len);
        assert_eq!(*region.get(&1).await.unwrap().into_arc(), record(1));
        assert!(store.dictionaries().is_empty(), "it is the application's to keep");

        // A tier that has left it still reads, if it is told.
        let later = Store { map: store.map.clone(), ..Store::new() };
        let (_cache, region) = open(&later, CodecOptions::default().dictionary(&dictionary)).await;
        assert_eq!(*region.get(&1).await.unwrap().into_arc(), record(1));
        // And otherwise misses.
        let (cache, region) = open(&later, CodecOptions::default()).await;
        assert!(region.get(&1).await.is_none());
        assert_eq!(cache.inspect().codec.dictionaries_unknown, 1);
        assert_eq!(cache.inspect().tiers[0].reads.decode_failed, 1);
    });
}

#[test]
fn two_tiers_may_share_a_dictionary() {
    smol::block_on(async {
        let dictionary = trained();
        let [a, b] =
            [3, 19].map(|level| Store::with(ZstdCompressor::new(level).with_dictionary(&dictionary)));
        let builder = Cache::builder(SmolRuntime::new()).tier(a.tier().label("a")).tier(b.tier().label("b"));
        let cache = builder.build().await.unwrap();
        let region: Region<String, u64> = cache.region("records").no_expiry().build().unwrap();
        region.set(&1, record(1)).await.unwrap();
        assert_eq!(*region.get(&1).await.unwrap().into_arc(), record(1));
    });
}

#[test]
fn bytes_that_are_no_dictionary_are_refused() {
    let refused =
        |bytes: Vec<u8>| assert_eq!(ZstdDictionary::new(bytes).unwrap_err().kind(), ErrorKind::Config);
    refused(Vec::new());
    refused(vec![1; (1 << 20) + 1]);
    // Zstd's magic, and then nothing that belongs there.
    refused([&[0x37, 0xA4, 0x30, 0xEC][..], &[0xFF; 100]].concat());
    let too_few: [&str; 2] = ["one", "two"];
    assert_eq!(ZstdDictionary::train(&too_few, 4 << 10).unwrap_err().kind(), ErrorKind::Config);
}

#[test]
fn another_dictionary_than_the_value_s_is_an_error_or_harmless() {
    let others: Vec<_> = (0..1_000).map(other_record).collect();
    let other = ZstdDictionary::train(&others, 4 << 10).unwrap();
    let (right, wrong) = (
        ZstdCompressor::default().with_dictionary(&trained()),
        ZstdCompressor::default().with_dictionary(&other),
    );
    for n in 0..100 {
        let (plain, mut packed) = (record(n), Vec::new());
        right.compress(plain.as_bytes(), &mut packed).unwrap();
        assert_eq!(right.decompress(&packed, plain.len()).unwrap(), plain.as_bytes());
        assert_ne!(wrong.decompress(&packed, plain.len()).ok().as_deref(), Some(plain.as_bytes()));
    }
}

proptest! {
    #[test]
    fn any_bytes_read_back(value in proptest::collection::vec(any::<u8>(), 0..3_000), n in 0_u64..1_000, level in 1..20) {
        thread_local! { static DICTIONARY: ZstdDictionary = trained(); }
        let compressor = DICTIONARY.with(|dictionary| ZstdCompressor::new(level).with_dictionary(dictionary));
        for value in [value, record(n).into_bytes()] {
            let mut packed = vec![9; 3];
            compressor.compress(&value, &mut packed).unwrap();
            prop_assert_eq!(&packed[..3], &[9; 3], "it is appended");
            let mut plain = vec![8; 5];
            compressor.decompress_into(&packed[3..], value.len(), &mut plain).unwrap();
            prop_assert_eq!(&plain[5..], &value);
            prop_assert!(compressor.decompress(&packed[3..], value.len() + 1).is_err());
            if !value.is_empty() {
                prop_assert!(compressor.decompress(&packed[3..], value.len() - 1).is_err());
            }
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_or_a_value_of_the_stated_size(
        n in 0_u64..1_000, at in 0_usize..200, bit in 0..8, size in 0_usize..100_000,
    ) {
        thread_local! { static DICTIONARY: ZstdDictionary = trained(); }
        let compressor = DICTIONARY.with(|dictionary| ZstdCompressor::default().with_dictionary(dictionary));
        let mut packed = Vec::new();
        compressor.compress(record(n).as_bytes(), &mut packed).unwrap();
        let at = at % packed.len();
        packed[at] ^= 1_u8 << bit;
        let mut plain = Vec::new();
        let allocated = allocation_counter::measure(|| plain = compressor.decompress(&packed, size).unwrap_or_default());
        prop_assert!(plain.is_empty() || plain.len() == size);
        prop_assert!(allocated.bytes_max < size as u64 + 10_000, "{} for {size}", allocated.bytes_max);
    }
}
