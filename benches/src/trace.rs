//! Production traces to replay (headissue GmbH, Jens Wilke, CC BY 4.0).

use std::path::{Path, PathBuf};

use crate::measure::Skipped;

/// The requests of `<name>.trace.zst`, from `./traces`, the folder named by `TIERKEEP_TRACES`, or `../shared/traces`.
///
/// # Errors
/// If none of the folders has it, or it is not a trace.
pub fn requests(name: &str) -> Result<Vec<u32>, Skipped> {
    let file = format!("{name}.trace.zst");
    let Some(path) = folders().into_iter().map(|folder| folder.join(&file)).find(|path| path.exists()) else {
        let message =
            "is neither in ./traces, nor in the folder named by TIERKEEP_TRACES, nor in ../shared/traces";
        return Err(Skipped(format!("{file} {message}")));
    };
    let unreadable = |error| Skipped(format!("{} cannot be read: {error}", path.display()));
    let packed = std::fs::read(&path).map_err(unreadable)?;
    let plain = zstd::decode_all(&packed[..]).map_err(unreadable)?;
    let (requests, rest) = plain.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Skipped(format!("{} is not a trace: it ends within a key", path.display())));
    }
    Ok(requests.iter().map(|&request| u32::from_be_bytes(request)).collect())
}

fn folders() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("TIERKEEP_TRACES").map(PathBuf::from);
    named.into_iter().chain([workspace.join("traces"), workspace.join("../shared/traces")]).collect()
}
