//! What is said and left when something fails.

use super::*;

/// What goes wrong with a fault that does not end. Nothing must be left that looks whole.
async fn failure(path: &'static str, what: What) -> HubError {
    let (_server, cache, hub) = scene(fault(path, usize::MAX, what)).await;
    let error = get(&hub, "main").await.unwrap_err();
    assert_nothing_looks_whole(cache.path()).await;
    assert!(!format!("{error} {error:?}").contains("hf_secret"));
    error
}

#[tokio::test]
async fn other_bytes_than_announced_are_refused() {
    let error = failure("/storage/model", What::Garbage).await;
    assert!(
        matches!(&error, HubError::Mismatch { what, .. } if what.contains("SHA-256")),
        "{error:?}"
    );
    for size in [799_999, 800_001, 0, u64::MAX] {
        let error =
            failure("resolve/0123456789abcdef0123456789abcdef01234567/model", What::Announce(size))
                .await;
        assert!(matches!(error, HubError::Mismatch { .. }), "{size}: {error:?}");
    }
}

#[tokio::test]
async fn a_slow_hub_is_waited_for_and_a_stalled_one_is_not() {
    let (_server, _cache, hub) = scene(fault("/resolve/", usize::MAX, What::Slow)).await;
    assert_whole(&get(&hub, "main").await.unwrap());

    let (_server, cache, mut hub) = scene(fault("/storage/", usize::MAX, What::Stall(5000))).await;
    hub.patience = Patience { stall: Duration::from_millis(300), tries: 1, ..hub.patience };
    let error = get(&hub, "main").await.unwrap_err();
    assert!(
        matches!(&error, HubError::CutShort { done_bytes: 5000, why, .. } if why.contains("timed out")),
        "{error:?}"
    );
    assert_nothing_looks_whole(cache.path()).await;
}

