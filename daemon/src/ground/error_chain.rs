//! An error with its causes as one line of text.

use std::error::Error;

/// An error and its causes, in one line.
#[must_use]
pub(crate) fn chain(error: &dyn Error) -> String {
    // Some libraries append a backtrace to the message.
    let first_line = |error: &dyn Error| error.to_string().lines().next().unwrap_or("").to_owned();
    let mut text = first_line(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = first_line(error);
        // A transparent wrapper has the same message as its cause.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
