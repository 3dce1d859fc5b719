//! The tiers that the command line asks for.

use tierkeep::{MemoryBackend, Tier};

use crate::Failure;

/// The tier that `text` describes, labelled with it.
pub(crate) fn tier(text: &str) -> Result<Tier, Failure> {
    let (kind, rest) = text.split_once(':').ok_or_else(|| unknown(text))?;
    let tier = match kind {
        "memory" => Tier::new(MemoryBackend::entries(rest.parse()?)),
        #[cfg(feature = "moka")]
        "moka" => Tier::new(tierkeep::MokaBackend::entries(rest.parse()?)),
        #[cfg(feature = "disk")]
        "disk" => {
            let (megabytes, dir) = rest.split_once(':').ok_or_else(|| unknown(text))?;
            let bytes = megabytes.parse::<u64>()? << 20;
            Tier::new(tierkeep::backend::DiskBackend::builder(dir).capacity_bytes(bytes).build()?)
        }
        _ => return Err(unknown(text)),
    };
    Ok(tier.label(text.to_owned()))
}

fn unknown(text: &str) -> Failure {
    format!("no such tier: `{text}` (memory:ENTRIES, moka:ENTRIES or disk:MB:DIR; each needs its feature)")
        .into()
}
