//! The way to the daemon: the present connection, and the next one after a restart.

use crate::builder::Options;
use crate::connection::Connection;
use crate::error::{ConnectError, Error};
use crate::held::Held;
use crate::lock;
use crate::opening::{RESTART_PAUSE, is_absent, open_again};
use emberd_protocol::{ErrorCode, Event};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// A request under which the connection died so often may be the cause.
const MAX_DEATHS: u32 = 3;

/// Shared by all clones of a client, and by its leases.
#[derive(Debug)]
pub(crate) struct Line {
    path: PathBuf,
    options: Options,
    /// Never held for long: droppers take it.
    present: Mutex<Present>,
    /// Held by the thread that connects again: since when nobody was there.
    absent_since: Mutex<Option<Instant>>,
    starter: Starter,
    leases: Mutex<Leases>,
}

/// The leases of all who hold some, and the connection on which they were last taken again.
#[derive(Debug, Default)]
struct Leases {
    held: Vec<Weak<Held>>,
    generation: u64,
}

/// What a new connection needs before it is used.
pub(crate) type Starter = fn(&Arc<Connection>) -> io::Result<()>;

#[derive(Debug)]
struct Present {
    link: Link,
    /// The daemon has said that it stops: what is under way may end, nothing new is asked.
    is_left: bool,
}

/// The present connection, and which one it is: leases belong to the one that took them.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: Arc<Connection>,
    pub(crate) generation: u64,
}

impl Line {
    pub(crate) fn new(
        path: PathBuf,
        options: Options,
        starter: Starter,
        connection: Arc<Connection>,
    ) -> Result<Self, ConnectError> {
        start(starter, &connection)?;
        let present = Present { link: Link { connection, generation: 0 }, is_left: false };
        let (present, absent_since) = (Mutex::new(present), Mutex::default());
        Ok(Self { path, options, present, absent_since, starter, leases: Mutex::default() })
    }

    /// The present connection, made anew if the last one died (or belongs to the process that
    /// this one was forked from). Waits for a daemon that is on its way back, until nobody was
    /// there for as long as patience lasts; from then on each call tries once.
    pub(crate) fn link(&self) -> Result<Link, Error> {
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        let mut absent_since = lock(&self.absent_since);
        // Another thread may have done it meanwhile.
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        if lock(&self.present).is_left {
            // Whoever has just said that it stops would say it again.
            std::thread::sleep(RESTART_PAUSE);
        }
        let since = *absent_since.get_or_insert_with(Instant::now);
        let until = since + self.options.reconnect_patience;
        let connection = match open_again(&self.path, &self.options, until) {
            Ok(connection) => connection,
            Err(error) => {
                if !is_absent(&error) {
                    *absent_since = None;
                }
                return Err(error.into());
            }
        };
        start(self.starter, &connection)?;
        *absent_since = None;
        let mut present = lock(&self.present);
        let generation = present.link.generation + 1;
        *present = Present { link: Link { connection, generation }, is_left: false };
        Ok(present.link.clone())
    }

    /// Somebody holds a lease.
    pub(crate) fn note(&self, held: &Arc<Held>) {
        let mut leases = lock(&self.leases);
        if leases.held.len() == leases.held.capacity() {
            // Before it grows: those that have gone make room.
            leases.held.retain(|held| held.strong_count() > 0);
        }
        leases.held.push(Arc::downgrade(held));
    }

    /// After a restart: asks for the leases that belong to the connection that died, once for each
    /// new one, so that their models are kept before anybody uses them. `but` is asked for by whoever
    /// uses it.
    pub(crate) fn take_again(&self, link: &Link, but: Option<&Arc<Held>>) {
        let held: Vec<Arc<Held>> = {
            let mut leases = lock(&self.leases);
            if leases.generation >= link.generation {
                return;
            }
            leases.generation = link.generation;
            leases.held.iter().filter_map(Weak::upgrade).collect()
        };
        // Outside of the lock: one that was dropped meanwhile goes with this list.
        for held in held.iter().filter(|held| !but.is_some_and(|but| Arc::ptr_eq(but, held))) {
            held.take_again_later(link);
        }
    }

    pub(crate) fn usable(&self) -> Option<Link> {
        let present = lock(&self.present);
        let is_usable = !present.is_left && present.link.connection.is_usable();
        is_usable.then(|| present.link.clone())
    }

    /// Notices a daemon that has gone while nobody read. What is asked only once should not be lost
    /// to a connection of which the end could be known.
    pub(crate) fn look(&self) {
        if let Some(Link { connection, .. }) = self.usable() {
            connection.look();
        }
    }

    /// The connection of a generation, if it is still the present one.
    pub(crate) fn link_of(&self, generation: u64) -> Option<Link> {
        let present = lock(&self.present);
        let is_present =
            present.link.generation == generation && present.link.connection.is_usable();
        is_present.then(|| present.link.clone())
    }

    /// Nothing new is asked of a daemon that stops.
    fn leave(&self, generation: u64) {
        let mut present = lock(&self.present);
        if present.link.generation == generation {
            present.is_left = true;
        }
    }
}

fn start(starter: Starter, connection: &Arc<Connection>) -> Result<(), ConnectError> {
    starter(connection).map_err(|source| {
        let path = connection.path.clone();
        ConnectError::Socket { path, source }
    })
}

/// Whether a request that was cut off is asked once more.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    line: &'a Line,
    is_repeatable: bool,
    deaths: u32,
    until: Option<Instant>,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(line: &'a Line, is_safe: bool) -> Self {
        let is_repeatable = is_safe && line.options.repeats;
        Self { line, is_repeatable, deaths: 0, until: None }
    }

    /// Something was shown. A text of which pieces were shown is not made again: it would begin anew.
    pub(crate) fn note(&mut self, event: &Event) {
        if matches!(event, Event::Piece { .. }) {
            self.is_repeatable = false;
        }
    }

    /// After a failure on a connection: whether to ask again on the next one.
    pub(crate) fn again(&mut self, link: &Link, error: &Error) -> bool {
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
                self.line.leave(link.generation);
            }
            _ => return false,
        }
        let now = Instant::now();
        match self.until {
            Some(until) => now < until,
            None => {
                self.until = Some(now + self.line.options.reconnect_patience);
                true
            }
        }
    }
}
