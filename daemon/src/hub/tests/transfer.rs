//! Files arrive complete, whatever the connection does.

use crate::hub::tests::scene::{Scene, WANTED, WEIGHT_BYTES};
use crate::hub::tests::stand_in::{COMMIT, Fault, NAME};
use crate::hub::{HubError, Token};
use proptest::prelude::*;
use std::fs;

#[tokio::test]
async fn a_model_is_laid_out_in_the_cache_as_python_does_it() {
    let scene = Scene::new().await;
    let folder = scene.folder("main").await.unwrap();
    assert_eq!(folder, scene.snapshot());
    scene.check_whole(&folder);
    assert_eq!(fs::read_to_string(scene.repo().join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(folder.join("1_Pooling/config.json")).unwrap();
    assert!(link.starts_with("../../../blobs"), "{}", link.display());
    assert_eq!(fs::read_dir(scene.repo().join("blobs")).unwrap().count(), WANTED.len());
    // One request for the listing, one for each file with bytes, and one more where it is stored.
    assert_eq!(scene.server.asked().len(), 1 + (WANTED.len() - 1) + 1);
}

#[tokio::test]
async fn progress_grows_to_the_total() {
    let scene = Scene::new().await;
    let folder = scene.folder("main").await.unwrap();
    let progress = scene.progress.lock().unwrap();
    let total: u64 = WANTED.iter().map(|file| fs::metadata(folder.join(file)).unwrap().len()).sum();
    assert!(progress.iter().all(|report| report.total_bytes == total));
    assert!(progress.is_sorted_by_key(|report| report.done_bytes));
    assert_eq!(progress.last().unwrap().done_bytes, total);
    let of_weights = progress.iter().filter(|report| report.file == "model.safetensors");
    assert!(of_weights.count() >= 3);
}

#[tokio::test]
async fn a_mirror_that_lists_names_alone_is_asked_for_each_file() {
    let scene = Scene::new().await;
    scene.server.change(|state| state.lists_contents = false);
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    let heads = scene.server.asked().into_iter().filter(|asked| asked.line.contains("HEAD"));
    assert_eq!(heads.count(), WANTED.len());
    // The hub's name for the weights, not the store's.
    let link = fs::read_link(folder.join("model.safetensors")).unwrap();
    assert_eq!(link.file_name().unwrap().len(), 64);
}

#[tokio::test]
async fn a_download_that_is_cut_asks_for_the_rest_alone() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::CutAt(300_000));
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.ranges(), [None, Some("bytes=300000-".into())]);
}

#[tokio::test]
async fn an_answer_that_ends_early_without_a_length_is_not_whole() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::ShortAt(300_000));
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.ranges(), [None, Some("bytes=300000-".into())]);
}

#[tokio::test]
async fn interruptions_are_tolerated_with_progress_and_given_up_without() {
    let scene = Scene::new().await;
    for _ in 0..6 {
        scene.server.fault("store", Fault::CutAt(100_000));
    }
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);

    let scene = Scene::new().await;
    scene.server.fault("store", Fault::CutAt(5000));
    for _ in 0..2 {
        scene.server.fault("store", Fault::CutAt(0));
    }
    let error = scene.folder("main").await.unwrap_err();
    assert!(
        matches!(error, HubError::CutShort { done: 5000, .. }) && error.is_retryable(),
        "{error:?}"
    );
    // The next call goes on from there.
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.ranges().last().unwrap().as_deref(), Some("bytes=5000-"));
}

#[tokio::test]
async fn a_fetch_that_is_dropped_is_continued_later() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::Slow);
    {
        let (sender, mut half) = tokio::sync::mpsc::unbounded_channel();
        let note = move |progress: crate::hub::HubProgress| {
            if progress.done_bytes > WEIGHT_BYTES as u64 / 3 {
                let _ = sender.send(());
            }
        };
        let hub = scene.hub();
        tokio::select! {
            result = hub.folder(NAME, "main", &note) => panic!("{result:?}"),
            _ = half.recv() => {}
        }
    }
    scene.check_nothing_partial();
    assert!(scene.weights_part().exists());
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert!(scene.server.ranges()[1].is_some());
}

#[tokio::test]
async fn a_hub_without_ranges_sends_all_of_it_again() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::CutAt(300_000));
    scene.server.fault("store", Fault::WithoutRanges);
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.ranges().len(), 2);
}

#[tokio::test]
async fn a_refused_range_begins_again() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::CutAt(300_000));
    scene.server.fault("store", Fault::Status(416, "X: y"));
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
    assert_eq!(scene.server.ranges(), [None, Some("bytes=300000-".into()), None]);
}

