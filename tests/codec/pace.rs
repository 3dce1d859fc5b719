//! Where the codec works, by what was measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tierkeep::codec::{
    CodecOptions, Codecs, Compressor, Encoded, Format, PassthroughCompressor, PostcardFormat, Visit,
    ZstdCompressor, frame, value_type,
};
use tierkeep::{Object, Result};

use super::support::{Coded, HandRuntime, codecs, key, typical_meta};

/// Postcard at so many nanoseconds per byte, by the test's clock.
struct Paced(u64, Arc<AtomicU64>);

impl Paced {
    fn pass(&self, bytes: usize) {
        self.1.fetch_add(self.0 * bytes as u64, Ordering::SeqCst);
    }
}

impl Format for Paced {
    fn id(&self) -> u8 {
        140
    }

    fn name(&self) -> &'static str {
        "paced"
    }

    fn encode(&self, value: &dyn erased_serde::Serialize, out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        PostcardFormat.encode(value, out)?;
        self.pass(out.len() - before);
        Ok(())
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<()> {
        self.pass(bytes.len());
        PostcardFormat.decode(bytes, visit)
    }
}

struct Bench {
    codecs: Arc<Codecs>,
    runtime: HandRuntime,
    nanos: u64,
}

impl Bench {
    fn new(options: CodecOptions, nanos: u64) -> Self {
        let known = Arc::new(Paced(0, Arc::default()));
        let (codecs, runtime) = codecs(options.format(known));
        Self { codecs, runtime, nanos }
    }

    /// Encodes so many bytes; whether that was done in place.
    fn encode(&self, bytes: usize) -> (Encoded, bool) {
        let value: Object = Arc::new("x".repeat(bytes));
        let format = Paced(self.nanos, Arc::clone(&self.runtime.1));
        let backend = Arc::new(Coded(format, PassthroughCompressor));
        let mut encoding = Box::pin(self.codecs.encode(value, value_type::<String>(), backend));
        match encoding.as_mut().now_or_never() {
            Some(encoded) => (encoded.unwrap(), true),
            None => {
                assert!(self.runtime.run_one());
                (encoding.now_or_never().unwrap().unwrap(), false)
            }
        }
    }

    fn in_place(&self, bytes: usize) -> bool {
        self.encode(bytes).1
    }
}

#[test]
fn the_limit_moves_to_what_fits_the_budget() {
    let options = || CodecOptions::default().inline_budget(Duration::from_micros(30));
    // 10 ns a byte: 3,000 bytes fit.
    let slow = Bench::new(options(), 10);
    assert!(slow.in_place(15_000), "nothing was measured yet");
    slow.encode(15_000);
    assert!(!slow.in_place(3_100));
    assert!(slow.in_place(2_900));
    // 1 ns a byte: 30,000 fit.
    let fast = Bench::new(options(), 1);
    assert!(!fast.in_place(20_000), "nothing was measured yet");
    assert!(fast.in_place(29_000));
    assert!(!fast.in_place(31_000));
    let rate = &fast.codecs.rates()[0];
    assert_eq!((rate.work, rate.format, rate.compressor), ("encode", 140, 0));
    assert_eq!((rate.nanos_per_kib, rate.inline_limit), (1024, Some(30_000)));
}

/// A compressor that takes as many nanoseconds per byte as its level says, by the test's clock.
struct Levelled(i32, Arc<AtomicU64>);

impl Compressor for Levelled {
    fn id(&self) -> u8 {
        141
    }

    fn name(&self) -> &'static str {
        "levelled"
    }

    fn level(&self) -> i32 {
        self.0
    }

    fn compress(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.1.fetch_add(u64::try_from(self.0).unwrap() * plain.len() as u64, Ordering::SeqCst);
        out.push(0);
        Ok(())
    }

    fn decompress(&self, _: &[u8], _: usize) -> Result<Vec<u8>> {
        unreachable!("nothing is read")
    }
}

