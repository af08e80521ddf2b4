//! An error and its causes as one line.

use std::error::Error;

/// The message of an error followed by those of its causes, separated by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    // Some libraries print a backtrace below their message.
    let first_line = |error: &dyn Error| error.to_string().lines().next().unwrap_or("").to_owned();
    let mut text = first_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = first_line(error);
        // A transparent wrapper has the message of its cause.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
