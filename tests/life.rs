use crate::support::{ClientProcess, Daemon, code_of, emberd, eventually, run, texts, tiny_model};
use emberd_client::Client;
use emberd_protocol::{ErrorCode, Event, ModelId, ModelState, ModelStatus, Verdict};
use std::path::Path;

/// Settings of models `a`, `b`, `c`, each in its own folder.
fn models(folder: &Path, names: &[&str], more: &str) -> String {
    let of = |name: &&str| {
        let home = folder.join(name);
        std::fs::create_dir_all(&home).unwrap();
        let model = tiny_model(&home);
        format!(
            "models.{name}.type = \"embedding\"\nmodels.{name}.local_path = \"{}\"\n",
            model.display()
        )
    };
    names.iter().map(of).collect::<String>() + more
}

fn status_of(daemon: &Daemon, model: &str) -> ModelStatus {
    let models = daemon.status().models;
    models.into_iter().find(|status| status.id.as_str() == model).unwrap()
}

fn in_memory(daemon: &Daemon) -> Vec<String> {
    let loaded = |model: &ModelStatus| model.copies > 0;
    daemon.status().models.iter().filter(|m| loaded(m)).map(|m| m.id.to_string()).collect()
}

#[test]
fn an_idle_model_is_unloaded_and_reloaded_on_demand() {
    let daemon = Daemon::with_settings("sharing.unload_after_seconds = 1\n");
    let model = daemon.model("builtin");
    let first = model.embed(&texts(3)).unwrap();
    assert_eq!(status_of(&daemon, "builtin").unload_in_ms, None, "it is held");
    model.release().unwrap();
    let status = status_of(&daemon, "builtin");
    assert_eq!(status.state, ModelState::Idle);
    assert!(status.unload_in_ms.is_some_and(|ms| ms <= 1000));
    eventually("it has left", || status_of(&daemon, "builtin").state == ModelState::Configured);
    let status = status_of(&daemon, "builtin");
    assert_eq!((status.loads, status.unloads, status.copies), (1, 1, 0));
    let again = daemon.client().generate_embeddings(&texts(3), "builtin").unwrap();
    assert_eq!(first.as_slice(), again.as_slice());
    assert_eq!(status_of(&daemon, "builtin").loads, 2);
}

#[test]
fn a_leased_model_stays_loaded_without_requests() {
    let daemon = Daemon::with_settings("sharing.unload_after_seconds = 0\n");
    let held = ClientProcess::start(&daemon, "hold", "builtin", 500);
    let client = daemon.client();
    for _ in 0..50 {
        client.cleanup_unused_models().unwrap();
        assert_eq!(status_of(&daemon, "builtin").state, ModelState::Ready);
    }
    drop(held);
    eventually("it has left", || in_memory(&daemon).is_empty());
}

#[test]
fn leases_do_not_keep_models_without_reference_counting() {
    let daemon = Daemon::with_settings(
        "sharing.unload_after_seconds = 0\nsharing.reference_counting = false\n",
    );
    let model = daemon.model("builtin");
    eventually("it has left", || in_memory(&daemon).is_empty());
    assert_eq!(daemon.leases(), 1);
    assert_eq!(model.embed(&texts(3)).unwrap().len(), 3, "the lease is good all the same");
}

#[test]
fn beyond_the_maximum_the_least_recently_used_idle_model_is_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = models(folder.path(), &["a", "b", "c"], "sharing.max_shared_models = 2\n");
    let daemon = Daemon::with_settings(&settings);
    let client = daemon.client();
    let held = client.embedding_model("a").unwrap();
    client.generate_embeddings(&texts(1), "b").unwrap();
    client.generate_embeddings(&texts(1), "c").unwrap();
    assert_eq!(in_memory(&daemon), ["a", "c"]);
    let other = client.embedding_model("c").unwrap();
    let failure = client.embedding_model("b").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::LimitExceeded), "{failure}");
    assert!(failure.to_string().contains("\"a\", \"c\""), "{failure}");
    let why = client.why("b").unwrap();
    let verdicts: Vec<_> = why.iter().map(|decision| decision.verdict).collect();
    assert_eq!(verdicts[..2], [Verdict::Refuse, Verdict::Evict], "{why:?}");
    let plan = client.plan("b").unwrap();
    assert_eq!(plan.verdict, Verdict::Refuse);
    drop((held, other));
    eventually("room", || client.plan("b").unwrap().evicts.len() == 1);
    assert_eq!(in_memory(&daemon), ["a", "c"], "a plan changes nothing");
    assert_eq!(client.embedding_model("b").unwrap().embed(&texts(2)).unwrap().len(), 2);
}