#[tokio::test]
async fn a_hub_that_wants_rest_gets_it() {
    let rest = || What::Status(429, "Retry-After: 0\r\n");
    let faults = ["/api/", "HEAD /org/tiny", "GET /org/tiny", "/storage/"].map(|path| Fault {
        path,
        times: 1,
        what: rest(),
    });
    let (server, _cache, hub) = scene(faults.to_vec()).await;
    assert_whole(&get(&hub, "main").await.unwrap());
    assert_eq!((server.count("/api/"), server.count("/storage/")), (2, 2));

    let error = failure("/api/", rest()).await;
    assert!(matches!(error, HubError::TooManyRequests { retry_after: Some(Duration::ZERO), .. }));
    // An hour is not waited for, but reported.
    let error = failure("/api/", What::Status(429, "Retry-After: 3600\r\n")).await;
    assert!(error.is_retryable() && error.to_string().contains("3600"), "{error}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for path in ["/api/", "HEAD /org", "GET /org"] {
        for status in [401, 403] {
            let error = failure(path, What::Status(status, "")).await;
            assert!(matches!(error, HubError::NeedsToken { had_token: true, .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("HF_TOKEN") && text.contains("the licence at http"), "{text}");
            assert!(!error.is_retryable());
        }
    }
    let error = failure("/api/", What::Status(401, "X-Error-Code: RepoNotFound\r\n")).await;
    assert!(matches!(error, HubError::NoSuchModel { .. }), "{error:?}");
    // Storage that refuses is asked by way of the hub again: its addresses grow old.
    let error = failure("/storage/", What::Status(403, "")).await;
    assert!(
        matches!(&error, HubError::Unreachable { why, .. } if why.contains("storage")),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let (server, cache, hub) = scene(vec![]).await;
    let error = hub.folder("org/none", "main", &|_| {}).await.unwrap_err();
    assert!(
        matches!(&error, HubError::NoSuchModel { name, .. } if name == "org/none"),
        "{error:?}"
    );
    let error = get(&hub, "v9").await.unwrap_err();
    assert!(
        matches!(&error, HubError::NoSuchRevision { revision, .. } if revision == "v9"),
        "{error:?}"
    );
    assert!(!error.is_retryable());
    server.list("vocab.txt");
    let error = get(&hub, "main").await.unwrap_err();
    assert!(
        matches!(&error, HubError::Answer { what, .. } if what.contains("vocab.txt")),
        "{error:?}"
    );
    assert_nothing_looks_whole(cache.path()).await;
}

#[tokio::test]
async fn a_hub_in_trouble_is_asked_again() {
    let (_server, _cache, hub) = scene(fault("/", 2, What::Status(503, ""))).await;
    assert_whole(&get(&hub, "main").await.unwrap());
    let error = failure("/api/", What::Status(500, "")).await;
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
    for (path, what) in [
        ("/api/", What::Nonsense),
        ("HEAD /org", What::OtherCommit),
        ("/api/", What::Status(418, "")),
    ] {
        let error = failure(path, what).await;
        assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_hub_that_is_gone_leaves_the_cache() {
    let (mut server, cache, hub) = scene(vec![]).await;
    let folder = get(&hub, "main").await.unwrap();
    server.stop().await;
    assert_eq!(get(&hub, "main").await.unwrap(), folder);
    assert_eq!(get(&hub, COMMIT).await.unwrap(), folder);
    let error = get(&hub, "v1").await.unwrap_err();
    assert!(error.to_string().contains(&server.endpoint()), "{error}");
    assert!(matches!(error, HubError::Unreachable { .. }) && error.is_retryable());
    // A refusal is no trouble that the cache may hide.
    let refusing = stand_in(fault("/api/", 9, What::Status(401, ""))).await;
    let error = get(&hub_at(refusing.endpoint(), cache.path()), "main").await.unwrap_err();
    assert!(matches!(error, HubError::NeedsToken { .. }));
}

#[tokio::test]
async fn offline_says_where_it_looked() {
    let cache = tempfile::tempdir().unwrap();
    let error = get(&offline(cache.path()), "main").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(NAME) && text.contains(cache.path().to_str().unwrap()), "{text}");
    assert!(text.contains("HF_HUB_OFFLINE") && text.contains("local_path"), "{text}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn hostile_listings_and_names_touch_nothing() {
    for file in ["../../x", "/etc/x", "1_a/../../x", "a\\..\\x", ""] {
        let (server, cache, hub) = scene(vec![]).await;
        server.list(file);
        let error = get(&hub, "main").await.unwrap_err();
        assert!(matches!(error, HubError::Escapes { .. }), "{file}: {error:?}");
        assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
    }
    let (server, _cache, hub) = scene(vec![]).await;
    for (name, revision) in [("../x", "main"), ("a/b/c", "main"), (NAME, "../main"), (NAME, "")] {
        let error = hub.folder(name, revision, &|_| {}).await.unwrap_err();
        assert!(matches!(error, HubError::BadName { .. } | HubError::BadRevision { .. }));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_repository_without_a_model_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    for files in [&[("README.md", &b"x"[..])][..], &[("config.json", b"{}"), ("vocab.txt", b"a")]] {
        let server = StandIn::start(files, vec![]).await;
        let error = get(&hub_at(server.endpoint(), cache.path()), "main").await.unwrap_err();
        assert!(matches!(error, HubError::NoModel { .. }), "{error:?}");
        assert_eq!(server.count("/resolve/"), 0);
    }
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let (_server, cache, mut hub) = scene(vec![]).await;
    let file = cache.path().join("file");
    std::fs::write(&file, "").unwrap();
    hub.settings.cache = file.clone();
    let error = get(&hub, "main").await.unwrap_err();
    assert!(
        matches!(&error, HubError::CannotWrite { path, .. } if path.starts_with(&file)),
        "{error:?}"
    );
    assert!(error.to_string().contains("HF_HUB_CACHE"));
}
