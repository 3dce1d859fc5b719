//! What the store reports, as the engine's errors. Nothing here repeats what a command was sent with.

use redis::{RedisError, ServerError, ServerErrorKind, Value};

use crate::error::{Error, ErrorKind};

/// A failure of the connection or of the redis crate.
pub(super) fn connection(error: &RedisError) -> Error {
    let kind = if error.is_io_error() { ErrorKind::Unavailable } else { ErrorKind::Backend };
    Error::new(kind, format!("Redis: {}", text(error)))
}

pub(super) fn text(error: &RedisError) -> String {
    shorten(&error.to_string())
}

/// A text without the arguments that a server may repeat ("unknown command, with args beginning with").
pub(super) fn shorten(text: &str) -> String {
    let end = text.find(", with args beginning with").unwrap_or(text.len());
    text[..end].chars().take(300).collect()
}

/// The store's refusal of one command.
pub(super) fn refusal(error: &ServerError) -> Error {
    let details = shorten(error.details().unwrap_or_default());
    Error::new(ErrorKind::Backend, format!("Redis refused: {} {details}", error.code()))
}

/// Whether it is a refusal for want of memory, also of a command inside a script.
pub(super) fn is_out_of_memory(error: &Error) -> bool {
    error.message().contains("OOM ")
}

/// What stands under the key is not a string.
pub(super) fn is_wrong_type(error: &ServerError) -> bool {
    error.code() == "WRONGTYPE"
}

/// For a wrong type: as much of a miss as bytes that nobody can decode.
pub(super) fn wrong_type() -> Error {
    Error::new(ErrorKind::Decode, "the key holds another type of Redis value; the next write replaces it")
}

pub(super) fn is_unknown_script(error: &ServerError) -> bool {
    error.kind() == Some(ServerErrorKind::NoScript)
}

/// What in an answer says that this connection leads to the wrong server, or in the wrong name: a new one may not.
/// Scripts that answer for each key have it inside their answer.
pub(super) fn that_wants_new_connection(answer: &Value) -> Option<&ServerError> {
    match answer {
        Value::ServerError(error) if wants_new_connection(error) => Some(error),
        Value::Array(answers) => answers.iter().find_map(that_wants_new_connection),
        _ => None,
    }
}

fn wants_new_connection(error: &ServerError) -> bool {
    error.kind() == Some(ServerErrorKind::ReadOnly)
        || matches!(error.code(), "NOAUTH" | "WRONGPASS")
        // Redis 6, of a command inside a script: "@user_script: 1: -READONLY You can't write".
        || (error.code().starts_with("@user_script")
            && error.details().is_some_and(|details| details.contains("-READONLY ")))
}

pub(super) fn unexpected(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("Redis answered {what} in a form that was not expected"))
}
