//! A daemon with its own model type: an embedder that hashes words into buckets.
//!
//! ```text
//! cargo run --example custom_model -- /tmp/custom.sock &
//! emberd embed --socket /tmp/custom.sock --model hashing "any client can use it"
//! ```
//! The daemon is a library. A program names a type and a loader for it, and serves. Queues, batches,
//! leases, shared memory and the client work as they are.

use emberd_daemon::Daemon;
use emberd_daemon::engine::ModelFingerprint;
use emberd_daemon::engine::{ComputeContext, ComputeError, EmbeddingModel, ModelSpec, Sequence};
use emberd_daemon::settings::Settings;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

const SETTINGS: &str = "
models.hashing.type = \"hashing\"
models.hashing.dimension = 64
";

/// Each word falls into one of as many buckets as a row has values. Equal texts get equal rows.
#[derive(Debug)]
struct Hashing {
    spec: ModelSpec,
}

impl EmbeddingModel for Hashing {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        let bucket = |word: &str| {
            let mut hasher = DefaultHasher::new();
            word.to_lowercase().hash(&mut hasher);
            u32::try_from(hasher.finish() % self.spec.dimension as u64).unwrap_or(0)
        };
        Ok(Sequence { ids: text.split_whitespace().map(bucket).collect(), ..Sequence::default() })
    }

    /// With a fingerprint, rows may be cached. It must contain everything that they depend on.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        let dimension = self.spec.dimension.to_string();
        Some(ModelFingerprint::new("hashing").part("dimension", dimension.as_bytes()).finish())
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(Counting)
    }
}

/// Needs no scratch memory: it counts directly in the rows.
struct Counting;

impl ComputeContext for Counting {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        for (sequence, row) in batch.iter().zip(rows) {
            row.fill(0.0);
            for bucket in &sequence.ids {
                row[*bucket as usize] += 1.0;
            }
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|value| *value /= length);
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: custom_model SOCKET")?;
    let settings = Settings::parse(SETTINGS, Path::new("built in"), &["hashing".to_owned()])?;
    let daemon = Daemon::builder(settings)
        .model_type("hashing", |_id, settings| {
            let dimension = settings.dimension.ok_or("give a dimension")?;
            let spec = ModelSpec {
                architecture: "hashing".into(),
                dimension,
                max_tokens: usize::MAX,
                normalized: true,
                weight_bytes: 0,
                ..ModelSpec::default()
            };
            Ok(Arc::new(Hashing { spec }) as Arc<dyn EmbeddingModel>)
        })
        .build()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let name = socket.to_fs_name::<GenericFilePath>()?;
        // Replaces the socket of a dead daemon.
        let listener = ListenerOptions::new().name(name).try_overwrite(true).create_tokio()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        daemon.run(listener, stop).await;
        Ok(())
    })
}
