use crate::support::{Daemon, emberd, eventually, run, texts, tiny_model};
use emberd_protocol::{ErrorCode, Reloaded, Status};
use nix::sys::signal::Signal;

fn keys(reloaded: &Reloaded) -> (Vec<&str>, Vec<&str>) {
    let names = |changes: &[emberd_protocol::SettingChange]| -> Vec<String> {
        changes.iter().map(|change| change.key.clone()).collect()
    };
    let _ = names;
    (
        reloaded.changed.iter().map(|change| change.key.as_str()).collect(),
        reloaded.unchanged.iter().map(|change| change.key.as_str()).collect(),
    )
}

#[test]
fn changeable_settings_apply_and_others_are_listed() {
    let daemon = Daemon::with_settings("sharing.unload_after_seconds = 1800\n");
    let file = daemon.settings_file();
    let client = daemon.client();
    let held = client.embedding_model("builtin").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path());
    std::fs::write(
        &file,
        format!(
            "sharing.unload_after_seconds = 0\nlimits.leases = 1\ncpu_workers = 1\n\
             segments.backend = \"posix\"\nmodels.new.type = \"embedding\"\n\
             models.new.local_path = \"{}\"\n",
            model.display()
        ),
    )
    .unwrap();
    let reloaded = client.reload().unwrap();
    let (changed, unchanged) = keys(&reloaded);
    assert!(changed.contains(&"sharing.unload_after_seconds"), "{reloaded:?}");
    assert!(changed.contains(&"limits.leases") && changed.contains(&"models.new.type"));
    assert!(unchanged.contains(&"cpu_workers") && unchanged.contains(&"segments.backend"));
    assert_eq!(client.embedding_model("new").unwrap_err().code(), Some(ErrorCode::LimitExceeded));
    drop(held);
    eventually("the new time counts", || {
        let is_loaded = |status: Status| status.models.iter().any(|model| model.copies > 0);
        !is_loaded(daemon.status())
    });
    let rows = client.generate_embeddings(&texts(2), "new").unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(client.reload().unwrap().changed, [], "nothing is new");
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let daemon = Daemon::with_settings("sharing.max_shared_models = 4\n");
    let client = daemon.client();
    std::fs::write(daemon.settings_file(), "sharing.max_shared_models = 3\nlimits.leases = 0\n")
        .unwrap();
    let failure = client.reload().unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::InvalidRequest), "{failure}");
    assert!(failure.to_string().contains("limits.leases: expected a whole number"), "{failure}");
    let error = daemon.status().daemon.reload_error.unwrap();
    assert!(error.contains("emberd.toml:2: limits.leases"), "{error}");
    std::fs::write(daemon.settings_file(), "sharing.max_shared_models = 4\n").unwrap();
    let reloaded = client.reload().unwrap();
    assert_eq!(keys(&reloaded), (vec![], vec![]), "the old settings are in force");
    assert_eq!(daemon.status().daemon.reload_error, None);
}

#[test]
fn sighup_and_the_command_read_the_file_again() {
    let daemon = Daemon::with_settings("sharing.max_shared_models = 4\n");
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path());
    let text = format!(
        "models.late.type = \"embedding\"\nmodels.late.local_path = \"{}\"\n",
        model.display()
    );
    std::fs::write(daemon.settings_file(), &text).unwrap();
    daemon.signal(Signal::SIGHUP);
    let knows = |id: &str| {
        daemon.client().available_models().unwrap().iter().any(|model| model.id.as_str() == id)
    };
    eventually("it is read again", || knows("late"));
    std::fs::write(daemon.settings_file(), text.replace("late", "later")).unwrap();
    let mut command = emberd(&["reload"]);
    command.env("EMBERD_SOCKET", daemon.socket());
    let output = run(command, "");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("models.later.type") && stdout.contains("a new model"), "{stdout}");
    assert!(stdout.contains("stays configured until the daemon restarts"), "{stdout}");
    assert!(knows("later") && knows("late"));
}
