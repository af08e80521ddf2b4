//! What the cache is worth without a hub.

use crate::hub::tests::scene::{Scene, WANTED};
use crate::hub::tests::stand_in::{COMMIT, NAME};
use crate::hub::{HubError, HubSettings};
use std::fs;
use std::path::PathBuf;

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_pinned_model_in_the_cache_needs_no_request() {
    let scene = Scene::new().await;
    scene.folder("main").await.unwrap();
    let before = scene.server.asked().len();
    let folder = scene.folder(COMMIT).await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.asked().len(), before);
}

#[tokio::test]
async fn a_model_that_python_fetched_needs_no_request() {
    let scene = Scene::new().await;
    let folder = scene.snapshot();
    for file in WANTED {
        let bytes = scene.server.state.lock().unwrap().files[file].clone();
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
    }
    let asked_for = scene.repo().join(".no_exist").join(COMMIT);
    fs::create_dir_all(&asked_for).unwrap();
    fs::write(asked_for.join("sentence_bert_config.json"), "").unwrap();
    assert_eq!(scene.folder(COMMIT).await.unwrap(), folder);
    assert!(scene.server.asked().is_empty());
}

#[tokio::test]
async fn a_partial_download_of_another_program_is_completed() {
    for missing in WANTED {
        let scene = Scene::new().await;
        let folder = scene.folder(COMMIT).await.unwrap();
        fs::remove_file(folder.join(missing)).unwrap();
        let before = scene.server.asked().len();
        assert_eq!(scene.folder(COMMIT).await.unwrap(), folder);
        scene.check_whole(&folder);
        assert!(scene.server.asked().len() > before, "{missing}");
    }
}

#[tokio::test]
async fn a_content_of_the_wrong_size_in_the_cache_is_mended() {
    let scene = Scene::new().await;
    let folder = scene.folder("main").await.unwrap();
    let blob = fs::canonicalize(folder.join("model.safetensors")).unwrap();
    fs::write(blob, "torn").unwrap();
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
}

#[tokio::test]
async fn offline_uses_the_cache_and_asks_nobody() {
    let mut scene = Scene::new().await;
    scene.settings.is_offline = true;
    for revision in ["main", COMMIT] {
        let error = scene.folder(revision).await.unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{error:?}");
        let text = error.to_string();
        let cache = scene.settings.cache.to_str().unwrap();
        assert!(text.contains(NAME) && text.contains(cache) && text.contains("HF_HUB_OFFLINE"));
    }
    assert!(scene.server.asked().is_empty());

    scene.settings.is_offline = false;
    scene.folder("main").await.unwrap();
    let before = scene.server.asked().len();
    scene.settings.is_offline = true;
    for revision in ["main", COMMIT] {
        scene.check_whole(&scene.folder(revision).await.unwrap());
    }
    assert_eq!(scene.server.asked().len(), before);

    fs::remove_file(scene.snapshot().join("config.json")).unwrap();
    let error = scene.folder("main").await.unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "a part is not used: {error:?}");
}

#[tokio::test]
async fn a_hub_out_of_reach_leaves_the_cache() {
    let mut scene = Scene::new().await;
    let reachable = std::mem::replace(&mut scene.settings.endpoint, nowhere().await);
    for revision in ["main", COMMIT] {
        let error = scene.folder(revision).await.unwrap_err();
        assert!(matches!(error, HubError::Unreachable { .. }) && error.is_retryable());
        assert!(error.to_string().contains(&scene.settings.endpoint), "{error}");
    }
    let elsewhere = std::mem::replace(&mut scene.settings.endpoint, reachable);
    scene.folder("main").await.unwrap();
    scene.settings.endpoint = elsewhere;
    for revision in ["main", COMMIT] {
        scene.check_whole(&scene.folder(revision).await.unwrap());
    }
}

#[tokio::test]
async fn a_branch_that_the_hub_took_away_is_not_taken_from_the_cache() {
    let scene = Scene::new().await;
    scene.folder("main").await.unwrap();
    scene.server.change(|state| state.token = Some("now closed".into()));
    let error = scene.folder("main").await.unwrap_err();
    assert!(matches!(error, HubError::NeedsToken { .. }), "{error:?}");
    scene.folder(COMMIT).await.unwrap();
}

#[tokio::test]
async fn without_a_home_there_is_no_cache() {
    let hub = crate::hub::Hub::new(HubSettings::from_variables(|_| None));
    let error = hub.folder(NAME, "main", &|_| {}).await.unwrap_err();
    assert!(matches!(error, HubError::NoCache), "{error:?}");
    assert_eq!(hub.settings.cache, PathBuf::new());
}
