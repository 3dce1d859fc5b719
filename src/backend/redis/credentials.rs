//! Who logs in: a user and a password, asked for anew at each connection.

use std::fmt;

use crate::runtime::BoxFuture;

/// A user and a password of the store. Neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(super) username: Option<String>,
    pub(super) password: String,
}

impl Credentials {
    /// The default user's password.
    pub fn password(password: impl Into<String>) -> Self {
        Self { username: None, password: password.into() }
    }

    /// An ACL user and its password.
    pub fn user(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: Some(username.into()), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Where credentials come from. Asked at each connection, so that a rotated password needs no restart.
///
/// Any `Fn() -> Credentials` is one; implement it for a source that must be waited for.
///
/// ```
/// use tierkeep::backend::{Credentials, CredentialsProvider};
///
/// fn takes(_: impl CredentialsProvider) {}
/// takes(|| Credentials::user("cache", std::env::var("REDIS_PASSWORD").unwrap_or_default()));
/// ```
pub trait CredentialsProvider: Send + Sync + 'static {
    /// The credentials to log in with now. Counts towards the connection's timeout. The message of an error becomes
    /// visible in the tier's errors: it must not tell a secret.
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, String>>;
}

impl<F: Fn() -> Credentials + Send + Sync + 'static> CredentialsProvider for F {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, String>> {
        let credentials = self();
        Box::pin(async move { Ok(credentials) })
    }
}

/// The same every time.
pub(super) struct Fixed(pub(super) Credentials);

impl CredentialsProvider for Fixed {
    fn credentials(&self) -> BoxFuture<'_, Result<Credentials, String>> {
        let credentials = self.0.clone();
        Box::pin(async move { Ok(credentials) })
    }
}
