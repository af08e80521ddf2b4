//! Starts a daemon of the user's own if none runs.
//!
//! The daemon itself ensures that only one serves a path: it holds a lock as long as it runs, and a
//! second daemon gives up. The lock here only keeps clients that find no daemon at the same time
//! from starting a program each.
//!
//! The kernel has no signal for what is awaited here: a lock cannot be awaited with a time limit,
//! nor a child (without taking over the program's SIGCHLD), nor a socket that does not exist yet.
//! So all of it is polled, until the patience ends.

use super::connect::connect;
use super::find_program::ProgramSearch;
use crate::error::{ConnectError, StartError};
use crate::options::ClientOptions;
use crate::wire::connection::Connection;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time between two looks at the lock, the child or the socket.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The time until the program is started again if another daemon had the socket's lock.
const RESTART_INTERVAL: Duration = Duration::from_millis(200);

/// The exit code of `emberd serve` if another daemon has the socket's lock.
const IN_USE: i32 = 5;

/// How much of a failed program's standard error goes into the error, counted from its end.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// How a daemon is started; see [`crate::ClientBuilder::connect_or_start`].
#[derive(Debug, Clone)]
pub struct StartOptions {
    pub(crate) program: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    arguments: Vec<OsString>,
    patience: Duration,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            program: None,
            socket: None,
            arguments: Vec::new(),
            patience: Duration::from_secs(30),
        }
    }
}

impl StartOptions {
    /// The program. By default `$EMBERD_BIN`; else `emberd` beside the running program; else `emberd`
    /// in `$PATH`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// The socket. By default `$EMBERD_SOCKET`; else the user's own.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Adds an argument after `serve --detach --socket PATH`: `--settings`, say, and then its file.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// How long connecting may take in all: waiting for another client that starts a daemon,
    /// starting one, and its first response. 30 seconds by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(Duration::from_secs(365 * 24 * 60 * 60));
        self
    }
}

/// Connects, and starts a daemon first if none answers.
pub(crate) fn connect_or_start(
    path: &Path,
    options: &ClientOptions,
    start: StartOptions,
    search: &ProgramSearch,
) -> Result<Arc<Connection>, ConnectError> {
    let until = Instant::now() + start.patience;
    let attempt = Attempt { path, options, start, until };
    if let Some(connection) = attempt.connect()? {
        return Ok(connection);
    }
    attempt.make_folder()?;
    let (turn, connection) = attempt.take_turn()?;
    if let Some(connection) = connection {
        return Ok(connection);
    }
    let program = search.find()?;
    loop {
        let status = attempt.run(&program, &turn.0)?;
        // However it ended: another client may have started a daemon in the meantime.
        if let Some(connection) = attempt.connect()? {
            return Ok(connection);
        }
        if !status.success() && status.code() != Some(IN_USE) {
            let message = last_words(&turn.0);
            return Err(StartError::Failed { program, status, message }.into());
        }
        // A daemon that is stopping holds the socket's lock until its work is done, and welcomes
        // nobody. After that the path has no daemon, and the program is started again.
        let again = Instant::now() + RESTART_INTERVAL;
        while Instant::now() < again {
            if let Some(connection) = attempt.connect()? {
                return Ok(connection);
            }
            attempt.pause()?;
        }
    }
}

/// The right to start a daemon: a locked file. Dropping it unlocks the file explicitly, since closing
/// may not: a process that another thread has just forked has the file open, too, until it executes
/// its own program.
struct Turn(File);

impl Drop for Turn {
    fn drop(&mut self) {
        // A lock that cannot be released ends with the file.
        let _ = self.0.unlock();
    }
}

struct Attempt<'a> {
    path: &'a Path,
    options: &'a ClientOptions,
    start: StartOptions,
    until: Instant,
}

impl Attempt<'_> {
    /// Connects, if a daemon is there.
    fn connect(&self) -> Result<Option<Arc<Connection>>, ConnectError> {
        match connect(self.path, self.options) {
            Ok(connection) => Ok(Some(connection)),
            Err(ConnectError::NoDaemon { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pause(&self) -> Result<(), StartError> {
        if Instant::now() >= self.until {
            let (path, after) = (self.path.to_owned(), self.start.patience);
            return Err(StartError::TookTooLong { path, after });
        }
        std::thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    /// The file beside the socket: the lock, and the program's standard error.
    fn start_file(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".start");
        PathBuf::from(name)
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        let path = self.path.to_owned();
        move |source| StartError::System { path, what, source }
    }

    fn make_folder(&self) -> Result<(), StartError> {
        match self.path.parent() {
            // An existing folder keeps its mode.
            Some(folder) if !folder.as_os_str().is_empty() => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(self.failed("its folder cannot be created")),
            _ => Ok(()),
        }
    }

    /// Waits until no other client is starting a daemon, or one is there.
    fn take_turn(&self) -> Result<(Turn, Option<Arc<Connection>>), ConnectError> {
        let failed = |error| self.failed("its .start file cannot be locked")(error);
        // Never removed: a lock on a file without a name would lock nobody out.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.start_file())
            .map_err(failed)?;
        loop {
            let is_mine = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(failed(error).into()),
            };
            // With the lock in hand: another client may have started a daemon just before.
            let connection = self.connect()?;
            if is_mine || connection.is_some() {
                return Ok((Turn(file), connection));
            }
            self.pause()?;
        }
    }

    /// Runs the program, which ends when its daemon serves in the background, or fails.
    fn run(&self, program: &Path, file: &File) -> Result<ExitStatus, StartError> {
        file.set_len(0).map_err(self.failed("its .start file cannot be emptied"))?;
        // A file instead of a pipe, since the daemon may keep it open. Opened once more, so that the
        // daemon does not keep the lock.
        let stderr = OpenOptions::new()
            .append(true)
            .open(self.start_file())
            .map_err(self.failed("its .start file cannot be opened"))?;
        let mut child = Command::new(program)
            .args(["serve", "--detach", "--socket"])
            .arg(self.path)
            .args(&self.start.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(self.failed("the program cannot be run"))?;
        loop {
            match child.try_wait().map_err(self.failed("the program cannot be waited for"))? {
                Some(status) => return Ok(status),
                None => {
                    if let Err(error) = self.pause() {
                        // Whether or not it has just ended: no zombie stays.
                        let _ = child.kill();
                        let _ = child.wait();
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// The end of the program's standard error.
fn last_words(mut file: &File) -> String {
    let mut bytes = Vec::new();
    let start = file.metadata().map_or(0, |data| data.len()).saturating_sub(MAX_MESSAGE_BYTES);
    let read = file
        .seek(SeekFrom::Start(start))
        .and_then(|_| file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "it gave no reason".to_owned(),
    }
}
