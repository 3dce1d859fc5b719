//! The engine's own files.

#[path = "../../src/order/clears.rs"]
pub(crate) mod clears;
#[path = "../../src/order/clock.rs"]
pub(crate) mod clock;
#[path = "../../src/order/fence.rs"]
pub(crate) mod fence;
#[path = "../../src/tier/gate.rs"]
pub(crate) mod gate;
#[path = "../../src/order/witness.rs"]
mod witness;
