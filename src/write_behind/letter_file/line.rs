//! A letter as a line of JSON, and back.

use serde::{Deserialize, Serialize};

use super::super::dead_letter::{DeadLetter, DeadReason};
use crate::error::{Error, ErrorKind, Result};
use crate::key::CacheKey;
use crate::value::{Raw, Stamp, Timestamp};

#[derive(Serialize, Deserialize)]
struct Line {
    tier: String,
    key: String,
    removal: bool,
    /// In hex; none for a removal, and for a decoded value.
    frame: Option<String>,
    stamp: Stamp,
    attempts: u32,
    accepted: Timestamp,
    died: Timestamp,
    reason: String,
    error: Option<String>,
}

/// The letter's line, with its newline.
pub(super) fn encode(letter: &DeadLetter) -> Result<Vec<u8>> {
    let line = Line {
        tier: letter.tier.to_string(),
        key: letter.key.to_string(),
        removal: letter.is_removal(),
        frame: letter.frame().map(|frame| to_hex(frame)),
        stamp: letter.stamp,
        attempts: letter.attempts,
        accepted: letter.accepted,
        died: letter.died,
        reason: letter.reason.as_str().to_owned(),
        error: letter.error.as_ref().map(|error| error.message().to_owned()),
    };
    let mut bytes = serde_json::to_vec(&line)
        .map_err(|e| Error::new(ErrorKind::Encode, "a dead letter cannot be written").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The letter in a line. Its error is the text of the one that it had.
pub(super) fn decode(line: &[u8]) -> Result<DeadLetter> {
    let unreadable = |what: &str| Error::new(ErrorKind::Decode, format!("no dead letter: {what}"));
    let line: Line =
        serde_json::from_slice(line).map_err(|e| unreadable("it is not the JSON of one").with_source(e))?;
    let key = CacheKey::parse(&line.key).ok_or_else(|| unreadable("its key is not one"))?;
    let frame = match (&line.frame, line.removal) {
        (Some(hex), false) => {
            Some(Raw::from(from_hex(hex).ok_or_else(|| unreadable("its frame is not in hex"))?))
        }
        (None, true) => None,
        _ => return Err(unreadable("it holds no value: it died in a tier that keeps decoded objects")),
    };
    let mut letter = DeadLetter::new(line.tier, key, frame, line.stamp)?;
    letter.attempts = line.attempts;
    letter.accepted = line.accepted;
    letter.died = line.died;
    letter.reason = [
        DeadReason::Attempts,
        DeadReason::Age,
        DeadReason::Overload,
        DeadReason::Displaced,
        DeadReason::Unheard,
        DeadReason::Shutdown,
    ]
    .into_iter()
    .find(|reason| reason.as_str() == line.reason)
    .ok_or_else(|| unreadable("its reason is none"))?;
    letter.error = line.error.map(|text| Error::new(ErrorKind::Backend, text));
    Ok(letter)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 0xF)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
