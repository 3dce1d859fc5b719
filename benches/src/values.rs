//! The values that both sides hold: plain application structs, with strings and lists, not arrays of bytes.

use serde::{Deserialize, Serialize};

/// How long entries live: longer than any bench.
pub const TTL: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// A value that says which key it belongs under, so that every result can be checked.
pub trait Identified {
    /// Makes the value of an id.
    fn of(id: u64) -> Self;

    /// The id it was made of.
    fn id(&self) -> u64;
}

/// 125 bytes of data (in postcard).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    id: u64,
    created: u64,
    name: String,
    email: String,
    roles: Vec<String>,
    balance: i64,
    active: bool,
}

impl Identified for Account {
    fn of(id: u64) -> Self {
        Self {
            id,
            created: 1_700_000_000_000 + id % 1_000,
            name: format!("Ada, Countess of Lovelace {id:08}"),
            email: format!("ada.lovelace.{id:08}@analytical.example.com"),
            roles: vec!["administrator".into(), "accounts-payable".into()],
            balance: 123_456_789,
            active: true,
        }
    }

    fn id(&self) -> u64 {
        self.id
    }
}

impl Account {
    /// The same account under another id: cheaper to make than a new one.
    #[must_use]
    pub fn renumbered(mut self, id: u64) -> Self {
        self.id = id;
        self
    }
}

/// 5,962 bytes of data (in postcard).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    id: u64,
    title: String,
    items: Vec<Item>,
    note: String,
}

/// A line of a [`Page`], or of a [`Catalogue`].
#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Item {
    sku: String,
    title: String,
    description: String,
    price_cents: u64,
    stock: u32,
    rating: f64,
}

impl Item {
    fn of(line: u32) -> Self {
        Self {
            sku: format!("SKU-{line:08}"),
            title: format!("Brass gear wheel, {line:03} teeth"),
            description: format!(
                "Cut for the analytical engine's mill, column {line:03}; tempered, numbered"
            ),
            price_cents: 129_900,
            stock: 4_000 + line,
            rating: 4.5,
        }
    }
}

impl Identified for Page {
    fn of(id: u64) -> Self {
        let items = (0..47).map(Item::of).collect();
        Self { id, title: format!("Spare parts {id:08}"), items, note: "n".repeat(155) }
    }

    fn id(&self) -> u64 {
        self.id
    }
}

/// 100 bytes of data, give or take how its id is encoded: for figures of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    id: u64,
    body: [[u8; 24]; 4],
}

impl Identified for Record {
    fn of(id: u64) -> Self {
        Self { id, body: [[7; 24]; 4] }
    }

    fn id(&self) -> u64 {
        self.id
    }
}

/// 64 kB of data in rkyv.
#[derive(
    Debug, Clone, PartialEq, Serialize, Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub struct Catalogue {
    /// The id it was made of.
    pub id: u64,
    /// Its lines.
    pub items: Vec<Item>,
}

impl Catalogue {
    /// How many lines each has.
    pub const ITEMS: u32 = 376;
}

impl Identified for Catalogue {
    fn of(id: u64) -> Self {
        Self { id, items: (0..Self::ITEMS).map(Item::of).collect() }
    }

    fn id(&self) -> u64 {
        self.id
    }
}

/// 4 MB of text that zstd makes about a third of: for the cost of codecs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    id: u64,
    text: String,
}

impl Document {
    const BYTES: usize = 4 << 20;

    /// Whether this is the whole document of its id.
    pub fn is_whole(&self) -> bool {
        self.text.len() >= Self::BYTES
    }
}

impl Identified for Document {
    fn of(id: u64) -> Self {
        let mut text = String::with_capacity(Self::BYTES + 64);
        let mut state = id + 1;
        while text.len() < Self::BYTES {
            // A sequence that repeats only after 2^64 numbers (SplitMix64), so no two records are alike.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            text.push_str("{\"order\":");
            text.push_str(&(mixed >> 40).to_string());
            text.push_str(",\"status\":\"shipped\",\"cents\":");
            text.push_str(&(mixed & 0xFFFF).to_string());
            text.push_str("}\n");
        }
        Self { id, text }
    }

    fn id(&self) -> u64 {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_sizes_that_the_measures_name() {
        let sizes = |id| {
            let account = postcard::to_stdvec(&Account::of(id)).unwrap().len();
            (account, postcard::to_stdvec(&Page::of(id)).unwrap().len())
        };
        assert_eq!(sizes(500), (125, 5_962));
        assert_eq!(std::mem::size_of::<Record>(), 104);
        assert!(Document::of(1).is_whole());
        let archive = rkyv::to_bytes::<rkyv::rancor::Error>(&Catalogue::of(1)).unwrap().len();
        assert!((63_500..=64_500).contains(&archive), "{archive}");
    }

    #[test]
    fn values_tell_their_ids() {
        assert_eq!((Account::of(7).id(), Page::of(8).id(), Record::of(9).id()), (7, 8, 9));
    }
}
