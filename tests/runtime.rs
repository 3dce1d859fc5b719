//! The runtime seam without a runtime.

#[path = "runtime/restart_counter.rs"]
mod restart_counter;
