//! `emberd serve`: the process that runs the daemon.

use crate::args::Serve;
use crate::detach::{self, Caller, Side};
use crate::exit::{self, CommandError};
use crate::format::counted;
use crate::listen;
use crate::output;
use emberd_daemon::hub::HubSettings;
use emberd_daemon::settings::Settings;
use emberd_daemon::{Daemon, DaemonBuilder};
use emberd_protocol::ModelState;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Threads for sockets and timers. Models compute on threads of their own.
const IO_THREADS: usize = 2;

/// How often systemd's status line is updated, if it has changed.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// Serves until a signal stops it.
pub(crate) fn run(mut args: Serve) -> Result<(), CommandError> {
    // Every check comes before the fork, while errors still reach the terminal, and paths are made
    // absolute before the working folder changes.
    make_absolute(&mut args)?;
    let here = std::env::current_dir().unwrap_or_default();
    let mut settings = settings(args.settings.as_deref(), args.models.clone())?;
    settings.resolve_paths(&here);
    let hub = HubSettings::from_variables(|name| hub_variable(&here, name));
    if let Some(fault) = hub.endpoint_fault() {
        return Err(CommandError::Usage(fault));
    }
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| CommandError::Usage(format!("--log {:?}: {error}", args.log)))?;
    let mut caller = Caller::none();
    if args.detach {
        match detach::detach()? {
            Side::Foreground(message) => return output::line(&message),
            Side::Background(parent) => caller = parent,
        }
    }
    let result = serve(args, settings, here, filter, &mut caller);
    if let Err(error) = &result {
        caller.failed(error);
    }
    result
}

/// The settings of a file, with the models of the command line added.
pub(crate) fn settings(
    file: Option<&Path>,
    models: Vec<(emberd_protocol::ModelId, PathBuf)>,
) -> Result<Settings, CommandError> {
    let variables = variables()?;
    let own = default_settings_file();
    let mut settings = Settings::read(file.or(own.as_deref()), variables, &[])?;
    if settings.cache.file.is_none() {
        settings.cache.file = default_cache_file();
    }
    for (id, folder) in models {
        if emberd_daemon::settings::is_builtin_id(id.as_str()) {
            let message = format!("--model {id}=...: this is the id of a built-in model");
            return Err(CommandError::Usage(message));
        }
        if settings.models.contains_key(&id) {
            let message = format!("--model {id}=...: there is already a model with this id");
            return Err(CommandError::Usage(message));
        }
        settings.add_folder_model(id, folder);
    }
    Ok(settings)
}

/// The environment variables, among which settings may be.
fn variables() -> Result<Vec<(String, String)>, CommandError> {
    let is_ours = |name: &str| name.starts_with("EMBERD_") && name != "EMBERD_SOCKET";
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                if is_ours(&name) {
                    return Err(CommandError::Variable(name));
                }
            }
        }
    }
    Ok(variables)
}

/// A variable of the hub's client. Relative paths are resolved against `here`, the folder in which the
/// daemon was started: it leaves that folder when it detaches.
fn hub_variable(here: &Path, name: &str) -> Option<OsString> {
    const PATHS: [&str; 4] = ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "XDG_CACHE_HOME"];
    let value = std::env::var_os(name)?;
    let path = Path::new(&value);
    let is_relative = path.is_relative() && !value.is_empty() && !path.starts_with("~");
    Some(if PATHS.contains(&name) && is_relative { here.join(value).into() } else { value })
}

/// The folder in a variable, if it is absolute.
fn folder(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}

/// The user's own settings file, if it exists. One that exists and cannot be read (a dangling link,
/// another user's folder) is returned too, so that reading it fails instead of being skipped.
fn default_settings_file() -> Option<PathBuf> {
    let home = || Some(folder("HOME")?.join(".config"));
    let file = folder("XDG_CONFIG_HOME").or_else(home)?.join("emberd/emberd.toml");
    let is_missing = |error: io::Error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    };
    let is_there = std::fs::symlink_metadata(&file).map_or_else(|e| !is_missing(e), |_| true);
    is_there.then_some(file)
}

/// The default file of the embedding cache: in the service manager's cache folder, else in the
/// user's.
fn default_cache_file() -> Option<PathBuf> {
    let of_service = || folder("CACHE_DIRECTORY");
    let of_user = || {
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Some(caches?.join("emberd"))
    };
    Some(of_service().or_else(of_user)?.join("embeddings.redb"))
}

fn make_absolute(args: &mut Serve) -> Result<(), CommandError> {
    let folders = args.models.iter_mut().map(|(_, folder)| folder);
    args.socket.socket = args.socket.path().map(Path::to_owned);
    let files = [&mut args.socket.socket, &mut args.settings, &mut args.log_file];
    for path in files.into_iter().flatten().chain(folders) {
        *path = std::path::absolute(&*path)
            .map_err(CommandError::io(format!("cannot resolve {}", path.display())))?;
    }
    Ok(())
}