#[test]
fn a_compressor_has_a_limit_for_each_level() {
    let known = Arc::new(Levelled(0, Arc::default()));
    let (codecs, runtime) = codecs(CodecOptions::default().compressor(known));
    let in_place = |level: i32, bytes: usize| {
        let value: Object = Arc::new("x".repeat(bytes));
        let backend = Arc::new(Coded(PostcardFormat, Levelled(level, Arc::clone(&runtime.1))));
        let mut encoding = Box::pin(codecs.encode(value, value_type::<String>(), backend));
        let encoded = encoding.as_mut().now_or_never();
        let in_place = encoded.is_some();
        encoded.or_else(|| {
            runtime.run_one();
            encoding.now_or_never()
        });
        in_place
    };
    // Two tiers with the same compressor, one in a hurry and one not, take turns.
    for _ in 0..4 {
        in_place(1, 10_000);
        in_place(20, 10_000);
    }
    assert!(in_place(1, 29_000) && !in_place(1, 31_000));
    assert!(in_place(20, 1_400) && !in_place(20, 1_600));
}

#[test]
fn what_takes_longer_than_the_budget_after_a_change_goes_to_the_pool() {
    let mut bench = Bench::new(CodecOptions::default(), 1);
    (0..4).for_each(|_| drop(bench.encode(20_000)));
    assert!(bench.in_place(20_000));
    bench.nanos = 100;
    (0..20).for_each(|_| drop(bench.encode(20_000)));
    assert!(!bench.in_place(1_500));
    assert!(bench.in_place(1_000), "what is small is never worth the way");
}

#[test]
fn limits_that_are_set_stay() {
    let bench = Bench::new(CodecOptions::default().inline_encode(5_000), 1);
    (0..10).for_each(|_| drop(bench.encode(20_000)));
    assert!(bench.in_place(4_900));
    assert!(!bench.in_place(5_100));
    assert!(bench.codecs.rates().is_empty(), "nothing is measured for them");
    assert!(!Bench::new(CodecOptions::default().inline_encode(0), 1).in_place(1));
}

#[test]
fn a_clock_that_stands_still_changes_no_limit() {
    let bench = Bench::new(CodecOptions::default(), 0);
    (0..10).for_each(|_| drop(bench.encode(15_000)));
    assert!(bench.in_place(16_000));
    assert!(!bench.in_place(17_000));
}

#[test]
fn damaged_bytes_measure_nothing() {
    let bench = Bench::new(CodecOptions::default(), 0);
    let raw = bench.encode(100_000).0.seal(&key(1), &typical_meta());
    let (header, payload) = frame::open(&raw, &key(1)).unwrap();
    let mut damaged = payload.to_vec();
    damaged[50] ^= 1;
    for _ in 0..20 {
        let mut decoding =
            Box::pin(bench.codecs.decode(header.clone(), damaged.clone().into(), value_type::<String>()));
        assert!(decoding.as_mut().now_or_never().is_none());
        bench.runtime.1.fetch_add(1_000_000, Ordering::SeqCst);
        assert!(bench.runtime.run_one());
        assert!(decoding.now_or_never().unwrap().is_err());
    }
    assert!(bench.codecs.rates().iter().all(|rate| rate.inline_limit.is_none()));
}

#[test]
fn a_stored_frame_takes_no_more_memory_than_its_bytes() {
    let codecs = codecs(CodecOptions::default()).0;
    let value: Object = Arc::new("x".repeat(1_000_000));
    let encode = || {
        let ty = value_type::<String>();
        codecs.encode_now(&value, &*ty, &PostcardFormat, &ZstdCompressor::default()).unwrap()
    };
    encode();
    let mut packed = None;
    let info = allocation_counter::measure(|| packed = Some(encode()));
    let packed = packed.unwrap();
    assert!(packed.payload().len() < 1_000);
    assert!(info.bytes_current < 2_000, "{} bytes are kept for it", info.bytes_current);
    // The megabyte passes through a buffer that was there.
    assert!(info.bytes_total < 200_000, "{} bytes were allocated", info.bytes_total);
}
