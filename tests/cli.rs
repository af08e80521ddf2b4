use crate::support::{Daemon, emberd, run};
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command against a daemon.
fn ask(daemon: &Daemon, args: &[&str], input: &str) -> Output {
    let mut command = emberd(args);
    command.env("EMBERD_SOCKET", daemon.socket());
    run(command, input)
}

/// The output of a command that must succeed.
#[track_caller]
fn good_output(daemon: &Daemon, args: &[&str]) -> String {
    good(&ask(daemon, args, ""))
}

#[track_caller]
fn good(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", err(output));
    out(output)
}

#[test]
fn embed_writes_a_json_line_for_each_argument() {
    let daemon = Daemon::start();
    let text = good(&ask(&daemon, &["embed", "a cat", "a kitten", "tax law"], ""));
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    let row = |n: usize| -> Vec<f64> {
        assert_eq!(rows[n]["index"], n);
        rows[n]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let dot = |a: Vec<f64>, b: Vec<f64>| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    assert_eq!(rows[1]["text"], "a kitten");
    assert!((dot(row(0), row(0)) - 1.0).abs() < 1e-5);
    assert!(dot(row(0), row(1)) > dot(row(0), row(2)), "the built-in model knows cats");
}

#[test]
fn embed_writes_small_elements_as_numbers_and_as_an_array() {
    let daemon = Daemon::start();
    let embed = |args: &[&str]| {
        let all = [&["embed", "a cat", "a kitten", "tax law"][..], args].concat();
        ask(&daemon, &all, "")
    };
    for (element, dtype, len) in [
        ("f16", "'<f2'", 3 * 64 * 2),
        ("int8", "'|i1'", 3 * 64),
        ("uint8", "'|u1'", 3 * 64),
        ("binary", "'|i1'", 3 * 8),
        ("ubinary", "'|u1'", 3 * 8),
    ] {
        let output = embed(&["--dimension", "64", "--element", element, "--format", "npy"]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        let header = 10 + usize::from(u16::from_le_bytes([output.stdout[8], output.stdout[9]]));
        assert_eq!(output.stdout.len() - header, len, "{element}");
        let head = String::from_utf8_lossy(&output.stdout[10..header]).into_owned();
        let columns = if element.ends_with("binary") { 8 } else { 64 };
        assert!(head.contains(dtype) && head.contains(&format!("(3, {columns})")), "{head}");
    }
    let line = good(&embed(&["--element", "int8", "--normalize"]));
    let first: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    let numbers = first["embedding"].as_array().unwrap();
    assert!(numbers.len() == 128 && numbers.iter().all(Value::is_i64), "{line}");
    let refused = embed(&["--prompt-name", "question"]);
    assert!(err(&refused).contains("\"query\""), "{}", err(&refused));
}

#[test]
fn embed_reads_lines_of_a_file_and_of_standard_input_and_keeps_empty_ones() {
    let daemon = Daemon::start();
    let file = daemon.folder.path().join("lines.txt");
    std::fs::write(&file, "one\n\nthree\r\nlast").unwrap();
    let from_file = good(&ask(&daemon, &["embed", "--file", file.to_str().unwrap()], ""));
    let from_stdin = good(&ask(&daemon, &["embed"], "one\n\nthree\r\nlast"));
    let from_dash = good(&ask(&daemon, &["embed", "--file", "-"], "one\n\nthree\r\nlast"));
    assert_eq!(from_file, from_stdin);
    assert_eq!(from_file, from_dash);
    let texts: Vec<String> = from_file
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    assert_eq!(texts, ["one", "", "three", "last"]);
}

#[test]
fn embed_writes_an_array_that_numpy_reads() {
    let daemon = Daemon::start();
    let file = daemon.folder.path().join("rows.npy");
    let lines: String = (0..2500).map(|n| format!("line {n}\n")).collect();
    let output = ask(&daemon, &["embed", "--format", "npy", "-o", file.to_str().unwrap()], &lines);
    assert_eq!(good(&output), "");
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header_len = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(bytes.len() - header_len, 2500 * 128 * 4);
    let last: Vec<f32> = bytes[bytes.len() - 512..]
        .chunks_exact(4)
        .map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
        .collect();
    assert_eq!(daemon.model("builtin").embed_one("line 2499").unwrap().row(0), last);
    let to_stdout = ask(&daemon, &["embed", "--format", "npy"], &lines);
    assert_eq!(to_stdout.stdout, bytes);
}

#[test]
fn embed_names_the_file_that_it_cannot_read() {
    let daemon = Daemon::start();
    let missing = ask(&daemon, &["embed", "--file", "/nowhere/lines"], "");
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("/nowhere/lines"), "{}", err(&missing));
    let file = daemon.folder.path().join("latin1");
    std::fs::write(&file, b"good\ncaf\xe9\n").unwrap();
    let latin = ask(&daemon, &["embed", "--file", file.to_str().unwrap()], "");
    assert_eq!(latin.status.code(), Some(1));
    assert!(err(&latin).contains("line 2"), "{}", err(&latin));
    let unknown = ask(&daemon, &["embed", "--model", "nope", "text"], "");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("MODEL_NOT_CONFIGURED"), "{}", err(&unknown));
}

