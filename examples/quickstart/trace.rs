//! The trace: see `examples/data/ATTRIBUTION.md`.

use crate::Failure;

/// Its length, for the decoder's buffer and as a check.
const REQUESTS: usize = 95_607;

/// The keys of the requests, in their order.
pub(crate) fn web12() -> Result<Vec<u32>, Failure> {
    let bytes = zstd::bulk::decompress(include_bytes!("../data/web12.trace.zst"), REQUESTS * 4)?;
    let (keys, rest) = bytes.as_chunks::<4>();
    if keys.len() != REQUESTS || !rest.is_empty() {
        return Err(format!("the trace has {} bytes instead of {}", bytes.len(), REQUESTS * 4).into());
    }
    Ok(keys.iter().map(|key| u32::from_be_bytes(*key)).collect())
}