#[test]
fn an_unshared_model_is_loaded_for_each_lease_and_unloaded_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for setting in ["models.a.shared = false\n", "sharing.enabled = false\n"] {
        let daemon = Daemon::with_settings(&models(folder.path(), &["a"], setting));
        let client = daemon.client();
        let leases = [client.embedding_model("a").unwrap(), client.embedding_model("a").unwrap()];
        assert_eq!(leases[0].embed(&texts(2)).unwrap().len(), 2);
        assert_eq!(status_of(&daemon, "a").copies, 2);
        leases[0].release().unwrap();
        eventually("one is left", || status_of(&daemon, "a").copies == 1);
        assert_eq!(leases[1].embed(&texts(2)).unwrap().len(), 2);
        drop(leases);
        eventually("none is left", || status_of(&daemon, "a").copies == 0);
        assert_eq!(client.generate_embeddings(&texts(1), "a").unwrap().len(), 1);
        eventually("none is left", || status_of(&daemon, "a").copies == 0);
        let failure = client.preload("a").unwrap_err();
        assert_eq!(failure.code(), Some(ErrorCode::InvalidRequest), "{failure}");
    }
}

#[test]
fn preload_unload_and_cleanup_report_their_results() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_settings(&models(folder.path(), &["a", "b"], ""));
    let client = daemon.client();
    let mut events = Vec::new();
    assert!(!client.preload_with("a", |event| events.push(event)).unwrap().was_loaded);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Reading { need_bytes } if *need_bytes > 0)),
        "{events:?}"
    );
    assert!(client.preload("a").unwrap().was_loaded);
    let need = status_of(&daemon, "a").memory_bytes;
    assert!(need > 400_000, "{need}");
    let held = client.embedding_model("a").unwrap();
    let failure = client.unload("a").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::ReferenceError), "{failure}");
    assert!(failure.to_string().contains("1 lease holds it"), "{failure}");
    held.release().unwrap();
    let freed = client.unload("a").unwrap();
    assert_eq!((freed.models.len(), freed.bytes), (1, need));
    assert!(in_memory(&daemon).is_empty());
    assert!(client.unload("a").unwrap().models.is_empty());
    assert_eq!(code_of(client.unload("nothing").map(drop)), ErrorCode::ModelNotConfigured);

    client.preload("a").unwrap();
    let used = client.embedding_model("b").unwrap();
    let freed = client.cleanup_unused_models().unwrap();
    assert_eq!(freed.models.iter().map(ModelId::as_str).collect::<Vec<_>>(), ["a"]);
    assert_eq!(in_memory(&daemon), ["b"]);
    drop(used);
}

#[test]
fn the_commands_report_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::with_settings(&models(folder.path(), &["a"], ""));
    let ask = |args: &[&str]| {
        let mut command = emberd(args);
        command.env("EMBERD_SOCKET", daemon.socket());
        let output = run(command, "");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["why", "a"]).contains("no decisions about a yet"));
    assert!(ask(&["plan", "a"]).contains("load on cpu, needs"));
    assert!(ask(&["preload", "a"]).contains("a is in memory after"));
    assert!(ask(&["preload", "a"]).contains("already"));
    assert!(ask(&["plan", "a"]).contains("stay on cpu"));
    assert!(ask(&["why", "a"]).contains("load on cpu"));
    let json: serde_json::Value = serde_json::from_str(&ask(&["why", "a", "--json"])).unwrap();
    assert_eq!(json[0]["verdict"], "load");
    let status = ask(&["status"]);
    assert!(status.contains("cpu x") && status.contains("DEVICE"), "{status}");
    assert!(ask(&["unload", "a"]).contains("unloaded a ("));
    assert!(ask(&["cleanup"]).contains("nothing"));
    assert!(ask(&["clear-cache"]).contains("0 rows"));
}

#[test]
fn a_failed_load_is_reported_until_the_next_try() {
    let folder = tempfile::tempdir().unwrap();
    let settings = models(folder.path(), &["good", "bad"], "");
    let daemon = Daemon::with_settings(&settings);
    let file = folder.path().join("bad/model/model.safetensors");
    let weights = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"nothing").unwrap();
    let client = daemon.client();
    for _ in 0..20 {
        let failure = client.embedding_model("bad").unwrap_err();
        assert_eq!(failure.code(), Some(ErrorCode::ModelLoadError));
        assert!(failure.to_string().contains("the next attempt is in"), "{failure}");
        assert_eq!(client.generate_embeddings(&texts(1), "good").unwrap().len(), 1);
    }
    let status = status_of(&daemon, "bad");
    assert!(status.failure.is_some() && status.retry_in_ms.is_some_and(|ms| ms <= 60_000));
    let failures = daemon.log().matches("load failed").count();
    assert!(failures < 5, "it was tried {failures} times");
    std::fs::write(&file, weights).unwrap();
    eventually("its time comes", || client.embedding_model("bad").is_ok());
    assert_eq!(status_of(&daemon, "bad").failure, None);
}

