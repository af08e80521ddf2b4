//! Each failure is reported with its cause and its remedy.

use crate::hub::HubError;
use crate::hub::error::Missing;
use crate::hub::tests::scene::{Scene, walk};
use crate::hub::tests::stand_in::{Fault, NAME};
use std::fs;
use std::time::Duration;

/// Fails unless an error is as expected.
#[track_caller]
fn check(error: &HubError, is_expected: bool, is_retryable: bool, says: &[&str]) {
    assert!(is_expected, "{error:?}");
    assert_eq!(error.is_retryable(), is_retryable, "{error:?}");
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn a_gated_model_needs_a_token() {
    for (status, header) in [(401, "X-Error-Code: GatedRepo"), (403, "X: y")] {
        for place in ["/api/", "resolve"] {
            let scene = Scene::new().await;
            scene.server.fault(place, Fault::Status(status, header));
            let error = scene.folder("main").await.unwrap_err();
            let is_it = matches!(&error, HubError::NeedsToken { status: s, .. } if *s == status);
            let licence = format!("{}/{NAME}", scene.server.url);
            check(&error, is_it, false, &["HF_TOKEN", "licence", &licence]);
        }
    }
}

#[tokio::test]
async fn missing_repositories_revisions_and_files_are_named() {
    let scene = Scene::new().await;
    let error = scene.folder_of("org/nothing", "main").await.unwrap_err();
    let is_it = matches!(error, HubError::NotFound { what: Missing::Repository, .. });
    check(&error, is_it, false, &["org/nothing", "main", "HF_TOKEN"]);

    let error = scene.folder("v9").await.unwrap_err();
    let is_it = matches!(error, HubError::NotFound { what: Missing::Revision, .. });
    check(&error, is_it, false, &[NAME, "v9"]);

    scene.server.fault("/api/", Fault::Status(404, "X: y"));
    let error = scene.folder("main").await.unwrap_err();
    let is_it = matches!(error, HubError::NotFound { what: Missing::Either, .. });
    check(&error, is_it, false, &[NAME]);

    scene.server.change(|state| state.also_listed.push("vocab.txt".into()));
    let error = scene.folder("main").await.unwrap_err();
    let is_it = matches!(error, HubError::NotFound { what: Missing::File, .. });
    check(&error, is_it, false, &[NAME, "file vocab.txt"]);
}

#[tokio::test]
async fn a_short_pause_that_the_hub_asks_for_is_kept() {
    for place in ["/api/", "resolve", "store"] {
        let scene = Scene::new().await;
        scene.server.fault(place, Fault::Status(429, "Retry-After: 0"));
        scene.server.fault(place, Fault::Status(503, "X: y"));
        let folder = scene.folder("main").await.unwrap();
        scene.check_whole(&folder);
    }
}

#[tokio::test]
async fn a_long_pause_that_the_hub_asks_for_is_an_error() {
    let scene = Scene::new().await;
    scene.server.fault("/api/", Fault::Status(429, "Retry-After: 3600"));
    let error = scene.folder("main").await.unwrap_err();
    let hour = Duration::from_secs(3600);
    let is_it = matches!(error, HubError::TooManyRequests { after, .. } if after == hour);
    check(&error, is_it, true, &["3600 s"]);
    assert_eq!(scene.server.asked().len(), 1);
}

#[tokio::test]
async fn a_hub_with_errors_is_given_up_after_a_few_tries() {
    let scene = Scene::new().await;
    for _ in 0..3 {
        scene.server.fault("/api/", Fault::Status(500, "X: y"));
    }
    let error = scene.folder("main").await.unwrap_err();
    check(&error, matches!(error, HubError::Server { status: 500, .. }), true, &["500"]);
    assert_eq!(scene.server.asked().len(), 3);
}

#[tokio::test]
async fn silence_is_not_waited_out() {
    let scene = Scene::new().await;
    scene.server.fault("/api/", Fault::Silent);
    let mut hub = scene.hub();
    hub.patience.silence = Duration::from_millis(50);
    let error = hub.folder(NAME, "main", &|_| {}).await.unwrap_err();
    check(&error, matches!(error, HubError::Silent { .. }), true, &[&scene.server.url]);
}

#[tokio::test]
async fn names_are_checked_before_any_request() {
    let scene = Scene::new().await;
    for name in ["../../etc", "a/b/c", "", "a b"] {
        let error = scene.folder_of(name, "main").await.unwrap_err();
        check(&error, matches!(error, HubError::BadName { .. }), false, &["organisation/name"]);
    }
    let error = scene.folder("../main").await.unwrap_err();
    check(&error, matches!(error, HubError::BadRevision { .. }), false, &["commit"]);
    assert!(scene.server.asked().is_empty());
    assert!(walk(scene.folder.path()).is_empty());
}

#[tokio::test]
async fn a_file_that_would_leave_the_folder_is_refused() {
    for path in ["../../x", "/etc/x", "1_Pooling/../../../x"] {
        let scene = Scene::new().await;
        scene.server.change(|state| state.also_listed.push(path.into()));
        let error = scene.folder("main").await.unwrap_err();
        check(&error, matches!(error, HubError::Escapes { .. }), false, &[path, "do not use"]);
        assert!(walk(scene.folder.path()).is_empty());
    }
}

#[tokio::test]
async fn a_repository_without_a_model_is_reported() {
    let scene = Scene::new().await;
    scene.server.change(|state| state.files.retain(|path, _| path.ends_with(".json")));
    let error = scene.folder("main").await.unwrap_err();
    check(&error, matches!(error, HubError::NotAModel { .. }), false, &["weights", NAME]);
}

#[tokio::test]
async fn a_server_that_is_not_a_hub_is_reported() {
    let scene = Scene::new().await;
    scene.server.fault("/api/", Fault::Status(200, "X: y"));
    let error = scene.folder("main").await.unwrap_err();
    check(&error, matches!(error, HubError::Answer { .. }), false, &["HF_ENDPOINT"]);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let scene = Scene::new().await;
    fs::write(scene.folder.path().join("home"), "in the way").unwrap();
    let error = scene.folder("main").await.unwrap_err();
    let cache = scene.settings.cache.to_str().unwrap();
    check(&error, matches!(error, HubError::Cache { .. }), false, &[cache, "HF_HOME"]);
}
