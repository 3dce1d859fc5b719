//! What encoding and decoding cost, with the frame's checks but without a tier around them.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tierkeep::codec::frame::{self, Encoded};
use tierkeep::codec::{
    CodecOptions, Codecs, Compressor, Format, JsonFormat, PassthroughCompressor, PostcardFormat, ValueType,
    ZstdCompressor, value_type,
};
use tierkeep::runtime::RuntimeHandle;
use tierkeep::{CacheKey, KeyPart, Meta, Object, Raw};
use tierkeep_benches::micro;
use tierkeep_benches::values::{Account, Identified, Page};
use tierkeep_tokio::TokioRuntime;

fn codec(criterion: &mut Criterion) {
    let runtime = micro::runtime();
    let handle = RuntimeHandle::new(TokioRuntime::new(runtime.handle().clone()));
    let codecs = Codecs::new(CodecOptions::default(), &handle).expect("the defaults are valid");
    let account: (Object, _) = (Arc::new(Account::of(1)), value_type::<Account>());
    let page: (Object, _) = (Arc::new(Page::of(1)), value_type::<Page>());
    let plain: &dyn Compressor = &PassthroughCompressor;
    let zstd: &dyn Compressor = &ZstdCompressor::new(3);
    let cases: [(&str, &(Object, Arc<dyn ValueType>), &dyn Format, &dyn Compressor); 6] = [
        ("postcard/125B", &account, &PostcardFormat, plain),
        ("postcard/6kB", &page, &PostcardFormat, plain),
        ("json/125B", &account, &JsonFormat, plain),
        ("json/6kB", &page, &JsonFormat, plain),
        ("postcard+zstd/125B", &account, &PostcardFormat, zstd),
        ("postcard+zstd/6kB", &page, &PostcardFormat, zstd),
    ];
    let key = CacheKey::new("bench", 1, [KeyPart::flag("1")]);
    let mut group = criterion.benchmark_group("codec");
    for (name, (value, ty), format, compressor) in cases {
        let encode =
            || -> Encoded { codecs.encode_now(value, &**ty, format, compressor).expect("it can be encoded") };
        let seal = |encoded: Encoded| -> Raw { encoded.seal(&key, &Meta::default()) };
        group.throughput(Throughput::Bytes(encode().plain_len() as u64));
        group.bench_function(format!("encode/{name}"), |bencher| bencher.iter(|| seal(encode())));
        let raw = seal(encode());
        group.bench_function(format!("decode/{name}"), |bencher| {
            let open = |raw: Raw| {
                let (header, payload) = frame::open(&raw, black_box(&key)).expect("it was just sealed");
                codecs.decode_now(&header, &payload, &**ty).expect("it can be decoded")
            };
            bencher.iter_batched(|| raw.clone(), open, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group! { name = benches; config = micro::criterion(); targets = codec }
criterion_main!(benches);
