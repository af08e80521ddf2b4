//! A hub with one model, an empty cache, and what must hold in it at any time.

use crate::hub::tests::stand_in::{COMMIT, NAME, StandIn, sha256};
use crate::hub::{Hub, HubError, HubProgress, HubSettings, Patience};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// What the loader needs of the model.
pub(super) const WANTED: [&str; 7] = [
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

pub(super) const WEIGHT_BYTES: usize = 700_000;

#[derive(Debug)]
pub(super) struct Scene {
    pub(super) server: StandIn,
    pub(super) folder: TempDir,
    pub(super) settings: HubSettings,
    pub(super) progress: Mutex<Vec<HubProgress>>,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let server = StandIn::start(files()).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            cache: folder.path().join("home/hub"),
            endpoint: server.url.clone(),
            token: None,
            is_offline: false,
        };
        Self { server, folder, settings, progress: Mutex::default() }
    }

    pub(super) fn hub(&self) -> Hub {
        let patience = Patience {
            tries: 3,
            pause: Duration::ZERO,
            longest_pause: Duration::from_secs(60),
            silence: Duration::from_secs(60),
        };
        Hub { settings: self.settings.clone(), patience }
    }

    pub(super) async fn folder(&self, revision: &str) -> Result<PathBuf, HubError> {
        self.folder_of(NAME, revision).await
    }

    /// Asks, and checks what must hold whatever the answer is.
    pub(super) async fn folder_of(&self, name: &str, revision: &str) -> Result<PathBuf, HubError> {
        let note = |progress| self.progress.lock().unwrap().push(progress);
        let result = self.hub().folder(name, revision, &note).await;
        self.check_nothing_partial();
        result
    }

    /// Whatever has the name of a content or of a file is whole.
    #[track_caller]
    pub(super) fn check_nothing_partial(&self) {
        for file in walk(&self.settings.cache) {
            let text = file.to_str().unwrap();
            let is_content = text.contains("/blobs/") || text.contains("/snapshots/");
            if is_content && !text.ends_with(".part") {
                let bytes = std::fs::read(&file).unwrap();
                let state = self.server.state.lock().unwrap();
                assert!(state.files.values().any(|whole| *whole == bytes), "{text} is not whole");
            }
        }
    }

    /// The folder has each file that the loader needs, as the hub has it, and no other.
    #[track_caller]
    pub(super) fn check_whole(&self, folder: &Path) {
        let state = self.server.state.lock().unwrap();
        let mut found = walk(folder);
        found.sort();
        let expected: Vec<_> = WANTED.map(|file| folder.join(file)).into();
        assert_eq!(found, expected);
        for file in WANTED {
            assert!(std::fs::read(folder.join(file)).unwrap() == state.files[file], "{file}");
        }
    }

    pub(super) fn repo(&self) -> PathBuf {
        self.settings.cache.join("models--org--model")
    }

    pub(super) fn weights_part(&self) -> PathBuf {
        let hash = sha256(&files()["model.safetensors"]);
        self.repo().join("blobs").join(hash).with_extension("part")
    }

    pub(super) fn snapshot(&self) -> PathBuf {
        self.repo().join("snapshots").join(COMMIT)
    }
}

pub(super) fn files() -> BTreeMap<String, Vec<u8>> {
    let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#;
    let weights: Vec<u8> =
        (0..WEIGHT_BYTES as u64).map(|i| (i * i % 251).to_le_bytes()[0]).collect();
    let mut files = BTreeMap::from([
        ("model.safetensors".to_owned(), weights),
        ("modules.json".to_owned(), modules.into()),
        ("tokenizer_config.json".to_owned(), Vec::new()),
    ]);
    for file in WANTED.into_iter().chain(["README.md", "onnx/model.onnx", "pytorch_model.bin"]) {
        files.entry(file.to_owned()).or_insert_with(|| format!("the text of {file}").into());
    }
    files
}

/// Every file below a folder, links followed.
pub(super) fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let below = |path: PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}