#[test]
fn a_model_that_can_never_fit_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let daemon =
        Daemon::with_settings(&models(folder.path(), &["a"], "models.a.device = \"cuda:7\"\n"));
    let failure = daemon.client().embedding_model("a").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::DeviceError), "{failure}");
    assert!(failure.to_string().contains("cuda:7"), "{failure}");
    let daemon =
        Daemon::with_settings(&models(folder.path(), &["a"], "device_preference = \"gpu\"\n"));
    let failure = daemon.client().embedding_model("a").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::DeviceError), "{failure}");
    // The built-in models run on the CPU.
    daemon.model("builtin").embed(&["a text"]).unwrap();
    // Before anything is looked up or fetched.
    let more = "models.b.type = \"embedding\"\nmodels.b.name = \"org/never-asked-for\"\n\
                device_preference = \"gpu\"\n";
    let daemon = Daemon::with_settings(&(more.to_owned() + &models(folder.path(), &["a"], "")));
    let failure = daemon.client().embedding_model("b").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::DeviceError), "{failure}");
    assert!(failure.to_string().contains("\"auto\" or \"cpu\""), "{failure}");
}

#[test]
fn running_work_finishes_before_its_model_is_unloaded() {
    let daemon = Daemon::gated(Some("sharing.max_shared_models = 1"));
    let mut asker = ClientProcess::start(&daemon, "ask-once", "gated", 5);
    let client = daemon.client();
    eventually("it computes", || status_of(&daemon, "gated").busy == 1);
    std::thread::scope(|scope| {
        let unloading = scope.spawn(|| client.unload("gated").unwrap());
        eventually("it drains", || status_of(&daemon, "gated").state == ModelState::Draining);
        // Later requests to unload it wait for the same unload.
        let other = daemon.client();
        let again = scope.spawn(move || other.unload("gated").unwrap());
        eventually("both wait", || {
            let connections = daemon.status().connections;
            connections.iter().filter(|c| c.requests_in_flight > 0).count() == 3
        });
        daemon.open_gate();
        assert_eq!(unloading.join().unwrap().models.len(), 1);
        assert_eq!(again.join().unwrap().models.len(), 1);
    });
    assert_eq!(asker.line(), "answered");
}

#[test]
fn memory_is_returned_over_fifty_loads() {
    let Some(folder) = crate::support::minilm() else { return };
    // The cache is off, so that each round computes.
    let daemon = Daemon::with_settings(&format!(
        "embedding_cache.enabled = false\nmodels.minilm.type = \"embedding\"\n\
         models.minilm.local_path = {:?}\n",
        folder.display().to_string()
    ));
    // Only models, no segments that are made ahead of time.
    daemon.settled_descriptors();
    let client = Client::builder().inline_only().connect_to(daemon.socket()).unwrap();
    let resident = || client.status().unwrap().daemon.resident_bytes;
    // And no pages of the program's own file, which the kernel drops and reloads as it likes.
    let own = || daemon.own_resident_bytes();
    let round = || {
        let (all, before) = (resident(), own());
        client.generate_embeddings(&texts(64), "minilm").unwrap();
        assert!(own() > before + 80_000_000, "the weights are in memory");
        assert_eq!(client.unload("minilm").unwrap().models.len(), 1);
        let more = own().saturating_sub(before);
        assert!(more <= all / 10, "{more} bytes more, {all} before");
    };
    // The first load allocates memory that stays: thread stacks, the allocator's arenas.
    client.generate_embeddings(&texts(64), "minilm").unwrap();
    client.unload("minilm").unwrap();
    let (all, first) = (resident(), own());
    (0..50).for_each(|_| round());
    let more = own().saturating_sub(first);
    assert!(more <= all / 10, "{more} bytes more after fifty rounds, {all} before");
    let status = status_of(&daemon, "minilm");
    assert_eq!((status.loads, status.unloads), (51, 51));
}

