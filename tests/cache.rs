use crate::support::{ClientProcess, Daemon, code_of, emberd, eventually, run, texts, tiny_model};
use emberd_client::{Client, Embeddings};
use emberd_protocol::{CacheStatus, ErrorCode, ModelStatus};
use nix::sys::signal::Signal;
use std::path::Path;

/// Settings for models from the same tiny folder, with extra lines for each.
fn models(folder: &Path, models: &[(&str, &str)]) -> String {
    let path = tiny_model(folder);
    let of = |(name, more): &(&str, &str)| {
        let path = path.display();
        format!("[models.{name}]\ntype = \"embedding\"\nlocal_path = \"{path}\"\n{more}\n")
    };
    models.iter().map(of).collect()
}

fn status_of(daemon: &Daemon, model: &str) -> ModelStatus {
    let models = daemon.status().models;
    models.into_iter().find(|status| status.id.as_str() == model).unwrap()
}

/// How many texts of a model were computed, and how many were not.
fn counts(daemon: &Daemon, model: &str) -> (u64, u64) {
    let status = status_of(daemon, model);
    (status.texts, status.texts_cached)
}

fn cache(daemon: &Daemon) -> CacheStatus {
    daemon.status().cache
}

fn bits(rows: &Embeddings) -> Vec<u32> {
    rows.as_slice().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_text_is_computed_once_for_all_processes_and_its_bits_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_settings(&models(folder.path(), &[("tiny", "")]));
    let texts = texts(300);
    let first = daemon.model("tiny").embed(&texts).unwrap();
    assert!(first.is_shared() && first.tokens() > 300);
    assert_eq!(counts(&daemon, "tiny"), (300, 0));
    // Another connection, inline, in another order.
    let inline = Client::builder().inline_only().connect_to(daemon.socket()).unwrap();
    let reversed: Vec<&String> = texts.iter().rev().collect();
    let again = inline.generate_embeddings(&reversed, "tiny").unwrap();
    let of_first: Vec<u32> =
        (0..300).rev().flat_map(|at| first.row(at)).map(|value| value.to_bits()).collect();
    assert_eq!(bits(&again), of_first);
    assert_eq!(again.tokens(), 0, "nothing was computed");
    // Another process, with other texts.
    let mut process = ClientProcess::start(&daemon, "ask", "tiny", 10);
    assert_eq!(process.line(), "answered");
    let (computed, cached) = counts(&daemon, "tiny");
    assert_eq!(computed + cached, 610);
    let status = cache(&daemon);
    assert!(status.is_enabled && status.max_entries == 10_000 && status.failure.is_none());
    assert_eq!((status.entries, status.hits, status.misses), (computed, cached, computed));
    assert!(status.bytes > 300 * 32 * 4);
}

#[test]
fn a_text_that_occurs_twice_in_a_request_is_computed_once() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    let texts: Vec<String> = (0..90).map(|n| format!("text {}", n % 30)).collect();
    let rows = model.embed(&texts).unwrap();
    assert_eq!(counts(&daemon, "builtin"), (30, 60));
    assert_eq!((rows.row(7), rows.row(8)), (rows.row(67), rows.row(38)));
}

#[test]
fn truncation_is_reported_for_cached_rows_too() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_settings(&models(folder.path(), &[("tiny", "")]));
    let model = daemon.model("tiny");
    let texts = ["short".to_owned(), "a long one ".repeat(500), "short too".to_owned()];
    for round in 0..3 {
        let rows = model.embed(&texts).unwrap();
        assert_eq!(rows.truncated(), [1], "round {round}");
    }
    assert_eq!(counts(&daemon, "tiny"), (3, 6));
}

#[test]
fn rows_are_evicted_beyond_the_maximum_and_expire() {
    let settings = "embedding_cache.max_cache_size = 10\nembedding_cache.ttl_seconds = 1\n";
    let daemon = Daemon::with_settings(settings);
    let model = daemon.model("builtin");
    let texts = texts(25);
    model.embed(&texts).unwrap();
    let status = cache(&daemon);
    assert_eq!((status.entries, status.max_entries, status.evictions), (10, 10, 15));
    model.embed(&texts[..1]).unwrap();
    assert_eq!(counts(&daemon, "builtin").0, 26, "it had left for a later one");
    eventually("rows are too old after a second", || {
        let before = counts(&daemon, "builtin").0;
        model.embed(&texts[..1]).unwrap();
        counts(&daemon, "builtin").0 > before
    });
    assert!(cache(&daemon).expired > 0);
}

