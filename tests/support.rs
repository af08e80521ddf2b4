//! A separate daemon for each test, client processes, and raw frames.

use emberd_client::{Client, EmbeddingModel};
use emberd_protocol::{
    Decoder, ErrorCode, Frame, FrameKind, Hello, Refusal, Request, Response, Status, Welcome,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a loaded machine; a test that passes never waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The spare segments that a daemon makes ahead of time.
const SPARE_SEGMENTS: usize = emberd_daemon::segment::DEFAULT_SPARES;

/// The program under test.
pub(crate) const EMBERD: &str = env!("CARGO_BIN_EXE_emberd");

/// A helper program of these tests, built beside the program under test.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = Path::new(EMBERD).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo test builds it", path.display());
    path
}

/// A tiny model that works, for tests that damage it.
pub(crate) fn tiny_model(into: &Path) -> PathBuf {
    let from =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data/bert-mean-norm");
    let folder = into.join("model");
    copy(&from, &folder);
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The folder of the real model, if `scripts/test` could fetch it.
pub(crate) fn minilm() -> Option<PathBuf> {
    let folder = std::env::var_os("EMBERD_TEST_MINILM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: EMBERD_TEST_MINILM names no folder (scripts/test gets the model)");
    }
    folder
}

/// Waits for a condition that must become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running daemon, ended with this value.
pub(crate) struct Daemon {
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
}

impl Daemon {
    /// `emberd serve` with the built-in model.
    pub(crate) fn start() -> Self {
        Self::with_args(&[])
    }

    /// `emberd serve` with more arguments.
    pub(crate) fn with_args(args: &[&str]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), args)
    }

    /// `emberd serve` with a settings file.
    pub(crate) fn with_settings(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("emberd.toml");
        std::fs::write(&file, settings).unwrap();
        Self::in_folder(folder, &["--settings", file.to_str().unwrap()])
    }

    pub(crate) fn in_folder(folder: TempDir, args: &[&str]) -> Self {
        let mut command = emberd(&["serve", "--socket"]);
        command.arg(folder.path().join("emberd.sock")).args(args);
        Self::spawn(folder, command)
    }

    /// A daemon whose model "gated" computes only while the gate is open. It starts closed.
    pub(crate) fn gated(settings: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(example("gated_daemon"));
        command.arg(folder.path().join("emberd.sock")).arg(folder.path().join("gate"));
        if let Some(settings) = settings {
            let file = folder.path().join("emberd.toml");
            let text = format!("models.gated.type = \"gated\"\n{settings}\n");
            std::fs::write(&file, text).unwrap();
            command.arg(file);
        }
        Self::spawn(folder, command)
    }

    pub(crate) fn spawn(folder: TempDir, mut command: Command) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Self { folder, child };
        let deadline = Instant::now() + PATIENCE;
        while Client::connect_to(daemon.socket()).is_err() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no daemon:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("emberd.sock")
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn open_gate(&self) {
        std::fs::write(self.folder.path().join("gate"), "").unwrap();
    }

    pub(crate) fn close_gate(&self) {
        std::fs::remove_file(self.folder.path().join("gate")).unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect_to(self.socket()).unwrap()
    }

    pub(crate) fn model(&self, id: &str) -> EmbeddingModel {
        self.client().embedding_model(id).unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.client().status().unwrap()
    }

    /// Leases on all models.
    pub(crate) fn leases(&self) -> usize {
        let status = self.status();
        status.leases.len() + usize::try_from(status.leases_left_out).unwrap()
    }

    /// The most memory that the daemon ever had.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Resident memory that is neither a file's nor shared.
    pub(crate) fn own_resident_bytes(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, kind: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Open descriptors of the daemon.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Open descriptors of an idle daemon that uses memfds, with its spare segments made.
    pub(crate) fn settled_descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid());
        let is_memfd = |entry: std::fs::DirEntry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            target.to_string_lossy().contains("memfd:")
        };
        eventually("its spare segments are made", || {
            let entries = std::fs::read_dir(&folder).unwrap().flatten();
            entries.filter_map(|entry| is_memfd(entry).then_some(())).count() == SPARE_SEGMENTS
        });
        self.descriptors()
    }

    /// The file of [`Daemon::with_settings`].
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.folder.path().join("emberd.toml")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The folder, for another daemon in it. This one must have ended.
    pub(crate) fn into_folder(mut self) -> TempDir {
        self.wait();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.folder, empty)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the daemon's log ----\n{}", self.log());
        }
    }
}

