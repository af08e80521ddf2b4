//! A daemon of the user's own, started where none runs.
//!
//! Who serves a path is decided by the daemon itself: it holds a lock for its life, and a second
//! one gives up. The lock here only keeps many clients that find nobody from starting as many
//! programs.

use crate::builder::Options;
use crate::connection::Connection;
use crate::error::ConnectError;
use crate::lookup::find;
use crate::opening::open;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use crate::lookup::Places;

/// The state of things is looked at again after this time.
const PAUSE: Duration = Duration::from_millis(10);

/// A program is started again after this time where another daemon had the lock.
const AGAIN: Duration = Duration::from_millis(200);

/// The exit code of `emberd serve` where another daemon has the socket's lock.
const IN_USE: i32 = 5;

/// Of what a failed program said, this much of the end is told.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// How a daemon is started; see [`crate::ClientBuilder::connect_or_start`].
#[derive(Debug, Clone)]
pub struct StartOptions {
    pub(crate) program: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) patience: Duration,
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
    /// The program. By default `$EMBERD_BIN`; else `emberd` beside the program that runs; else
    /// `emberd` in `$PATH`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// The socket; `$EMBERD_SOCKET`, else the user's own, by default.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// One more argument behind `serve --detach --socket PATH`, such as `--settings`, then its
    /// file.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// How long all of it may take: waiting for another starter, starting, the first answer. 30
    /// seconds by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(Duration::from_secs(365 * 24 * 60 * 60));
        self
    }
}

/// Why there is still no daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no program to start.
    #[error(
        "no emberd program to start, looked for {}: build it with `cargo build --release` and put \
         it into $PATH, or set $EMBERD_BIN",
        list(looked_for)
    )]
    NotFound {
        /// Where it would have been.
        looked_for: Vec<PathBuf>,
    },
    /// The program ended without a daemon.
    #[error("{} did not start a daemon ({status}): {message}", program.display())]
    Failed {
        /// Which.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said: the end of its standard error.
        message: String,
    },
    /// Nobody answered in time.
    #[error("no daemon answered at {} within {after:?} of starting one", path.display())]
    TookTooLong {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The system refused a file or a process.
    #[error("cannot start a daemon at {}: {what}: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// Connects, and starts a daemon first if nobody answers.
pub(crate) fn open_or_start(
    path: &Path,
    options: &Options,
    start: StartOptions,
    places: &Places,
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
    let program = find(places)?;
    loop {
        let status = attempt.run(&program, &turn.0)?;
        // Whatever came of it: somebody else may have started one meanwhile.
        if let Some(connection) = attempt.connect()? {
            return Ok(connection);
        }
        if !status.success() && status.code() != Some(IN_USE) {
            let message = message(&turn.0);
            return Err(StartError::Failed { program, status, message }.into());
        }
        // One that is ending holds the socket's lock until its work is done, and takes nobody in:
        // after it there is none, and it is tried again.
        let again = Instant::now() + AGAIN;
        while Instant::now() < again {
            if let Some(connection) = attempt.connect()? {
                return Ok(connection);
            }
            attempt.pause()?;
        }
    }
}

/// The right to start one. The lock is given back by itself, and not with the file: a process that
/// another thread forks just then has the file open, too, until it runs its own program.
struct Turn(File);

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing the file would do it a moment later.
        let _ = self.0.unlock();
    }
}

struct Attempt<'a> {
    path: &'a Path,
    options: &'a Options,
    start: StartOptions,
    until: Instant,
}

impl Attempt<'_> {
    /// Connects, if anybody is there.
    fn connect(&self) -> Result<Option<Arc<Connection>>, ConnectError> {
        match open(self.path, self.options) {
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
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        let path = self.path.to_owned();
        move |source| StartError::System { path, what, source }
    }

    fn make_folder(&self) -> Result<(), StartError> {
        match self.path.parent() {
            // A folder that is there keeps its mode.
            Some(folder) if !folder.as_os_str().is_empty() => DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(self.failed("its folder cannot be made")),
            _ => Ok(()),
        }
    }

    /// Waits until nobody else starts one. Whoever did may have left a daemon.
    fn take_turn(&self) -> Result<(Turn, Option<Arc<Connection>>), ConnectError> {
        let failed = |error| self.failed("the file beside it cannot be locked")(error);
        let mut name = self.path.as_os_str().to_owned();
        name.push(".start");
        // Never removed: a lock on a file that has lost its name locks nobody out.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(PathBuf::from(name))
            .map_err(failed)?;
        loop {
            let is_mine = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(failed(error).into()),
            };
            // Asked with the lock in hand, or the daemon could have come between.
            let connection = self.connect()?;
            if is_mine || connection.is_some() {
                return Ok((Turn(file), connection));
            }
            self.pause()?;
        }
    }

    /// Runs the program until it has put a daemon into the background, or has failed.
    fn run(&self, program: &Path, file: &File) -> Result<ExitStatus, StartError> {
        file.set_len(0).map_err(self.failed("the file beside it cannot be emptied"))?;
        // A file, and not a pipe: the daemon may keep it open. Opened once more, or the daemon
        // would keep the lock, too.
        let mut name = self.path.as_os_str().to_owned();
        name.push(".start");
        let said = OpenOptions::new()
            .append(true)
            .open(PathBuf::from(name))
            .map_err(self.failed("the file beside it cannot be opened"))?;
        let mut child = Command::new(program)
            .args(["serve", "--detach", "--socket"])
            .arg(self.path)
            .args(&self.start.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(self.failed("the program cannot be run"))?;
        loop {
            match child.try_wait().map_err(self.failed("the program cannot be waited for"))? {
                Some(status) => return Ok(status),
                None => {
                    if let Err(error) = self.pause() {
                        // It has ended by now, or is not wanted any more; none stays a zombie.
                        let _ = child.kill();
                        let _ = child.wait();
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// The end of what the program said.
fn message(mut file: &File) -> String {
    let mut bytes = Vec::new();
    let start = file.metadata().map_or(0, |data| data.len()).saturating_sub(MAX_MESSAGE_BYTES);
    let read = file
        .seek(SeekFrom::Start(start))
        .and_then(|_| file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "it did not say why".to_owned(),
    }
}