#[test]
fn an_output_file_is_there_whole_or_not_at_all() {
    let daemon = Daemon::start();
    let file = daemon.folder.path().join("rows.npy");
    let files = || {
        let entries = std::fs::read_dir(daemon.folder.path()).unwrap().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("rows.npy")).count()
    };
    let name = file.to_str().unwrap();
    // The second text is larger than a request can be.
    let lines = format!("short\n{}\n", "x".repeat(40 << 20));
    let args = ["embed", "--format", "npy", "--batch", "1", "--output", name];
    let failed = ask(&daemon, &args, &lines);
    assert_eq!(failed.status.code(), Some(1));
    assert!(err(&failed).contains("LIMIT_EXCEEDED"), "{}", err(&failed));
    assert_eq!(files(), 0);
    good(&ask(&daemon, &args, "short\nlong\n"));
    assert!(file.exists() && files() == 1);
    // Many texts that are too large together for one request.
    let lines = format!("{}\n", " ".repeat(1 << 20)).repeat(40);
    good(&ask(&daemon, &["embed", "--format", "npy", "--output", name], &lines));
    let full = ask(&daemon, &["embed", "--output", "/dev/full"], "a text\n");
    assert_eq!(full.status.code(), Some(1));
    assert!(err(&full).contains("/dev/full"), "{}", err(&full));
}

#[test]
fn an_output_file_replaces_what_a_link_names_and_keeps_its_mode() {
    let daemon = Daemon::start();
    let folder = daemon.folder.path();
    let [target, link, beside] = ["kept", "link", "kept.partial"].map(|name| folder.join(name));
    std::fs::write(&target, "old").unwrap();
    std::fs::set_permissions(&target, Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::symlink("kept", &link).unwrap();
    std::fs::write(&beside, "of somebody else").unwrap();
    good(&ask(&daemon, &["embed", "text", "-o", link.to_str().unwrap()], ""));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let metadata = std::fs::metadata(&target).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o604);
    assert!(std::fs::read_to_string(&target).unwrap().contains("embedding"));
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), "of somebody else");
    // Anything but a regular file is written in place.
    good(&ask(&daemon, &["embed", "text", "-o", "/dev/null"], ""));
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    assert!(good(&ask(&daemon, &["embed", "text", "-o", "/dev/stdout"], "")).contains("embedding"));
}

#[test]
fn an_unreadable_settings_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = emberd(&["config", "show"]);
    command.env("EMBERD_CPU_WORKERS", OsStr::from_bytes(b"\xff"));
    let refused = run(command, "");
    assert_eq!(refused.status.code(), Some(4));
    assert!(err(&refused).contains("EMBERD_CPU_WORKERS is not UTF-8"), "{}", err(&refused));

    let file = folder.path().join("emberd/emberd.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/nowhere/emberd.toml", &file).unwrap();
    let mut command = emberd(&["config", "show"]);
    command.env("XDG_CONFIG_HOME", folder.path());
    let refused = run(command, "");
    assert_eq!(refused.status.code(), Some(4));
    assert!(err(&refused).contains(file.to_str().unwrap()), "{}", err(&refused));
}

#[test]
fn an_empty_socket_variable_names_no_socket() {
    let daemon = Daemon::start();
    let runtime_dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(daemon.folder.path(), runtime_dir.path().join("emberd")).unwrap();
    let mut command = emberd(&["status"]);
    command.env("EMBERD_SOCKET", "").env("XDG_RUNTIME_DIR", runtime_dir.path());
    assert!(good(&run(command, "")).contains("builtin"));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let daemon = Daemon::start();
    let script = format!(
        "seq 1 5000 | {} embed --socket {} | head -n 1 >/dev/null; exit ${{PIPESTATUS[1]}}",
        crate::support::EMBERD,
        daemon.socket().display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(err(&output), "");
}

#[test]
fn status_and_models_are_for_people_and_for_programs() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    model.embed(&["some", "texts"]).unwrap();
    let people = good(&ask(&daemon, &["status"], ""));
    assert!(people.contains("builtin") && people.contains("ready"), "{people}");
    let status: Value =
        serde_json::from_str(&good(&ask(&daemon, &["status", "--json"], ""))).unwrap();
    assert_eq!(status["daemon"]["pid"], daemon.child.id());
    assert_eq!(status["models"][0]["id"], "builtin");
    assert_eq!(status["models"][0]["state"], "ready");
    assert_eq!(status["models"][0]["texts"], 2);
    assert_eq!(status["leases"][0]["pid"], std::process::id());
    let models: Value =
        serde_json::from_str(&good(&ask(&daemon, &["models", "--json"], ""))).unwrap();
    assert_eq!(models[0]["id"], "builtin");
    assert_eq!(models[0]["source"], "builtin:static-minilm");
    let people = good(&ask(&daemon, &["models"], ""));
    assert!(people.contains("builtin:static-minilm"), "{people}");
}

