//! Reading a trace of any format.

use std::path::Path;

use crate::Failure;
use crate::args::Format;

/// The keys of the requests, in their order.
pub(crate) fn read(path: &Path, format: Option<Format>) -> Result<Vec<String>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The magic number of a zstd frame.
    let bytes =
        if bytes.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) { zstd::decode_all(&bytes[..])? } else { bytes };
    let keys: Vec<String> = match format.unwrap_or_else(|| guess(path)) {
        Format::U32 => {
            let (keys, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(format!("{} bytes are no whole number of 32-bit keys", bytes.len()).into());
            }
            keys.iter().map(|key| u32::from_be_bytes(*key).to_string()).collect()
        }
        Format::Text => String::from_utf8(bytes)?
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    if keys.is_empty() {
        return Err(format!("{} holds no requests", path.display()).into());
    }
    Ok(keys)
}

fn guess(path: &Path) -> Format {
    let name = path.to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    if name.ends_with(".txt") || name.ends_with(".keys") { Format::Text } else { Format::U32 }
}