#[tokio::test]
async fn a_damaged_rest_of_an_earlier_try_is_detected_by_its_hash() {
    let scene = Scene::new().await;
    fs::create_dir_all(scene.weights_part().parent().unwrap()).unwrap();
    fs::write(scene.weights_part(), vec![0xFF; 1000]).unwrap();
    let error = scene.folder("main").await.unwrap_err();
    assert!(matches!(error, HubError::Mismatch { what: "hash", .. }), "{error:?}");
    assert!(!scene.weights_part().exists());
    let folder = scene.folder("main").await.unwrap();
    scene.check_whole(&folder);
}

#[tokio::test]
async fn other_bytes_or_another_size_are_refused_and_removed() {
    for (fault, expected) in [(Fault::OtherBytes, "hash"), (Fault::Longer, "size")] {
        let scene = Scene::new().await;
        scene.server.fault("store", fault);
        let error = scene.folder("main").await.unwrap_err();
        assert!(
            matches!(&error, HubError::Mismatch { what, .. } if *what == expected),
            "{error:?}"
        );
        assert!(!error.is_retryable() && !scene.weights_part().exists());
        let folder = scene.folder("main").await.unwrap();
        scene.check_whole(&folder);
    }
}

#[tokio::test]
async fn two_requests_at_once_share_one_slow_download() {
    let scene = Scene::new().await;
    scene.server.fault("store", Fault::Slow);
    let (first, second) = tokio::join!(scene.folder("main"), scene.folder(COMMIT));
    assert_eq!(first.unwrap(), second.unwrap());
    scene.check_whole(&scene.snapshot());
    assert_eq!(scene.server.ranges(), [None]);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_not_to_the_store() {
    let mut scene = Scene::new().await;
    scene.server.change(|state| {
        state.token = Some("hf_x".into());
        state.lists_contents = false;
    });
    scene.settings.token = Token::new("hf_x");
    scene.folder("main").await.unwrap();
    for asked in scene.server.asked() {
        let is_hub = asked.line.starts_with("hub");
        assert_eq!(asked.token.as_deref(), is_hub.then_some("Bearer hf_x"), "{}", asked.line);
    }
}

#[tokio::test]
async fn a_model_that_was_renamed_is_followed() {
    for lists_contents in [true, false] {
        let scene = Scene::new().await;
        scene.server.change(|state| state.lists_contents = lists_contents);
        let folder = scene.folder_of("org/old-name", "main").await.unwrap();
        scene.check_whole(&folder);
    }
}

#[tokio::test]
async fn a_branch_that_moved_is_fetched_and_shares_what_stayed() {
    let scene = Scene::new().await;
    let old = scene.folder("main").await.unwrap();
    let commit = "f".repeat(40);
    scene.server.change(|state| state.commit = commit.clone());
    let new = scene.folder("main").await.unwrap();
    assert_ne!(old, new);
    scene.check_whole(&new);
    assert_eq!(scene.server.ranges().len(), 1, "the weights came once");
    assert_eq!(fs::read_to_string(scene.repo().join("refs/main")).unwrap(), commit);
}

#[test]
fn a_fetch_can_be_spawned() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let hub = crate::hub::Hub::new(crate::hub::HubSettings::from_variables(|_| None));
    drop(is_send(hub.folder(NAME, "main", &|_| {})));
}

fn fault() -> impl Strategy<Value = (&'static str, Fault)> {
    let anywhere = prop_oneof![
        (0..WEIGHT_BYTES).prop_map(Fault::CutAt),
        (0..WEIGHT_BYTES).prop_map(Fault::ShortAt),
        Just(Fault::WithoutRanges),
        Just(Fault::Longer),
        Just(Fault::Status(416, "X: y")),
        Just(Fault::Status(503, "X: y")),
        Just(Fault::Status(429, "Retry-After: 0")),
    ];
    let place = prop_oneof![3 => Just("store"), 1 => Just("resolve"), 1 => Just("GET")];
    // Wrong bytes of the right size are detected only if there is a hash, as for files of the store.
    prop_oneof![6 => (place, anywhere), 1 => Just(("store", Fault::OtherBytes))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// `Scene::folder` checks it after every call.
    #[test]
    fn no_failure_leaves_a_partial_file_that_is_taken_for_complete(
        faults in proptest::collection::vec(fault(), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new().await;
            let mut calls_left = faults.len() + 1;
            scene.server.change(|state| state.faults = faults);
            let folder = loop {
                match scene.folder("main").await {
                    Ok(folder) => break folder,
                    Err(error) => assert!(calls_left > 0, "{error:?}"),
                }
                calls_left -= 1;
            };
            scene.check_whole(&folder);
        });
    }
}