#[test]
fn a_status_fits_100_columns_however_long_ids_and_paths_are() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(200);
    let missing = folder.path().join(&long).join("model");
    let id = format!("organisation-{}-the-end", "of-models-".repeat(10));
    let model = |id: &str, path: &str| {
        format!("models.{id}.type = \"embedding\"\nmodels.{id}.local_path = {path:?}\n")
    };
    let folder_model = crate::support::tiny_model(folder.path());
    let settings =
        model(&id, folder_model.to_str().unwrap()) + &model("bad", missing.to_str().unwrap());
    let daemon = Daemon::with_settings(&settings);
    daemon.model(&id).embed(&["a text"]).unwrap();
    daemon.client().embedding_model("bad").unwrap_err();
    let held = daemon.model("builtin");
    let text = good_output(&daemon, &["status"]);
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let header = text.lines().find(|line| line.starts_with("MODEL")).unwrap();
    let columns: Vec<_> = header.split_whitespace().collect();
    let expected = ["MODEL", "KIND", "STATE", "DEVICE", "MEMORY", "LEASES", "UNLOADS"];
    assert_eq!(columns, expected);
    let row = text.lines().find(|line| line.starts_with("organi")).unwrap();
    assert!(row.contains('…') && row.contains("-the-end") && row.contains("idle"), "{row}");
    assert!(text.contains("bad cannot be loaded") && text.contains("  failed"), "{text}");

    let wide = good_output(&daemon, &["status", "--wide"]);
    assert!(wide.contains(&id) && wide.contains(&long), "{wide}");
    for header in ["DEVICE", "LEASE", "PROCESS", "REQUEST"] {
        assert!(wide.lines().any(|line| line.starts_with(header)), "{header} is missing:\n{wide}");
    }
    drop(held);
}

#[test]
fn a_watched_status_fits_its_terminal() {
    let mut settings = String::new();
    for n in 0..40 {
        settings += &format!("models.m{n}.type = \"embedding\"\n");
        settings += &format!("models.m{n}.name = \"builtin:static-minilm\"\n");
    }
    let daemon = Daemon::with_settings(&settings);
    for (rows, columns, args) in [(12, 60, &[][..]), (12, 60, &["--wide"]), (80, 120, &[])] {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let terminal = openpty(Some(&size), None).unwrap();
        let mut command = emberd(&["status", "--watch", "--every", "0.1"]);
        command.args(args).env("EMBERD_SOCKET", daemon.socket());
        let mut child =
            command.stdin(Stdio::null()).stdout(terminal.slave).stderr(Stdio::null()).spawn();
        let child = child.as_mut().unwrap();
        // Our copy of the other end.
        drop(command);
        let mut printed = String::new();
        let mut screen = std::fs::File::from(terminal.master);
        let mut buffer = [0; 4096];
        while printed.matches("\x1b[H\x1b[J").count() < 3 {
            let len = screen.read(&mut buffer).unwrap();
            printed.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let page = printed.split("\x1b[H\x1b[J").nth(1).unwrap();
        let lines: Vec<_> = page.lines().collect();
        assert!(lines.len() < usize::from(rows), "{} lines:\n{page}", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= usize::from(columns), "{line}");
        }
        let is_cut = lines.last().unwrap().ends_with("more lines do not fit");
        assert_eq!(is_cut, rows == 12, "{page}");
    }
}

