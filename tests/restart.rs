use crate::support::{ClientProcess, Daemon, EMBERD, emberd, eventually, run, tiny_model};
use emberd_protocol::ErrorCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;

#[test]
fn views_survive_the_daemons_death_and_calls_work_again_after_a_restart() {
    let daemon = Daemon::start();
    let mut client = ClientProcess::start(&daemon, "hold", "builtin", 1000);
    daemon.signal(Signal::SIGKILL);
    let folder = daemon.into_folder();
    client.go_on(); // sums its rows, then asks
    assert_eq!(client.line(), "lost");
    client.go_on();
    assert_eq!(client.line(), "no daemon");
    let daemon = Daemon::in_folder(folder, &[]);
    client.go_on();
    assert_eq!(client.line(), "works 1000");
    assert_eq!(daemon.leases(), 1, "the lease was taken again");
}

#[test]
fn all_leases_are_taken_again_with_the_first_request_and_one_that_cannot_be_says_so_when_used() {
    let daemon = Daemon::with_settings(&of_models(&["a", "b"]));
    let client = daemon.client();
    let [a, b] = ["a", "b"].map(|id| client.embedding_model(id).unwrap());
    let many: Vec<_> = (0..200).map(|_| client.embedding_model("builtin").unwrap()).collect();
    let released = client.embedding_model("builtin").unwrap();
    released.release().unwrap();
    daemon.signal(Signal::SIGKILL);
    let folder = daemon.into_folder();
    let file = folder.path().join("emberd.toml");
    std::fs::write(&file, of_models(&["a"])).unwrap();
    let _daemon = Daemon::in_folder(folder, &["--settings", file.to_str().unwrap()]);
    client.ping().unwrap();
    // More than may be in flight at once: a later request collects finished replies.
    eventually("all but one are there again", || client.status().unwrap().leases.len() == 201);
    assert_eq!(a.embed(&["text"]).unwrap().len(), 1);
    let failure = b.embed(&["text"]).unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::ModelNotConfigured), "{failure}");
    let failure = released.embed(&["text"]).unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::ReferenceError), "{failure}");
    drop((a, many));
    // A result that arrives after its lease was dropped is returned by the next request.
    eventually("none is left", || client.status().unwrap().leases.is_empty());
}

/// Settings with the tiny model under several names.
fn of_models(ids: &[&str]) -> String {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data/bert-mean-norm");
    let of = |id: &&str| {
        format!("models.{id}.type = \"embedding\"\nmodels.{id}.local_path = {folder:?}\n")
    };
    ids.iter().map(of).collect()
}

#[test]
fn a_second_daemon_on_a_live_socket_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let mut second = emberd(&["serve", "--socket"]);
    second.arg(daemon.socket());
    let output = run(second, "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(
        stderr.contains("already serves") && stderr.contains(&daemon.pid().to_string()),
        "{stderr}"
    );
    daemon.client().ping().unwrap();
}

#[test]
fn the_socket_of_a_dead_daemon_is_taken_over() {
    let daemon = Daemon::start();
    daemon.signal(Signal::SIGKILL);
    let folder = daemon.into_folder();
    assert!(folder.path().join("emberd.sock").exists(), "a killed daemon leaves its socket");
    let daemon = Daemon::in_folder(folder, &[]);
    daemon.client().ping().unwrap();
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emberd.sock");
    std::fs::write(&path, "precious").unwrap();
    let mut command = emberd(&["serve", "--socket"]);
    command.arg(&path);
    let output = run(command, "");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn too_long_a_socket_path_is_reported_and_nothing_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = emberd(&["serve", "--socket"]);
    command.arg(folder.path().join("x".repeat(108)));
    let output = run(command, "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("107"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_lock_is_created_only_beside_a_socket_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [path, lock, other] = ["it", "it.lock", "other"].map(|name| folder.path().join(name));
    let refused = || {
        let mut command = emberd(&["serve", "--socket"]);
        command.arg(&path);
        let output = run(command, "");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    std::fs::write(&path, "a file").unwrap();
    assert!(refused().contains("exists and is not a socket"));
    assert!(!lock.exists());
    std::fs::remove_file(&path).unwrap();

    std::fs::write(&lock, "notes of somebody").unwrap();
    assert!(refused().contains("it is not a lock file of emberd"));
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), "notes of somebody");
    std::fs::remove_file(&lock).unwrap();

    std::fs::write(&other, "").unwrap();
    std::os::unix::fs::symlink(&other, &lock).unwrap();
    assert!(refused().contains("cannot lock"));
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "");
}

