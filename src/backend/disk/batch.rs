//! Batches: several writes as one of fjall's, and an answer for each.

use std::collections::HashSet;

use super::database::Database;
use super::generation::cost;
use super::record::Header;
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::Raw;

/// What is committed together: one batch of fjall, all for the newest generation.
pub(super) struct Batch<'a> {
    database: &'a Database,
    records: Vec<(CacheKey, Header, Raw)>,
    keys: HashSet<CacheKey>,
    bytes: u64,
    /// Which answers wait for the commit.
    places: Vec<usize>,
}

/// Answers in the order of the request; `None` until the record's batch is committed.
pub(super) type Answers = Vec<Option<Result<()>>>;

impl<'a> Batch<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        Self { database, records: Vec::new(), keys: HashSet::new(), bytes: 0, places: Vec::new() }
    }

    /// Commits first if `key` is in the batch already: fjall gives all of a batch one number, so of two writes of one
    /// key it could not tell the later.
    pub(super) fn separate(&mut self, key: &CacheKey, answers: &mut Answers) {
        if self.keys.contains(key) {
            self.commit(answers);
        }
    }

    /// Adds a record and its answer, which stays open until the commit.
    pub(super) fn add(&mut self, key: CacheKey, header: Header, frame: Raw, answers: &mut Answers) {
        let bytes = cost(key.as_str(), &header, &frame);
        if self.bytes.saturating_add(bytes) > self.database.batch_limit() {
            self.commit(answers);
        }
        self.places.push(answers.len());
        answers.push(None);
        self.bytes = self.bytes.saturating_add(bytes);
        self.keys.insert(key.clone());
        self.records.push((key, header, frame));
    }

    /// Commits what is left and hands out the answers.
    pub(super) fn finish(mut self, mut answers: Answers) -> Vec<Result<()>> {
        self.commit(&mut answers);
        let unanswered = || Err(Error::new(ErrorKind::Backend, "the write was not carried out"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    fn commit(&mut self, answers: &mut Answers) {
        if self.records.is_empty() {
            return;
        }
        let result = self.write();
        for place in self.places.drain(..) {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(result.clone());
            }
        }
        self.records.clear();
        self.keys.clear();
        self.bytes = 0;
    }

    fn write(&mut self) -> Result<()> {
        let newest = self.database.make_room(self.bytes)?;
        let mut batch = self.database.batch(self.records.len());
        for (key, mut header, frame) in self.records.drain(..) {
            header.generation = newest.id;
            // Counted before it is there, so that no record is ever newer than its generation's summary.
            newest.count(&header, cost(key.as_str(), &header, &frame));
            batch.insert(&newest.slot.keyspace, key.as_str(), header.encode(&frame));
        }
        self.database.commit(batch, &newest)
    }
}