/// The program, isolated from the environment that the tests run in.
pub(crate) fn emberd(args: &[&str]) -> Command {
    let mut command = Command::new(EMBERD);
    command.args(args);
    for name in ["EMBERD_SOCKET", "EMBERD_LOG", "NOTIFY_SOCKET", "LISTEN_FDS", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    // Ignores the settings of the user who runs the tests.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Runs the program with something on its standard input.
pub(crate) fn run(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read its input closes it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A client in a separate process, which can be killed.
pub(crate) struct ClientProcess {
    pub(crate) child: Child,
    output: BufReader<ChildStdout>,
}

impl ClientProcess {
    /// `hold`: takes a lease, keeps rows and says "held". `ask`: says "asking" and sends a request.
    /// `actor`: says "ready" and carries out commands.
    pub(crate) fn start(daemon: &Daemon, mode: &str, model: &str, rows: usize) -> Self {
        let mut child = Command::new(example("client_process"))
            .args([mode])
            .arg(daemon.socket())
            .args([model, &rows.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, output };
        let line = process.line();
        assert!(["held", "asking", "ready"].contains(&line.as_str()), "the client said {line:?}");
        process
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets it continue.
    pub(crate) fn go_on(&mut self) {
        self.say("");
    }

    /// Sends it a line.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer that sends frames, valid or not.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
    last_id: u64,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::default(), last_id: 0 }
    }

    /// Connects and shakes hands.
    pub(crate) fn welcomed(daemon: &Daemon) -> Self {
        let mut raw = Self::connect(daemon);
        let hello = Hello { name: "raw".into(), accepts_segments: true };
        raw.send(&Frame::message(FrameKind::Hello, 0, &hello).unwrap());
        let frame = raw.next().expect("a welcome");
        assert_eq!(frame.kind, FrameKind::Welcome);
        frame.decode::<Welcome>().unwrap();
        raw
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.to_bytes());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // The daemon may have closed the connection already; some tests wait for that.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame, or `None` at the end of the connection. Descriptors are ignored.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.decoder.feed(&buffer[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the daemon neither answers nor hangs up: {error}"),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Request, tail: Vec<u8>) -> Response {
        self.last_id += 1;
        let mut frame = Frame::message(FrameKind::Request, self.last_id, request).unwrap();
        frame.tail = tail;
        self.send(&frame);
        let answer = self.next().expect("an answer");
        assert_eq!((answer.kind, answer.id), (FrameKind::Response, self.last_id));
        answer.decode().unwrap()
    }

    /// The refusal with which the daemon ends the connection.
    pub(crate) fn refusal(&mut self) -> Refusal {
        let frame = self.next().expect("a refusal");
        assert_eq!(frame.kind, FrameKind::Refusal);
        let refusal = frame.decode().unwrap();
        assert!(self.next().is_none(), "the connection ends behind a refusal");
        refusal
    }
}

/// The code of a response that must be a failure.
#[track_caller]
pub(crate) fn code(response: &Response) -> ErrorCode {
    match response {
        Response::Failed(failure) => failure.code,
        other => panic!("expected a failure, got {other:?}"),
    }
}

/// The code of a client's error.
#[track_caller]
pub(crate) fn code_of<T: std::fmt::Debug>(result: Result<T, emberd_client::Error>) -> ErrorCode {
    let error = result.expect_err("a failure is expected");
    error.code().unwrap_or_else(|| panic!("an error with a code is expected, got {error}"))
}

/// Texts that differ.
pub(crate) fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text number {n}")).collect()
}
