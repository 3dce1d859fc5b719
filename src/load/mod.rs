//! Loading: one load per key at a time, whatever becomes of the one who runs it.

mod single_flight;

pub(crate) use single_flight::{Flights, Landed, Role};
