use crate::support::{EMBERD, emberd, eventually, example, run};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};

/// Twenty processes find no daemon and all start one: one of them serves all.
#[test]
fn twenty_starters_start_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("emberd.sock");
    let start = |_| {
        let mut command = Command::new(example("client_process"));
        command.arg("start").arg(&socket).args([EMBERD, "0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let starters: Vec<Child> = (0..20).map(start).collect();
    let mut pids = BTreeSet::new();
    for starter in starters {
        let output = starter.wait_with_output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stdout}{error}");
        pids.insert(stdout.trim().strip_prefix("pid ").unwrap().parse::<i32>().unwrap());
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    let pid = *pids.first().unwrap();
    let daemons = || {
        let of_folder = |entry: &std::fs::DirEntry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(socket.to_str().unwrap())
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter(of_folder).count()
    };
    assert_eq!(daemons(), 1, "the others ended");
    // It outlives the processes that started it, and ends like any other daemon.
    let mut ask = emberd(&["models", "--socket"]);
    ask.arg(&socket);
    assert!(run(ask, "").status.success());
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("it ended", || daemons() == 0);
    assert!(!socket.exists());
}

/// A daemon that is stopping holds its lock until its work is done, and accepts no connections.
#[test]
fn a_starter_waits_for_a_daemon_that_is_ending_and_starts_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("emberd.sock");
    let lock = std::fs::File::create(folder.path().join("emberd.sock.lock")).unwrap();
    let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let mut command = Command::new(example("client_process"));
    command.arg("start").arg(&socket).args([EMBERD, "0"]).stdout(Stdio::piped());
    let mut starter = command.spawn().unwrap();
    // By now it has tried, and was refused because another daemon serves.
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(starter.try_wait().unwrap().is_none(), "it waits");
    drop(held);
    let output = starter.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}");
    let pid = stdout.trim().strip_prefix("pid ").unwrap().parse::<i32>().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("it ended", || !socket.exists());
}

/// The example of a custom model type, with the unchanged client and program.
#[test]
fn a_model_type_of_a_programs_own_is_served_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("custom.sock");
    let mut daemon = Command::new(example("custom_model")).arg(&socket).spawn().unwrap();
    eventually("it serves", || emberd_client::Client::connect_to(&socket).is_ok());
    let embed = |text: &str| {
        let mut command = emberd(&["embed", "--model", "hashing", "--socket"]);
        command.arg(&socket).arg(text);
        let output = run(command, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let row = embed("two words");
    let values = row["embedding"].as_array().unwrap();
    assert_eq!(values.len(), 64);
    assert_eq!(values, embed("words two")["embedding"].as_array().unwrap(), "a bag of words");
    assert_ne!(values, embed("others")["embedding"].as_array().unwrap());
    let status = emberd_client::Client::connect_to(&socket).unwrap().status().unwrap();
    let hashing = status.models.iter().find(|model| model.id.as_str() == "hashing").unwrap();
    assert_eq!((hashing.model_type.as_str(), hashing.loads), ("hashing", 1));
    embed("two words");
    let status = emberd_client::Client::connect_to(&socket).unwrap().status().unwrap();
    assert_eq!(status.cache.hits, 1, "it has a fingerprint");
    kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(!socket.exists(), "it took its socket along");
}