#[test]
fn config_is_shown_checked_and_queried() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("emberd.toml");
    std::fs::write(&file, "segments.wait_ms = 5\n").unwrap();
    let path = file.to_str().unwrap();
    let shown = good(&run(emberd(&["config", "show", "--settings", path]), ""));
    let line = shown.lines().find(|line| line.starts_with("segments.wait_ms")).unwrap();
    assert!(line.contains('5') && line.ends_with(&format!("{path}:1")), "{line}");
    let line = shown.lines().find(|line| line.starts_with("limits.leases")).unwrap();
    assert!(line.ends_with("default"), "{line}");
    let json = good(&run(emberd(&["config", "show", "--json"]), ""));
    let lines: Value = serde_json::from_str(&json).unwrap();
    let of = |key| lines.as_array().unwrap().iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(of("segments.wait_ms")["value"], 2000);
    assert_eq!(of("segments.backend")["value"], "memfd");
    assert_eq!(of("sharing.enabled")["value"], true);
    assert!(of("access.group")["value"].is_null());
    assert!(
        shown.lines().any(|line| line.starts_with("# access.group") && line.ends_with("not set"))
    );
    good(&run(emberd(&["config", "check", path]), ""));
    let report = good(&run(emberd(&["config", "check", "--json", path]), ""));
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["good"], true);

    std::fs::write(&file, "device_preference = \"cpu\"\n[segments]\n").unwrap();
    let shown = good(&run(emberd(&["config", "show", "--settings", path]), ""));
    let line = shown.lines().find(|line| line.starts_with("device_preference")).unwrap();
    assert!(line.contains("\"cpu\"") && line.ends_with(&format!("{path}:1")), "{line}");
    let twice = ["serve", "--detach", "--model", "a=/x", "--model", "a=/y"];
    assert_eq!(run(emberd(&twice), "").status.code(), Some(2));

    std::fs::write(&file, "segmnts.wait_ms = 5\nsharing.enabled = 3\n").unwrap();
    for args in [&["config", "check", path][..], &["serve", "--settings", path, "--detach"]] {
        let refused = run(emberd(args), "");
        assert_eq!(refused.status.code(), Some(4));
        let stderr = err(&refused);
        assert!(stderr.contains(&format!("{path}:1: segmnts.wait_ms")), "{stderr}");
        assert!(stderr.contains("did you mean segments.wait_ms"), "{stderr}");
        assert!(
            stderr.contains(&format!("{path}:2: sharing.enabled: expected true or")),
            "{stderr}"
        );
    }
    let refused = run(emberd(&["config", "check", "--json", path]), "");
    assert_eq!(refused.status.code(), Some(4));
    let report: Value = serde_json::from_str(&out(&refused)).unwrap();
    assert_eq!((&report["good"], report["problems"].as_array().unwrap().len()), (&false.into(), 2));
    let daemon = Daemon::start();
    let asked = good(&ask(&daemon, &["config", "model", "builtin"], ""));
    assert!(asked.contains("models.builtin.type = \"embedding\""), "{asked}");
}

#[test]
fn without_a_daemon_the_error_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    for args in [&["status"][..], &["models"], &["embed", "text"]] {
        let mut command = emberd(args);
        command.env("EMBERD_SOCKET", &path);
        let output = run(command, "");
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        let stderr = err(&output);
        let todo = format!("start it with `emberd serve --socket {}`", path.display());
        assert!(stderr.contains(&todo), "{stderr}");
    }
}

#[test]
fn wrong_usage_is_explained() {
    let wrong = run(emberd(&["embed", "--format", "xml", "text"]), "");
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = run(emberd(&["serve", "--model", "no-folder"]), "");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("ID=FOLDER"), "{}", err(&wrong));
    let mut nowhere = emberd(&["serve"]);
    nowhere.env("HF_ENDPOINT", "hub.example");
    let wrong = run(nowhere, "");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        err(&wrong).contains("HF_ENDPOINT is \"hub.example\": give the address"),
        "{}",
        err(&wrong)
    );
    let wrong = run(emberd(&["serve", "--model", "builtin=/tmp"]), "");
    assert_eq!(wrong.status.code(), Some(2));
    let help = good(&run(emberd(&["--help"]), ""));
    for word in ["serve", "embed", "status", "models", "config", "Exit codes"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    assert!(good(&run(emberd(&["man"]), "")).contains(".TH emberd"));
    assert!(good(&run(emberd(&["completions", "bash"]), "")).contains("_emberd"));
}

#[test]
fn the_users_own_settings_file_is_read_where_no_other_is_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("emberd");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("emberd.toml"), "limits.leases = 7\n").unwrap();
    let shown = |more: &[&str]| {
        let mut command = emberd(&["config", "show"]);
        command.args(more).env("XDG_CONFIG_HOME", home.path());
        let output = run(command, "");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.starts_with("limits.leases ")).unwrap().to_owned()
    };
    assert!(shown(&[]).contains("7") && shown(&[]).contains("emberd.toml:1"), "{}", shown(&[]));
    let other = home.path().join("other.toml");
    std::fs::write(&other, "").unwrap();
    assert!(shown(&["--settings", other.to_str().unwrap()]).contains("default"));
}
