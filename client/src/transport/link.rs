//! The link to the daemon: the current session, and the next one after a restart.

use super::connect::{pause, reconnect};
use super::renewals::{Renewable, Renewals};
use super::session::Session;
use crate::error::{ConnectError, Error};
use crate::options::ClientOptions;
use crate::sync::lock;
use crate::wire::connection::Connection;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// Shared by all clones of a client, and by its leases.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
    options: ClientOptions,
    /// Never held for long: drops lock it.
    current: Mutex<Current>,
    /// Locked by the thread that connects again. The time since when no daemon was there.
    absent_since: Mutex<Option<Instant>>,
    set_up: SetUp,
    renewals: Renewals,
}

/// Prepares a new connection for its callers.
pub(crate) type SetUp = fn(&Arc<Connection>) -> io::Result<()>;

impl Link {
    pub(crate) fn new(
        path: PathBuf,
        options: ClientOptions,
        set_up: SetUp,
        connection: Arc<Connection>,
    ) -> Result<Self, ConnectError> {
        prepare(set_up, &connection)?;
        let session = Session { connection, generation: 0 };
        let current = Mutex::new(Current { session, is_stopping: false });
        let (absent_since, renewals) = (Mutex::default(), Renewals::default());
        Ok(Self { path, options, current, absent_since, set_up, renewals })
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// The current session, if it can take requests.
    pub(crate) fn usable(&self) -> Option<Session> {
        let current = lock(&self.current);
        let is_usable = !current.is_stopping && current.session.connection.is_usable();
        is_usable.then(|| current.session.clone())
    }

    /// The current session, or a new one if the last one died (or belongs to the process that this
    /// one was forked from). Blocks while a daemon restarts, until none was there for as long as
    /// the patience lasts; from then on each call tries once.
    pub(crate) fn session(&self) -> Result<Session, Error> {
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        let mut absent_since = lock(&self.absent_since);
        // Another thread may have connected in the meantime.
        if let Some(session) = self.usable() {
            return Ok(session);
        }
        if lock(&self.current).is_stopping {
            // It would refuse, and a daemon that welcomes and then stops would be asked in a tight
            // loop. Its end has no signal: its connection may stay open, for requests in flight.
            pause();
        }
        let since = *absent_since.get_or_insert_with(Instant::now);
        let until = since + self.options.reconnect_patience;
        let connection = match reconnect(&self.path, &self.options, until) {
            Ok(connection) => connection,
            Err(error) => {
                if !error.may_be_restarting() {
                    *absent_since = None;
                }
                return Err(error.into());
            }
        };
        prepare(self.set_up, &connection)?;
        *absent_since = None;
        let mut current = lock(&self.current);
        let generation = current.session.generation + 1;
        *current = Current { session: Session { connection, generation }, is_stopping: false };
        Ok(current.session.clone())
    }

    /// The session of a generation, if it is alive and still the current one.
    pub(crate) fn session_of(&self, generation: u64) -> Option<Session> {
        let current = lock(&self.current);
        let is_current =
            current.session.generation == generation && current.session.connection.is_usable();
        is_current.then(|| current.session.clone())
    }

    /// Notices that the daemon has hung up while nobody read. A request that is sent only once
    /// should not be lost to a connection whose end could be known.
    pub(crate) fn check_hangup(&self) {
        if let Some(Session { connection, .. }) = self.usable() {
            connection.check_hangup();
        }
    }

    /// The daemon of a session has said that it is stopping: the next request goes to the next one.
    pub(crate) fn leave(&self, session: &Session) {
        let mut current = lock(&self.current);
        if current.session.generation == session.generation {
            current.is_stopping = true;
        }
    }

    /// Adds a lease to those that are renewed after a restart.
    pub(crate) fn add_lease(&self, lease: Weak<dyn Renewable>) {
        self.renewals.add(lease);
    }

    /// After a restart: renews all leases but the one that its user is about to renew.
    pub(crate) fn renew_leases(&self, session: &Session, except: Option<&Arc<dyn Renewable>>) {
        self.renewals.renew(session, except);
    }
}

#[derive(Debug)]
struct Current {
    session: Session,
    /// The daemon has said that it is stopping: it completes what is in flight, and takes nothing
    /// new.
    is_stopping: bool,
}

fn prepare(set_up: SetUp, connection: &Arc<Connection>) -> Result<(), ConnectError> {
    set_up(connection).map_err(|source| {
        let path = connection.path().to_owned();
        ConnectError::Socket { path, source }
    })
}
