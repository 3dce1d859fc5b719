//! Single values: written, read, removed.

use super::Subject;
use super::subject::{key, noise};
use crate::key::{CacheKey, KeyPart};
use crate::value::{DeleteStatus, Raw};

/// A value can be read as soon as its write has returned.
pub async fn what_is_written_is_read(subject: Subject) {
    subject.write(&key(1), "one").await;
    subject.write(&key(2), "two").await;
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"one"[..]));
    assert_eq!(subject.read(&key(2)).await.as_deref(), Some(&b"two"[..]));
}

/// A key that was never written reads as absent, not as an error.
pub async fn an_absent_key_has_no_value(subject: Subject) {
    assert_eq!(subject.read(&key("never written")).await, None);
    subject.write(&key(1), "one").await;
    assert_eq!(subject.read(&key("never written")).await, None);
}

/// A write replaces, whether the new value is longer or shorter.
pub async fn the_last_write_wins(subject: Subject) {
    for value in ["first", "a second and longer value", "3"] {
        subject.write(&key(1), value).await;
        assert_eq!(subject.read(&key(1)).await.as_deref(), Some(value.as_bytes()));
    }
}

/// A removed value is gone for reads, and its key can be written again.
pub async fn a_removed_value_is_gone(subject: Subject) {
    subject.write(&key(1), "one").await;
    subject.write(&key(2), "two").await;
    subject.remove(&key(1)).await;
    assert_eq!(subject.read(&key(1)).await, None);
    assert!(subject.read(&key(2)).await.is_some(), "another key went with it");
    subject.write(&key(1), "again").await;
    assert_eq!(subject.read(&key(1)).await.as_deref(), Some(&b"again"[..]));
}

/// A removal reports what it found.
pub async fn a_removal_tells_whether_there_was_a_value(subject: Subject) {
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Missing);
    subject.write(&key(1), "one").await;
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Deleted(1));
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Missing);
}

/// No bytes are a value too.
pub async fn an_empty_value_is_a_value(subject: Subject) {
    subject.write(&key(1), Raw::new()).await;
    assert_eq!(subject.read(&key(1)).await, Some(Raw::new()));
    assert_eq!(subject.remove(&key(1)).await, DeleteStatus::Deleted(1));
    assert_eq!(subject.read(&key(1)).await, None);
}

/// A large value comes back whole.
pub async fn four_megabytes_come_back(subject: Subject) {
    let value = noise(1, 4 << 20);
    subject.write(&key(1), value.clone()).await;
    assert!(subject.read(&key(1)).await == Some(value), "4 MiB came back as something else");
}

/// A store interprets nothing: damaged, foreign and hostile bytes are returned as they are, for the engine to judge.
pub async fn bytes_come_back_as_they_are(subject: Subject) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 8] = [
        &every_byte,
        b"\0",
        b"\r\n \t",
        b"\xFF\xFE not UTF-8 \xC3\x28",
        b"\xC7T\x01\x00 a frame cut short",
        b"\x1F\x8B\x08\x00 nor gzip",
        b"\x28\xB5\x2F\xFD\xFF\xFF\xFF\xFF",
        b"*3\r\n$3\r\nSET\r\n",
    ];
    for (id, value) in values.into_iter().enumerate() {
        subject.write(&key(id), value.to_vec()).await;
    }
    for (id, value) in values.into_iter().enumerate() {
        assert_eq!(subject.read(&key(id)).await.as_deref(), Some(value));
    }
}

/// Different keys are different entries, whatever their parts are made of.
pub async fn keys_of_any_text_are_kept_apart(subject: Subject) {
    let long = "long ".repeat(200);
    let texts = [
        "",
        " ",
        "a",
        "A",
        "aa",
        "a/b",
        "../a",
        "a\\b",
        "a:b",
        "a&b",
        "a=b",
        "%61",
        "%",
        "*",
        "?",
        "[a]",
        "a\0",
        "\n",
        "ä",
        "a\u{308}",
        "日本語",
        "🦀",
        "\u{202E}rtl",
        "'; DROP TABLE a; --",
        "CON",
        ".",
        "~",
        &long,
    ];
    let part = |text: &str| {
        [
            CacheKey::new("contract", 1, [KeyPart::new("id", Some(text.to_owned()))]),
            CacheKey::new("contract", 1, [KeyPart::flag(text.to_owned())]),
            CacheKey::new(&format!("contract {text}"), 1, []),
            CacheKey::new("contract", 2, [KeyPart::new("id", Some(text.to_owned()))]),
        ]
    };
    let keys: Vec<CacheKey> = texts.into_iter().flat_map(part).collect();
    for (value, key) in keys.iter().enumerate() {
        subject.write(key, value.to_string()).await;
    }
    for (value, key) in keys.iter().enumerate() {
        let found = subject.read(key).await;
        assert_eq!(found.as_deref(), Some(value.to_string().as_bytes()), "under `{key}`");
    }
    for key in &keys {
        assert_eq!(subject.remove(key).await, DeleteStatus::Deleted(1), "of `{key}`");
    }
}
