use crate::support::{Daemon, emberd, eventually, example, run};
use emberd_protocol::ModelStatus;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Group, Pid, User, geteuid};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Users that every Linux system has, each in a group of the same name.
const MEMBER: &str = "daemon";
const STRANGER: &str = "nobody";

/// Only root can be several users.
fn can_be_others() -> bool {
    let there = |name| User::from_name(name).ok().flatten().is_some();
    let is_so = geteuid().is_root()
        && there(MEMBER)
        && there(STRANGER)
        && Group::from_name(MEMBER).ok().flatten().is_some();
    if !is_so {
        eprintln!("skipped: needs root, and the users {MEMBER} and {STRANGER}");
    }
    is_so
}

/// A daemon that a group may use, in a folder that everyone may enter, with a client that everyone may
/// run.
fn daemon(more: &str) -> Daemon {
    let daemon = Daemon::with_settings(&format!("access.group = \"{MEMBER}\"\n{more}"));
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(daemon.folder.path());
    let client = daemon.folder.path().join("client");
    std::fs::copy(example("client_process"), &client).unwrap();
    open(&client);
    daemon
}

/// The output of another user's client process, or its error.
fn as_user(user: &str, daemon: &Daemon, mode: &str) -> Result<String, String> {
    let user = User::from_name(user).unwrap().unwrap();
    let mut command = Command::new(daemon.folder.path().join("client"));
    command.arg(mode).arg(daemon.socket()).args(["builtin", "20"]);
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn builtin(daemon: &Daemon) -> ModelStatus {
    let models = daemon.status().models;
    models.into_iter().find(|status| status.id.as_str() == "builtin").unwrap()
}

#[test]
fn members_of_the_group_may_use_the_daemon_and_not_change_it() {
    if !can_be_others() {
        return;
    }
    let daemon = daemon("");
    let socket = std::fs::metadata(daemon.socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    assert_eq!(as_user(MEMBER, &daemon, "ask").unwrap(), "asking\nanswered");
    let refused = as_user(MEMBER, &daemon, "unload").unwrap_err();
    assert!(refused.contains("PermissionDenied"), "{refused}");
    assert_eq!(builtin(&daemon).copies, 1, "it is still there");
    // The daemon's own user may.
    daemon.client().unload("builtin").unwrap();
    // The socket's mode keeps out users who are not in the group. If it lets everybody in (another
    // unit file, a changed mode), the daemon itself refuses.
    let refused = as_user(STRANGER, &daemon, "ask").unwrap_err();
    assert!(refused.contains("Permission"), "{refused}");
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let refused = as_user(STRANGER, &daemon, "ask").unwrap_err();
    let stranger = User::from_name(STRANGER).unwrap().unwrap().uid;
    let expected = format!("user {stranger} may not use this daemon: it is not in group {MEMBER}");
    assert!(refused.contains(&expected), "{refused}");
    assert_eq!(daemon.leases(), 0);
}

#[test]
fn the_folder_of_a_detached_daemon_is_open_to_its_group() {
    if !can_be_others() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("emberd.toml");
    std::fs::write(&settings, format!("access.group = \"{MEMBER}\"\n")).unwrap();
    let socket = folder.path().join("new/deeper/emberd.sock");
    let mut command = emberd(&["serve", "--detach", "--settings"]);
    command.arg(&settings).arg("--socket").arg(&socket);
    assert!(run(command, "").status.success());
    let client = emberd_client::Client::connect_to(&socket).unwrap();
    let pid = client.status().unwrap().daemon.pid;
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("it ends", || kill(pid, None).is_err());
    for made in ["new", "new/deeper"] {
        let mode = std::fs::metadata(folder.path().join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{made}");
    }
}

#[test]
fn another_user_without_access_to_a_named_segment_gets_rows_inline() {
    if !can_be_others() {
        return;
    }
    let daemon = daemon("segments.inline_kib = 1\nsegments.backend = \"posix\"\n");
    assert_eq!(as_user(MEMBER, &daemon, "ask").unwrap(), "asking\nanswered");
    let counted = builtin(&daemon);
    assert_eq!((counted.rows_inline, counted.rows_shared), (20, 0));
}

#[test]
fn users_share_rows_only_if_configured() {
    if !can_be_others() {
        return;
    }
    for shares in [false, true] {
        let daemon = daemon(&format!("embedding_cache.shared_between_users = {shares}\n"));
        // The same texts as the client process has.
        let texts: Vec<String> = (0..20).map(|n| format!("text number {n}")).collect();
        daemon.model("builtin").embed(&texts).unwrap();
        let before = builtin(&daemon);
        assert_eq!((before.texts, before.texts_cached), (20, 0));
        as_user(MEMBER, &daemon, "ask").unwrap();
        let after = builtin(&daemon);
        let expected = if shares { (20, 20) } else { (40, 0) };
        assert_eq!((after.texts, after.texts_cached), expected, "shared: {shares}");
        // A user's own rows are found in both cases.
        as_user(MEMBER, &daemon, "ask").unwrap();
        assert_eq!(builtin(&daemon).texts, expected.0);
    }
}