#[test]
fn the_cache_can_be_disabled_for_a_model_or_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let settings = models(folder.path(), &[("kept", ""), ("fresh", "cache_embeddings = false")]);
    let daemon = Daemon::with_settings(&settings);
    for model in ["kept", "fresh"] {
        let model = daemon.model(model);
        let first = model.embed(&texts(20)).unwrap();
        assert_eq!(bits(&first), bits(&model.embed(&texts(20)).unwrap()));
    }
    assert_eq!(counts(&daemon, "kept"), (20, 20));
    assert_eq!(counts(&daemon, "fresh"), (40, 0));

    let daemon = Daemon::with_settings("embedding_cache.enabled = false\n");
    let model = daemon.model("builtin");
    (0..2).for_each(|_| drop(model.embed(&texts(20)).unwrap()));
    assert_eq!(counts(&daemon, "builtin"), (40, 0));
    let status = cache(&daemon);
    assert!(!status.is_enabled && status.entries == 0 && status.misses == 0);
}

#[test]
fn clearing_reports_its_result_and_the_next_request_computes() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    model.embed(&texts(50)).unwrap();
    let before = cache(&daemon);
    let cleared = daemon.client().clear_embedding_cache().unwrap();
    assert_eq!((cleared.entries, cleared.bytes), (before.entries, before.bytes));
    assert_eq!((cleared.entries, cache(&daemon).entries, cache(&daemon).bytes), (50, 0, 0));
    model.embed(&texts(50)).unwrap();
    assert_eq!(counts(&daemon, "builtin"), (100, 0));
    let socket = daemon.socket();
    let output = run(emberd(&["clear-cache", "--json", "--socket", socket.to_str().unwrap()]), "");
    let cleared: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(cleared["entries"], 50);
}

/// A cut row is as long as it should be and normalised, and no text was computed for it.
#[test]
fn one_entry_serves_every_dimension() {
    let folder = tempfile::tempdir().unwrap();
    let settings = models(
        folder.path(),
        &[
            ("whole", ""),
            ("cut", "dimension = 8"),
            ("all", "dimension = 32"),
            ("more", "dimension = 33"),
        ],
    );
    let daemon = Daemon::with_settings(&settings);
    let texts = texts(40);
    let cut = daemon.model("cut").embed(&texts).unwrap();
    let whole = daemon.model("whole").embed(&texts).unwrap();
    assert_eq!((cut.dimension(), whole.dimension()), (8, 32));
    for at in 0..texts.len() {
        let head = &whole.row(at)[..8];
        let norm = head.iter().map(|x| x * x).sum::<f32>().sqrt();
        let is_near = |(a, b): (&f32, &f32)| (a - b / norm).abs() < 1e-6;
        assert!(cut.row(at).iter().zip(head).all(is_near), "row {at}");
    }
    assert_eq!(bits(&daemon.model("all").embed(&texts).unwrap()), bits(&whole));
    assert_eq!((counts(&daemon, "cut"), counts(&daemon, "whole")), ((40, 0), (0, 40)));
    let refused = daemon.client().embedding_model("more").unwrap_err();
    assert!(refused.to_string().contains("32 values, not 33"), "{refused}");
    assert_eq!(code_of(daemon.client().embedding_model("more")), ErrorCode::ModelLoadError);
}

/// Settings that keep rows in a file of this folder.
fn kept_in(folder: &Path) -> String {
    let file = folder.join("rows.redb");
    format!("embedding_cache.persist_to_disk = true\nembedding_cache.file = {file:?}\n")
}

#[test]
fn rows_on_disk_outlive_a_daemon_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = kept_in(folder.path());
    let first = {
        let daemon = Daemon::with_settings(&settings);
        let rows = daemon.model("builtin").embed(&texts(200)).unwrap();
        eventually("they are written behind", || cache(&daemon).persisted_entries == 200);
        daemon.signal(Signal::SIGKILL);
        bits(&rows)
    };
    let mut daemon = Daemon::with_settings(&settings);
    eventually("they are read", || cache(&daemon).entries == 200);
    let again = daemon.model("builtin").embed(&texts(200)).unwrap();
    assert_eq!(bits(&again), first);
    assert_eq!(counts(&daemon, "builtin"), (0, 200));
    // Cleared rows do not come back, and a clean shutdown does not lose the rows computed last.
    daemon.client().clear_embedding_cache().unwrap();
    daemon.model("builtin").embed(&texts(3)).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait().success());
    let daemon = Daemon::with_settings(&settings);
    eventually("they are read", || cache(&daemon).entries == 3);
}

#[test]
fn a_removed_file_is_noticed_and_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_settings(&kept_in(folder.path()));
    let model = daemon.model("builtin");
    model.embed(&texts(20)).unwrap();
    eventually("they are written behind", || cache(&daemon).persisted_entries == 20);
    let file = folder.path().join("rows.redb");
    std::fs::remove_file(&file).unwrap();
    model.embed(&["another"]).unwrap();
    eventually("it is there again", || file.exists() && cache(&daemon).persisted_entries == 1);
    let failure = cache(&daemon).failure.unwrap();
    assert!(failure.contains("rows.redb") && failure.contains("removed"), "{failure}");
    assert!(daemon.log().contains("CACHE_ERROR"), "{}", daemon.log());
    assert_eq!(cache(&daemon).entries, 21, "the memory keeps what it has");
    daemon.client().clear_embedding_cache().unwrap();
    eventually("it is forgotten", || cache(&daemon).failure.is_none());
}

