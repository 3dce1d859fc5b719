//! Order: how an older value never wins (DESIGN, section 6), as exact interleavings.
//!
//! A `Gate` is a byte tier whose calls the test lets through one by one; the simulator's schedules vary around it.

#[path = "order/clears.rs"]
mod clears;
#[path = "order/destructors.rs"]
mod destructors;
#[path = "order/fences.rs"]
mod fences;
#[path = "order/gate.rs"]
mod gate;
#[path = "order/interleavings.rs"]
mod interleavings;
#[path = "order/leaving.rs"]
mod leaving;
#[path = "order/ledger.rs"]
mod ledger;
#[path = "order/quarantine.rs"]
mod quarantine;
#[path = "order/world.rs"]
mod world;
