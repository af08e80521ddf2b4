//! The one file that reads the environment.

use emberd_protocol::{SocketPaths, default_socket_paths};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The name of the running program, or `?`.
pub(crate) fn program_name() -> String {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "?".into(), |name| name.to_string_lossy().into_owned())
}

/// The sockets to try, in this order.
pub(crate) fn socket_paths() -> Vec<PathBuf> {
    default_socket_paths(&SocketPaths {
        explicit: variable("EMBERD_SOCKET").map(PathBuf::from),
        runtime_dir: runtime_dir(),
    })
}

/// The command that starts a daemon at a path. The default paths need no option.
pub(crate) fn serve_command(path: &Path) -> String {
    let defaults =
        default_socket_paths(&SocketPaths { explicit: None, runtime_dir: runtime_dir() });
    if defaults.iter().any(|default| default == path) {
        return "emberd serve".into();
    }
    format!("emberd serve --socket {}", path.display())
}

/// `$EMBERD_BIN`: the program that starts a daemon.
pub(crate) fn daemon_program() -> Option<PathBuf> {
    variable("EMBERD_BIN").map(PathBuf::from)
}

/// The path of the running program.
pub(crate) fn this_program() -> Option<PathBuf> {
    std::env::current_exe().ok()
}

/// `$PATH`.
pub(crate) fn search_path() -> Option<OsString> {
    variable("PATH")
}

fn runtime_dir() -> Option<PathBuf> {
    variable("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
