//! The origin: stands for the database or the service that a cache is put in front of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tierkeep::runtime::RuntimeHandle;

/// What a load waits.
pub(crate) const DELAY: Duration = Duration::from_millis(2);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Product {
    id: u32,
    name: String,
    price_cents: u32,
    description: String,
}

impl Product {
    /// The one product that this id stands for, so that every answer can be checked.
    pub(crate) fn of(id: u32) -> Self {
        let mixed = id.wrapping_mul(0x9E37_79B9);
        Self {
            id,
            name: format!("Product {id}"),
            price_cents: mixed % 100_000,
            description: format!("{mixed:08x} ").repeat(20 + (mixed % 80) as usize),
        }
    }
}

pub(crate) struct Origin {
    runtime: RuntimeHandle,
    loads: AtomicU64,
}

impl Origin {
    pub(crate) fn new(runtime: RuntimeHandle) -> Self {
        Self { runtime, loads: AtomicU64::new(0) }
    }

    /// Loads a product, as slowly as a fast database.
    pub(crate) async fn product(&self, id: u32) -> Result<Product, std::io::Error> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.runtime.sleep(DELAY).await;
        Ok(Product::of(id))
    }

    /// How often it was asked.
    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}