#[test]
fn the_status_reports_times_tokens_and_devices() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    model.embed(&texts(100)).unwrap();
    let status = daemon.status();
    let embed = status.latencies.iter().find(|latency| latency.kind == "embed").unwrap();
    assert!(embed.count >= 1 && embed.p50_us > 0 && embed.p50_us <= embed.p99_us);
    assert!(embed.p99_us <= embed.max_us);
    assert_eq!(status.devices[0].device, "cpu");
    assert!(status.devices[0].total_bytes > status.devices[0].free_bytes);
    let builtin = status_of(&daemon, "builtin");
    assert!(builtin.tokens > 100 && builtin.queue_wait_p99_us >= builtin.queue_wait_p50_us);
    let client = Client::builder().name("tester").connect_to(daemon.socket()).unwrap();
    let _lease = client.model("builtin").unwrap();
    let lease = daemon.status().leases.into_iter().find(|lease| lease.client == "tester").unwrap();
    assert_eq!(lease.pid, std::process::id());
}

#[test]
fn batches_and_workers_are_as_many_as_the_settings_say() {
    let folder = tempfile::tempdir().unwrap();
    let more = "models.a.batch_size = 1\ncpu_workers = 3\nembedding_cache.enabled = false\n";
    let daemon = Daemon::with_settings(&models(folder.path(), &["a", "b"], more));
    for model in ["a", "b"] {
        daemon.client().generate_embeddings(&texts(64), model).unwrap();
    }
    let (single, many) = (status_of(&daemon, "a"), status_of(&daemon, "b"));
    assert_eq!((single.workers, many.workers), (3, 3));
    assert_eq!((single.texts, single.batches), (64, 64), "one text a batch");
    assert!(many.batches < 64, "{} batches of up to 32 texts", many.batches);
}

#[test]
fn wrong_requests_are_refused_by_model_type_before_a_load() {
    let folder = tempfile::tempdir().unwrap();
    let more = "models.b.type = \"text2text\"\nmodels.b.name = \"org/never-asked-for\"\n";
    let daemon = Daemon::with_settings(&models(folder.path(), &["a"], more));
    let client = daemon.client();
    let failure = client.generate_embeddings(&texts(1), "b").unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::WrongModelType), "{failure}");
    assert!(failure.to_string().contains("generate or fill-mask"), "{failure}");
    assert_eq!(status_of(&daemon, "b").failure, None, "nobody has looked for its files");
    let failure = client.text_model("a").map(drop).unwrap_err();
    assert_eq!(failure.code(), Some(ErrorCode::WrongModelType), "{failure}");
    assert_eq!(status_of(&daemon, "a").loads, 0);
    assert_eq!(client.generate_embeddings(&texts(1), "a").unwrap().len(), 1);
}

#[test]
fn models_are_listed_with_their_types_sources_and_states() {
    let folder = tempfile::tempdir().unwrap();
    let more = "models.b.type = \"text2text\"\nmodels.b.name = \"org/some\"\n";
    let daemon = Daemon::with_settings(&models(folder.path(), &["a"], more));
    let client = daemon.client();
    let listed = || -> Vec<(String, String, ModelState)> {
        let models = client.available_models().unwrap();
        let of = |model: emberd_protocol::ModelSummary| {
            (format!("{} {}", model.id, model.model_type), model.source, model.state)
        };
        models.into_iter().map(of).collect()
    };
    let path = folder.path().join("a/model").display().to_string();
    let idle = ModelState::Configured;
    let expected = [
        ("a embedding", path.as_str()),
        ("b text2text", "org/some"),
        ("builtin embedding", "builtin:static-minilm"),
        ("builtin-t5 text2text", "builtin:verbalizer-t5"),
    ];
    let expected = expected.map(|(name, source)| (name.to_owned(), source.to_owned(), idle));
    assert_eq!(listed(), expected);
    let held = client.embedding_model("a").unwrap();
    assert_eq!(listed()[0].2, ModelState::Ready);
    held.release().unwrap();
    assert_eq!(listed()[0].2, ModelState::Idle);
}

#[test]
fn a_status_with_too_many_leases_reports_how_many_are_left_out() {
    let daemon = Daemon::with_settings("limits.leases = 100000\n");
    let client = daemon.client();
    let leases: Vec<_> = (0..5000).map(|_| client.model("builtin").unwrap()).collect();
    let status = client.status().unwrap();
    assert!(status.leases_left_out > 0 && !status.leases.is_empty());
    assert_eq!(status.leases.len() as u64 + status.leases_left_out, 5000);
    assert_eq!(status_of(&daemon, "builtin").leases, 5000);
    let mut command = emberd(&["status", "--wide"]);
    command.env("EMBERD_SOCKET", daemon.socket());
    let stdout = String::from_utf8(run(command, "").stdout).unwrap();
    assert!(stdout.contains("more leases are not listed"), "{stdout}");
    drop(leases);
}