#[test]
fn cleared_rows_stay_cleared_if_the_daemon_is_killed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = kept_in(folder.path());
    for _ in 0..3 {
        let daemon = Daemon::with_settings(&settings);
        daemon.model("builtin").embed(&texts(200)).unwrap();
        eventually("they are written behind", || cache(&daemon).persisted_entries == 200);
        daemon.client().clear_embedding_cache().unwrap();
        daemon.signal(Signal::SIGKILL);
    }
    let daemon = Daemon::with_settings(&settings);
    let model = daemon.model("builtin");
    model.embed(&texts(200)).unwrap();
    assert_eq!(counts(&daemon, "builtin"), (200, 0));
}

#[test]
fn a_file_that_cannot_be_emptied_is_a_cache_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.redb");
    let daemon = Daemon::with_settings(&kept_in(folder.path()));
    let model = daemon.model("builtin");
    model.embed(&texts(20)).unwrap();
    eventually("they are written behind", || cache(&daemon).persisted_entries == 20);
    // Something else is at this path, and must not be removed.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let refused = daemon.client().clear_embedding_cache().unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::CacheError), "{refused}");
    assert!(refused.to_string().contains("rows.redb"), "{refused}");
    assert_eq!(cache(&daemon).entries, 0, "memory is empty");
    // A removed file is not an error.
    std::fs::remove_dir(&file).unwrap();
    daemon.client().clear_embedding_cache().unwrap();
    model.embed(&texts(20)).unwrap();
    eventually("a new file was created", || cache(&daemon).persisted_entries == 20);
}

#[test]
fn a_damaged_file_is_set_aside_and_reported_while_requests_continue() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.redb");
    std::fs::write(&file, "this is no database. ".repeat(5000)).unwrap();
    let daemon = Daemon::with_settings(&kept_in(folder.path()));
    eventually("the failure is reported", || cache(&daemon).failure.is_some());
    let failure = cache(&daemon).failure.unwrap();
    assert!(failure.contains("rows.redb") && failure.contains("set aside"), "{failure}");
    assert!(daemon.log().contains("CACHE_ERROR"), "{}", daemon.log());
    let socket = daemon.socket();
    let output = run(emberd(&["status", "--socket", socket.to_str().unwrap()]), "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("CACHE_ERROR"));
    daemon.model("builtin").embed(&texts(20)).unwrap();
    eventually("a new file was created", || cache(&daemon).persisted_entries == 20);
    let aside = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    let aside = aside.filter(|path| path.to_string_lossy().contains(".damaged-"));
    let kept: Vec<String> = aside.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(kept, ["this is no database. ".repeat(5000)]);
}

#[test]
fn a_file_that_cannot_be_written_costs_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, "a file, where a folder would have to be").unwrap();
    let daemon = Daemon::with_settings(&kept_in(&blocked));
    let model = daemon.model("builtin");
    eventually("the failure is reported", || cache(&daemon).failure.is_some());
    (0..2).for_each(|_| drop(model.embed(&texts(20)).unwrap()));
    assert_eq!(counts(&daemon, "builtin"), (20, 20), "memory has them");
    assert_eq!(cache(&daemon).persisted_entries, 0);
    eventually("what was left out is counted", || cache(&daemon).persist_skipped == 20);
}

#[test]
fn new_limits_apply_at_once_after_a_reload() {
    let daemon = Daemon::with_settings("embedding_cache.max_cache_size = 100\n");
    let model = daemon.model("builtin");
    model.embed(&texts(50)).unwrap();
    let set = |text: &str| {
        std::fs::write(daemon.settings_file(), text).unwrap();
        daemon.client().reload().unwrap()
    };
    set("embedding_cache.max_cache_size = 10\n");
    assert_eq!((cache(&daemon).entries, cache(&daemon).max_entries), (10, 10));
    set("embedding_cache.enabled = false\n");
    assert_eq!((cache(&daemon).entries, cache(&daemon).is_enabled), (0, false));
    model.embed(&texts(50)).unwrap();
    assert_eq!(counts(&daemon, "builtin"), (100, 0));
    set("");
    (0..2).for_each(|_| drop(model.embed(&texts(50)).unwrap()));
    assert_eq!(counts(&daemon, "builtin"), (150, 50));
    let reloaded = set("embedding_cache.persist_to_disk = true\n");
    let unchanged: Vec<_> = reloaded.unchanged.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(unchanged, ["embedding_cache.persist_to_disk"]);
}
