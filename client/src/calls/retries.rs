use crate::error::Error;
use crate::transport::link::Link;
use crate::transport::session::Session;
use emberd_protocol::{ErrorCode, Event};
use std::time::Instant;

/// How many deaths of the connection a request survives. Beyond that it may be their cause.
const MAX_DEATHS: u32 = 3;

/// Whether an interrupted request is repeated.
#[derive(Debug)]
pub(super) struct Retries<'a> {
    link: &'a Link,
    is_repeatable: bool,
    deaths: u32,
    until: Option<Instant>,
}

impl<'a> Retries<'a> {
    pub(super) fn new(link: &'a Link, is_safe: bool) -> Self {
        let is_repeatable = is_safe && link.options().repeats;
        Self { link, is_repeatable, deaths: 0, until: None }
    }

    /// The caller has seen an event. After a piece of a text the request is not repeated: its text
    /// would begin again.
    pub(super) fn note(&mut self, event: &Event) {
        if matches!(event, Event::Piece { .. }) {
            self.is_repeatable = false;
        }
    }

    /// After a failure: whether to send the request again, in the next session.
    pub(super) fn allow(&mut self, session: &Session, error: &Error) -> bool {
        if !self.is_repeatable {
            return false;
        }
        match error {
            Error::Transport(_) => {
                self.deaths += 1;
                if self.deaths > MAX_DEATHS {
                    return false;
                }
            }
            Error::Daemon(failure) if failure.code == ErrorCode::ShuttingDown => {
                self.link.leave(session);
            }
            Error::Connect(_) | Error::Protocol(_) | Error::Daemon(_) => return false,
        }
        let now = Instant::now();
        match self.until {
            Some(until) => now < until,
            None => {
                self.until = Some(now + self.link.options().reconnect_patience);
                true
            }
        }
    }
}
