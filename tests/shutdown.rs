use crate::support::{
    ClientProcess, Daemon, EMBERD, Raw, code_of, eventually, example, run, texts,
};
use emberd_client::Client;
use emberd_protocol::{ErrorCode, FrameKind};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::process::{Command, Stdio};

#[test]
fn sigterm_lets_running_work_end_and_takes_no_new_work() {
    let mut daemon = Daemon::gated(None);
    let mut client = ClientProcess::start(&daemon, "ask", "gated", 300);
    let late = Client::builder().repeat_requests(false).connect_to(daemon.socket()).unwrap();
    let late = late.embedding_model("builtin").unwrap();
    let busy = std::thread::scope(|scope| {
        // A second request keeps this connection open while the daemon drains.
        let gated = late.client().embedding_model("gated").unwrap();
        let running = scope.spawn(move || gated.embed(&texts(2)));
        eventually("both are in flight", || {
            let status = late.client().status().unwrap();
            status.connections.iter().map(|c| c.requests_in_flight).sum::<u32>() >= 2
        });
        daemon.signal(Signal::SIGTERM);
        eventually("new connections are refused", || {
            emberd_client::Client::connect_to(daemon.socket()).is_err()
        });
        assert_eq!(code_of(late.embed(&texts(2))), ErrorCode::ShuttingDown);
        daemon.open_gate();
        running.join().unwrap()
    });
    assert_eq!(busy.unwrap().len(), 2);
    assert_eq!(client.line(), "answered");
    assert!(daemon.wait().success());
}

#[test]
fn work_that_does_not_end_in_drain_seconds_is_cut_off() {
    let mut daemon = Daemon::gated(Some("limits.drain_seconds = 1"));
    let mut client = ClientProcess::start(&daemon, "ask-once", "gated", 3);
    eventually("it computes", || daemon.status().models.iter().any(|model| model.busy == 1));
    daemon.signal(Signal::SIGTERM);
    assert!(client.line().is_empty(), "it is sent home without an answer, the gate closed");
    // Its engine never finishes by itself.
    daemon.open_gate();
    daemon.wait();
}

#[test]
fn each_signal_to_stop_ends_the_daemon_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start();
        let _idle = daemon.client();
        let held = daemon.model("builtin").embed(&texts(500)).unwrap();
        daemon.signal(signal);
        assert!(daemon.wait().success(), "{signal}: {}", daemon.log());
        assert!(!daemon.socket().exists(), "{signal}");
        assert!(held.row(499).iter().any(|value| *value != 0.0), "views outlive the daemon");
    }
}

#[test]
fn a_daemon_stops_although_its_parent_blocked_the_signal() {
    let blocked = SigSet::from_iter([Signal::SIGTERM]);
    // Children get the mask of the thread that starts them.
    blocked.thread_block().unwrap();
    let mut daemon = Daemon::start();
    blocked.thread_unblock().unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
}

#[test]
fn a_stopping_daemon_does_not_wait_for_clients_in_the_handshake() {
    // Longer than the test is willing to wait.
    let mut daemon = Daemon::with_settings("limits.handshake_ms = 3600000\n");
    let mut silent = Raw::connect(&daemon);
    let mut half = Raw::connect(&daemon);
    half.send_bytes(&[0xed, 0xb3, 1]);
    daemon.client().ping().unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    for raw in [&mut silent, &mut half] {
        assert!(raw.next().is_none_or(|frame| frame.kind == FrameKind::Refusal));
        assert!(raw.next().is_none());
    }
}

#[test]
fn a_daemon_outlives_the_reader_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("emberd.sock");
    let mut child = std::process::Command::new(EMBERD)
        .args(["serve", "--log", "debug", "--socket"])
        .arg(&socket)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let connect = || emberd_client::Client::connect_to(&socket);
    eventually("it listens", || connect().is_ok());
    for _ in 0..3 {
        let model = connect().unwrap().embedding_model("builtin").unwrap();
        assert_eq!(model.embed(&texts(3)).unwrap().len(), 3);
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_quickstart_ends_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(example("quickstart"));
    command.env("TMPDIR", folder.path()).args(["--daemon", EMBERD, "-"]);
    let lines: String = (0..400).map(|n| format!("tool {n}: does thing number {n}\n")).collect();
    let output = run(command, &lines);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["400 lines", "loaded once", "for 3 processes", "Search by meaning"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_quickstart_leaves_nothing_behind_whatever_stops_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(example("quickstart"));
        command.env("TMPDIR", folder.path()).args(["--daemon", EMBERD, "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut quickstart = command.spawn().unwrap();
        // More work than it can finish before the signal arrives.
        let lines = "a line\n".repeat(2_000_000);
        let mut input = quickstart.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, lines.as_bytes()).unwrap();
        drop(input);
        let of_it = || -> Vec<u32> {
            let is_of_it = |pid: &u32| {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&command).contains(folder.path().to_str().unwrap())
            };
            let entries = std::fs::read_dir("/proc").unwrap().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.filter(is_of_it).collect()
        };
        eventually("the daemon and three clients run", || of_it().len() == 4);
        kill(Pid::from_raw(i32::try_from(quickstart.id()).unwrap()), signal).unwrap();
        let ended = quickstart.wait().unwrap();
        assert_eq!(ended.code(), Some(128 + signal as i32), "{signal}");
        eventually("none of them runs", || of_it().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{signal}");
    }
}
