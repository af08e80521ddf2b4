use crate::daemon::{Daemon, Listener, PATIENCE, builder};
use emberd_client::{Client, ConnectError, Error, StartError, StartOptions};
use emberd_protocol::{ErrorCode, Frame, FrameKind, Refusal, RefusalReason};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A program that stands in for `emberd`, and the socket on which it would serve.
pub(crate) struct StandIn {
    folder: TempDir,
}

impl StandIn {
    /// A shell script; `$4` is the socket, `$FOLDER` a folder of its own. It records each call.
    pub(crate) fn new(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let head = format!("FOLDER='{}'\necho \"$@\" >> $FOLDER/calls", folder.path().display());
        // Written by another process. If this process wrote it, a child that another test forks at
        // that moment could still have it open for writing, and then it could not be run.
        let mut writer = Command::new("sh")
            .args(["-c", "cat > $0 && chmod 755 $0"])
            .arg(folder.path().join("emberd"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{head}\n{script}\n");
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/deep/emberd.sock")
    }

    pub(crate) fn options(&self) -> StartOptions {
        let program = self.folder.path().join("emberd");
        StartOptions::default().program(program).socket(self.socket()).patience(PATIENCE)
    }

    fn connect(&self) -> Result<Client, Error> {
        builder().connect_or_start(self.options())
    }

    /// What it was called with, one line for each call.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Plays the daemon once the program was called: one ping for each client.
    pub(crate) fn serve(&self, clients: usize) {
        while self.calls().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let listener = Listener::at(&self.socket());
        std::thread::scope(|scope| {
            for _ in 0..clients {
                let mut peer = listener.welcome();
                scope.spawn(move || {
                    peer.pong();
                    peer.silence();
                });
            }
        });
    }
}

/// Ready when somebody serves.
pub(crate) const WAITING: &str = "while [ ! -S $4 ]; do sleep 0.01; done";

fn start_error(result: Result<Client, Error>) -> StartError {
    match result {
        Err(Error::Connect(ConnectError::Start(error))) => error,
        other => panic!("{other:?} is not a failure to start"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_program_is_started_where_nobody_answers_and_the_next_client_finds_its_daemon() {
    let program = StandIn::new(WAITING);
    std::thread::scope(|scope| {
        scope.spawn(|| program.serve(2));
        let options = program.options().argument("--settings").argument("x.toml");
        builder().connect_or_start(options).unwrap().ping().unwrap();
        program.connect().unwrap().ping().unwrap();
    });
    let socket = program.socket();
    let call = format!("serve --detach --socket {} --settings x.toml", socket.display());
    assert_eq!(program.calls(), [call]);
    // The folders are for this user alone, and so is the file with the lock.
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    assert_eq!(mode(&program.folder.path().join("run")), 0o700);
    assert_eq!(mode(&socket.with_extension("sock.start")), 0o600);
}

#[test]
fn twenty_clients_that_start_at_once_run_one_program() {
    const STARTERS: usize = 20;
    let program = StandIn::new(WAITING);
    std::thread::scope(|scope| {
        scope.spawn(|| program.serve(STARTERS));
        let starters: Vec<_> =
            (0..STARTERS).map(|_| scope.spawn(|| program.connect()?.ping())).collect();
        for starter in starters {
            starter.join().unwrap().unwrap();
        }
    });
    assert_eq!(program.calls().len(), 1);
}

#[test]
fn a_daemon_that_keeps_what_it_was_given_keeps_no_lock() {
    let stays = "touch $FOLDER/stay; while [ -e $FOLDER/stay ]; do sleep 0.01; done &";
    let program = StandIn::new(&format!("{stays}\n{WAITING}"));
    std::thread::scope(|scope| {
        scope.spawn(|| program.serve(1));
        program.connect().unwrap().ping().unwrap();
    });
    let lock = File::open(program.socket().with_extension("sock.start")).unwrap();
    lock.try_lock().unwrap();
    fs::remove_file(program.folder.path().join("stay")).unwrap();
}

#[test]
fn the_loser_of_a_race_connects_to_the_winner() {
    // Another daemon has the socket's lock, and will listen in a moment.
    let program = StandIn::new("exit 5");
    std::thread::scope(|scope| {
        scope.spawn(|| program.serve(1));
        program.connect().unwrap().ping().unwrap();
    });
}

#[test]
fn a_program_that_fails_is_quoted_and_the_next_attempt_runs_it_again() {
    let program = StandIn::new("echo 'emberd.toml:3: unknown key' >&2; exit 4");
    for attempt in 1..=2 {
        let error = start_error(program.connect());
        let text = error.to_string();
        let StartError::Failed { program: named, status, message } = error else {
            panic!("{error:?}")
        };
        assert_eq!(message, "emberd.toml:3: unknown key");
        assert_eq!((named, status.code()), (program.folder.path().join("emberd"), Some(4)));
        assert!(text.ends_with("(exit status: 4): emberd.toml:3: unknown key"), "{text}");
        assert_eq!(program.calls().len(), attempt);
    }
    let silent = StandIn::new("exit 1");
    let text = start_error(silent.connect()).to_string();
    assert!(text.ends_with("it gave no reason"), "{text}");
}

#[test]
fn the_error_has_the_end_of_a_long_output() {
    let program = StandIn::new("seq 1 100000 >&2; echo 'the reason' >&2; exit 1");
    let StartError::Failed { message, .. } = start_error(program.connect()) else {
        panic!("it failed")
    };
    assert!(message.ends_with("99999\n100000\nthe reason"), "{message}");
    assert!(message.len() <= 4096);
}

#[test]
fn without_a_program_the_error_says_where_it_was_looked_for() {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("no-such-program");
    let socket = folder.path().join("emberd.sock");
    let options = StartOptions::default().program(&program).socket(&socket);
    let error = start_error(builder().connect_or_start(options));
    let text = error.to_string();
    let StartError::NotFound { looked_for } = error else { panic!("{error:?}") };
    assert_eq!(looked_for, [program]);
    assert!(text.contains("put it into $PATH, or set $EMBERD_BIN"), "{text}");
}

#[test]
fn a_program_that_takes_too_long_is_ended() {
    let program = StandIn::new("echo $$ > $FOLDER/pid; exec sleep 1000");
    let options = program.options().patience(Duration::from_millis(300));
    let error = start_error(builder().connect_or_start(options));
    assert!(matches!(error, StartError::TookTooLong { .. }), "{error:?}");
    // On a machine so busy that this did not happen, this run shows nothing.
    if let Ok(pid) = fs::read_to_string(program.folder.path().join("pid")) {
        assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it runs on");
    }
}

#[test]
fn a_program_that_only_claims_to_serve_takes_too_long() {
    let program = StandIn::new("exit 0");
    let options = program.options().patience(Duration::from_millis(50));
    let error = start_error(builder().connect_or_start(options));
    assert!(matches!(error, StartError::TookTooLong { .. }), "{error:?}");
}

#[test]
fn a_daemon_that_runs_but_refuses_is_not_replaced() {
    let program = StandIn::new("exit 0");
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.accept();
        peer.hello();
        let refusal = Refusal { reason: RefusalReason::NotPermitted, message: "no".into() };
        peer.say(Frame::message(FrameKind::Refusal, 0, &refusal));
    });
    let options = program.options().socket(daemon.path());
    let error = builder().connect_or_start(options).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::PermissionDenied));
    assert!(program.calls().is_empty());
    daemon.end();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let program = StandIn::new("exit 0");
    // A dangling link is in its place.
    let link = program.folder.path().join("run");
    std::os::unix::fs::symlink("nowhere", link).unwrap();
    let error = start_error(program.connect());
    assert!(matches!(error, StartError::System { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("its folder cannot be created"), "{text}");
}