#[test]
fn a_detached_daemon_keeps_nothing_open_of_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("emberd.sock");
    let held = folder.path().join("held");
    let mut script = Command::new("bash");
    script.env_clear().env("HOME", folder.path()).args([
        "-c",
        "exec 7>\"$1\" 250<&0; exec \"$2\" serve --detach --socket \"$3\"",
        "script",
    ]);
    script.args([held.as_os_str(), EMBERD.as_ref(), socket.as_os_str()]);
    let output = run(script, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status = emberd_client::Client::connect_to(&socket).unwrap().status().unwrap();
    let pid = Pid::from_raw(i32::try_from(status.daemon.pid).unwrap());
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links: Vec<_> = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    kill(pid, Signal::SIGTERM).unwrap();
    crate::support::eventually("it ends", || kill(pid, None).is_err());
    assert!(held.exists() && links.len() > 3, "{links:?}");
    assert!(!links.contains(&held), "{links:?}");
}

#[test]
fn twenty_daemons_that_start_at_once_leave_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("emberd.sock");
    let mut children: Vec<_> = (0..20)
        .map(|_| {
            let mut command = emberd(&["serve", "--log", "error", "--socket"]);
            command.arg(&path).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    crate::support::eventually("one is left", || {
        children.retain_mut(|child| child.try_wait().unwrap().is_none());
        children.len() == 1
    });
    let status = emberd_client::Client::connect_to(&path).unwrap().status().unwrap();
    assert_eq!(status.daemon.pid, children[0].id());
    children[0].kill().unwrap();
    children[0].wait().unwrap();
}

#[test]
fn a_detached_daemon_is_ready_when_the_command_returns() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("emberd.sock");
    let mut command =
        emberd(&["serve", "--detach", "--log-file", "log", "--socket", "emberd.sock"]);
    command.current_dir(folder.path());
    let output = run(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status = emberd_client::Client::connect_to(&socket).unwrap().status().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&status.daemon.pid.to_string()));
    assert_ne!(status.daemon.pid, std::process::id());
    // Its log is in the file named relative to the caller's folder.
    assert!(std::fs::read_to_string(folder.path().join("log")).unwrap().contains("emberd serves"));

    let mut second = emberd(&["serve", "--detach", "--socket"]);
    second.arg(&socket);
    let output = run(second, "");
    assert_eq!(output.status.code(), Some(5), "the caller hears why it did not start");
    assert!(String::from_utf8_lossy(&output.stderr).contains("already serves"));

    let pid = Pid::from_raw(i32::try_from(status.daemon.pid).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    crate::support::eventually("it ends", || kill(pid, None).is_err());
    assert!(!socket.exists());
}

#[test]
fn paths_in_variables_are_seen_from_where_a_detached_daemon_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path());
    let socket = folder.path().join("emberd.sock");
    let mut command =
        emberd(&["serve", "--detach", "--log-file", "log", "--socket", "emberd.sock"]);
    command.current_dir(folder.path());
    command.env("EMBERD_MODELS__near__TYPE", "embedding").env("HF_HUB_OFFLINE", "1");
    command.env("EMBERD_MODELS__near__LOCAL_PATH", model.file_name().unwrap());
    command.env("EMBERD_MODELS__far__TYPE", "embedding").env("HF_HOME", "hub-home");
    command.env("EMBERD_MODELS__far__NAME", "org/absent");
    let output = run(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let client = emberd_client::Client::connect_to(&socket).unwrap();
    let pid = Pid::from_raw(i32::try_from(client.status().unwrap().daemon.pid).unwrap());
    let near = client.generate_embeddings(&["text"], "near").map(|rows| rows.len());
    let far = client.generate_embeddings(&["text"], "far").map(drop);
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("it ends", || kill(pid, None).is_err());
    assert_eq!(near.unwrap(), 1);
    let far = far.unwrap_err().to_string();
    assert!(far.contains(folder.path().join("hub-home").to_str().unwrap()), "{far}");
}

#[test]
fn the_program_prints_its_version() {
    let output = Command::new(EMBERD).arg("--version").output().unwrap();
    let version = format!("emberd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), version);
}
