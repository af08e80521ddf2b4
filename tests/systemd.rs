use crate::support::EMBERD;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A user manager needs root here (it makes a private mount namespace), systemd and dbus-daemon.
fn has_user_manager() -> bool {
    let present = ["/lib/systemd/systemd", "/usr/bin/dbus-daemon", "/usr/bin/unshare"];
    let missing: Vec<_> = present.iter().filter(|path| !Path::new(path).exists()).collect();
    if missing.is_empty() && nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("skipped: no user manager can be started here (needs root and {present:?})");
    false
}

/// Runs a script of steps inside a separate user manager, with the units installed.
fn with_units(name: &str) {
    if !has_user_manager() {
        return;
    }
    let folder = PathBuf::from(EMBERD);
    let output = Command::new(root().join("tests/support/with-systemd-user"))
        .arg(root().join("tests/support/systemd-steps"))
        .args([name])
        .arg(root())
        .arg(folder.parent().unwrap())
        .output()
        .unwrap();
    let (stdout, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}:\n{stdout}\n{log}");
    assert!(stdout.contains("all steps done"), "{stdout}\n{log}");
}

#[test]
fn the_first_connection_starts_the_daemon_and_is_served() {
    with_units("activation");
}

#[test]
fn a_restart_refuses_no_connection_and_a_stop_is_clean() {
    with_units("restart");
}

#[test]
fn the_socket_survives_wrong_settings_a_missing_program_and_kills() {
    with_units("survival");
}

#[test]
fn the_units_and_the_program_agree_on_the_socket() {
    let unit = std::fs::read_to_string(root().join("systemd/emberd.socket")).unwrap();
    let runtime_dir = Some(PathBuf::from("%t"));
    let paths = emberd_protocol::SocketPaths { explicit: None, runtime_dir };
    let path = &emberd_protocol::default_socket_paths(&paths)[0];
    assert!(unit.contains(&format!("ListenStream={}\n", path.display())), "{unit}");
    assert!(unit.contains("SocketMode=0600"));
}
