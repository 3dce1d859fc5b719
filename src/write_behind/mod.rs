//! Write-behind: changes of a lower tier that are acknowledged before its store has them.

#[cfg(feature = "disk")]
pub(crate) mod journal;
