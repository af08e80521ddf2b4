//! A daemon for tests whose model waits: rows are computed only while the gate file exists.
//!
//! ```text
//! gated_daemon SOCKET GATE [SETTINGS]
//! ```
//! Row values: the text's length in bytes, whatever its position in the batch. SIGTERM drains, as with
//! `emberd serve`. A text "panic" makes the engine panic, a text "fail" makes it fail.

use emberd_daemon::Daemon;
use emberd_daemon::engine::{ComputeContext, ComputeError, EmbeddingModel, ModelSpec, Sequence};
use emberd_daemon::settings::Settings;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Values in a row.
const DIMENSION: usize = 384;

/// Token ids of the texts that misbehave.
const PANIC: u32 = u32::MAX;
const FAIL: u32 = u32::MAX - 1;

#[derive(Debug)]
struct Gated {
    spec: ModelSpec,
    gate: PathBuf,
}

impl EmbeddingModel for Gated {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        let id = match text {
            "panic" => PANIC,
            "fail" => FAIL,
            text => u32::try_from(text.len()).unwrap_or(0),
        };
        Ok(Sequence {
            ids: vec![id],
            truncated: text.len() > self.spec.max_tokens,
            ..Sequence::default()
        })
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(Waiting(self))
    }
}

struct Waiting(Arc<Gated>);

impl ComputeContext for Waiting {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        while !self.0.gate.exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
        for (sequence, row) in batch.iter().zip(rows) {
            match sequence.ids[0] {
                PANIC => panic!("a text asked for it"),
                FAIL => {
                    return Err(ComputeError::Tensor(candle_core::Error::Msg("asked for".into())));
                }
                #[expect(clippy::cast_precision_loss, reason = "lengths of short texts")]
                id => row.fill(id as f32),
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(gate)) = (args.next(), args.next()) else {
        return Err("usage: gated_daemon SOCKET GATE [SETTINGS]".into());
    };
    let types = ["gated".to_owned()];
    let settings = match args.next() {
        Some(file) => Settings::read(Some(Path::new(&file)), [], &types)?,
        None => Settings::parse("models.gated.type = \"gated\"", Path::new("built in"), &types)?,
    };
    let gate = PathBuf::from(gate);
    let daemon = Daemon::builder(settings)
        .model_type("gated", move |_id, _settings| {
            let spec = ModelSpec {
                architecture: "gated".into(),
                dimension: DIMENSION,
                max_tokens: 1000,
                normalized: false,
                weight_bytes: 0,
                ..ModelSpec::default()
            };
            Ok(Arc::new(Gated { spec, gate: gate.clone() }) as Arc<dyn EmbeddingModel>)
        })
        .build()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let name = socket.to_fs_name::<GenericFilePath>()?;
        let listener = ListenerOptions::new().name(name).create_tokio()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async {
            terminate.recv().await;
        };
        daemon.run(listener, stop).await;
        Ok(())
    })
}
