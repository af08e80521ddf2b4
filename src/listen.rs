//! The socket that the daemon listens on: one that systemd opened, or its own.
//!
//! A lock on a file beside its own socket is held as long as the daemon runs. The lock alone decides
//! which daemon serves a path, never the state of the socket: a daemon that holds the lock and finds a
//! socket that nobody answers knows that another daemon died there, and replaces it.

use emberd_daemon::settings::AccessGroup;
use emberd_protocol::{SocketPaths, default_socket_paths};
use interprocess::local_socket::tokio::Listener;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UdsListener;
use listenfd::ListenFd;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, chown};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("a daemon already serves {}{}: use it, or stop it first", path.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, pid: Option<String> },
    #[error("no socket path: set XDG_RUNTIME_DIR, or pass --socket PATH")]
    NoPath,
    #[error("cannot listen on {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot take the socket that systemd opened")]
    Inherited(#[source] io::Error),
}

/// Linux's limit for a socket path (`sun_path` without its terminating zero).
const MAX_PATH_BYTES: usize = 107;

/// A listening socket and its lock.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    /// The path of the daemon's own socket.
    pub(crate) path: Option<PathBuf>,
    listener: Option<Listener>,
    _lock: Option<Flock<File>>,
}

impl BoundSocket {
    /// The listener. `None` after the first call.
    pub(crate) fn take_listener(&mut self) -> Option<Listener> {
        self.listener.take()
    }
}

/// The path to serve: the given one, else the user's runtime folder, or for root the machine's.
pub(crate) fn default_path(explicit: Option<PathBuf>) -> Result<PathBuf, ListenError> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let has_home = explicit.is_some() || runtime_dir.is_some();
    if !has_home && !nix::unistd::geteuid().is_root() {
        return Err(ListenError::NoPath);
    }
    let mut paths = default_socket_paths(&SocketPaths { explicit, runtime_dir });
    Ok(paths.swap_remove(0))
}

/// Binds the socket, or takes over the one that systemd opened. Needs a tokio runtime.
pub(crate) fn open(
    path: Option<PathBuf>,
    group: Option<&AccessGroup>,
) -> Result<BoundSocket, ListenError> {
    if let Some(listener) = inherited()? {
        return Ok(BoundSocket { path: None, listener: Some(listener), _lock: None });
    }
    let path = default_path(path)?;
    let failed = |source| ListenError::Socket { path: path.clone(), source };
    if path.as_os_str().len() > MAX_PATH_BYTES {
        let message = format!(
            "its path has {} bytes, and a socket path has at most {MAX_PATH_BYTES}",
            path.as_os_str().len()
        );
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, message)));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder, if group.is_some() { 0o755 } else { 0o700 }).map_err(failed)?;
    }
    check_is_socket(&path)?;
    let lock = lock(&path)?;
    remove_leftover(&path)?;
    let name = path.as_path().to_fs_name::<GenericFilePath>().map_err(failed)?;
    let listener = ListenerOptions::new().name(name).mode(0o600).create_tokio().map_err(failed)?;
    if let Some(group) = group {
        let gid = Some(Gid::from_raw(group.gid));
        chown(&path, None, gid).map_err(|error| failed(error.into()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    }
    Ok(BoundSocket { path: Some(path), listener: Some(listener), _lock: Some(lock) })
}

/// Makes a folder and its missing parents, with this mode whatever the umask is.
fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_folder(above, mode)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // Another process made it first. If it is a file, binding the socket fails.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
    }
}

/// Fails if the path exists and is not a socket.
fn check_is_socket(path: &Path) -> Result<(), ListenError> {
    let is_other = fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket());
    if is_other {
        return Err(refused(
            path,
            "the path exists and is not a socket: remove it, or pass another --socket".into(),
        ));
    }
    Ok(())
}

fn refused(path: &Path, message: String) -> ListenError {
    let source = io::Error::new(io::ErrorKind::AlreadyExists, message);
    ListenError::Socket { path: path.to_owned(), source }
}

fn inherited() -> Result<Option<Listener>, ListenError> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    let listener = passed.take_unix_listener(0).map_err(ListenError::Inherited)?;
    let Some(listener) = listener else { return Ok(None) };
    let listener =
        UdsListener::try_from(OwnedFd::from(listener)).map_err(ListenError::Inherited)?;
    Ok(Some(listener.into()))
}

/// Takes the path's lock, or says which process holds it.
fn lock(path: &Path) -> Result<Flock<File>, ListenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let failed = |source| ListenError::Socket { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&lock_path)
        .map_err(|source| ListenError::Lock { path: lock_path.clone(), source })?;
    let Some(pid) = process_in(&file).map_err(failed)? else {
        return Err(refused(
            &lock_path,
            "it is not a lock file of emberd: move it away, or pass another --socket".into(),
        ));
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Only for people: the lock decides, not the process id.
            lock.set_len(0).map_err(failed)?;
            writeln!(lock, "{}", std::process::id()).map_err(failed)?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EAGAIN)) => {
            let pid = Some(pid).filter(|pid| !pid.is_empty());
            Err(ListenError::InUse { path: path.to_owned(), pid })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}

/// The process id in a lock file; empty in a new one, `None` if the file is not a lock file.
fn process_in(file: &File) -> io::Result<Option<String>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    // One byte more than the longest process id and its line end.
    let mut bytes = [0; 12];
    let len = file.read_at(&mut bytes, 0)?;
    let text = str::from_utf8(&bytes[..len]).unwrap_or("?").trim_end();
    let is_lock = len < bytes.len() && text.bytes().all(|byte| byte.is_ascii_digit());
    Ok(is_lock.then(|| text.to_owned()))
}

/// Removes the socket of a daemon that died. A socket that answers although we hold the lock (one of
/// systemd, another program) is left alone, and so is anything that is not a socket.
fn remove_leftover(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Socket { path: path.to_owned(), source };
    match UnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.to_owned(), pid: None }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            check_is_socket(path)?;
            tracing::info!(path = %path.display(), "replacing the socket of a dead daemon");
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
