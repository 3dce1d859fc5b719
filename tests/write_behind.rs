//! Write-behind with real processes, real files and real servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "write_behind/crash.rs"]
mod crash;
#[path = "write_behind/full_disk.rs"]
mod full_disk;
#[path = "write_behind/letters.rs"]
mod letters;
#[path = "write_behind/overload.rs"]
mod overload;
#[path = "write_behind/start.rs"]
mod start;
#[path = "write_behind/support.rs"]
mod support;