fn serve(
    args: Serve,
    settings: Settings,
    here: PathBuf,
    filter: EnvFilter,
    caller: &mut Caller,
) -> Result<(), CommandError> {
    log_to(args.log_file.as_deref(), filter)?;
    accept_signals();
    raise_descriptor_limit();
    let runtime = Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .enable_all()
        .build()
        .map_err(CommandError::io("cannot start the runtime"))?;
    let (file, models) = (args.settings, args.models);
    // Read again, now that the log is set up: this logs warnings about them.
    let hub = HubSettings::from_variables(|name| hub_variable(&here, name));
    let read_again = move || -> Result<Settings, String> {
        let read = self::settings(file.as_deref(), models.clone());
        let mut settings = read.map_err(|error| exit::chain(&error))?;
        settings.resolve_paths(&here);
        Ok(settings)
    };
    let builder = Daemon::builder(settings).settings_reader(read_again).hub(hub);
    let result = runtime.block_on(listen_and_run(args.socket.socket, builder, caller));
    // Blocking tasks (segments being made) are not waited for: the process ends with them.
    Runtime::shutdown_background(runtime);
    result
}

async fn listen_and_run(
    socket: Option<PathBuf>,
    builder: DaemonBuilder,
    caller: &mut Caller,
) -> Result<(), CommandError> {
    let stop = stop_signal().map_err(CommandError::io("cannot handle signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(CommandError::io("cannot handle signals"))?;
    let mut socket = listen::open(socket, builder.settings().access.as_ref())?;
    let Some(listener) = socket.take_listener() else {
        return Err(listen::ListenError::NoPath.into());
    };
    let daemon = builder.build()?;
    let address = match &socket.path {
        Some(path) => path.display().to_string(),
        None => "the socket that systemd opened".into(),
    };
    tracing::info!(pid = std::process::id(), "emberd serves {address}");
    caller.ready(&format!("emberd serves {address} (process {})", std::process::id()));
    notify(&[NotifyState::Ready]);
    let notifications = notify_systemd(&daemon);
    tokio::select! {
        () = daemon.run(listener, async {
            stop.await;
            notify(&[NotifyState::Stopping]);
        }) => {}
        () = notifications => {}
        () = reload_on_signal(&daemon, hangup) => {}
    }
    tracing::info!("emberd has stopped");
    Ok(())
}

/// Unblocks all signals. A parent that handles signals in a thread blocks them, and its children
/// inherit that: nothing but SIGKILL would stop the daemon.
fn accept_signals() {
    if let Err(error) = SigSet::all().thread_unblock() {
        tracing::warn!(%error, "cannot unblock signals");
    }
}

/// Completes at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reloads the settings at each SIGHUP. Never completes.
async fn reload_on_signal(daemon: &Daemon, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        // The result is in the log and in the status.
        let _ = daemon.reload().await;
    }
    std::future::pending::<()>().await;
}

/// Keeps systemd's status line and watchdog up to date. Does nothing without systemd. Never completes.
async fn notify_systemd(daemon: &Daemon) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return std::future::pending().await;
    }
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(STATUS_EVERY, |limit| STATUS_EVERY.min(limit / 2));
    let mut last = String::new();
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if watchdog.is_some() {
            notify(&[NotifyState::Watchdog]);
        }
        let line = status_line(daemon);
        if line != last {
            notify(&[NotifyState::Status(&line)]);
            last = line;
        }
    }
}

fn status_line(daemon: &Daemon) -> String {
    let status = daemon.status();
    let loaded = status.models.iter().filter(|model| {
        matches!(model.state, ModelState::Ready | ModelState::Idle | ModelState::Draining)
    });
    let names: Vec<_> = loaded.map(|model| model.id.as_str()).collect();
    let connections = counted(status.connections.len() as u64, "connection");
    match names.as_slice() {
        [] => format!("no model loaded, {connections}"),
        names => format!("loaded: {}; {connections}", names.join(", ")),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

fn log_to(file: Option<&Path>, filter: EnvFilter) -> Result<(), CommandError> {
    // A log that cannot be written (a full disk, a closed pipe) does not stop the daemon.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .log_internal_errors(false);
    match file {
        Some(path) => {
            let failed = CommandError::io(format!("cannot open {}", path.display()));
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
            builder.with_ansi(false).with_writer(Mutex::new(file)).init();
        }
        None => builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).init(),
    }
    Ok(())
}

/// Raises the limit of open files to the hard limit: each connection and each segment needs one.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
