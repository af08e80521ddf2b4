//! Static models: a table of token rows, and a text is the mean of its tokens' rows.

use std::borrow::Cow;
use std::sync::Arc;

use super::encoder::{Encoder, RawTokenizer, Style, TruncationSide};
use super::fingerprint::ModelFingerprint;
use super::folder::StaticLayout;
use super::load_error::LoadError;
use super::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence, check_rows};
use super::sentence::SentenceSettings;
use super::tail::{Tail, TailScratch};
use super::weights::Weights;

/// A static model with its tokenizer.
#[derive(Debug)]
pub(super) struct StaticModel {
    table: Table,
    encoder: Encoder,
    tail: Tail,
    card: ModelCard,
    fingerprint: [u8; 32],
}

/// Token rows, one after the other, as they were stored.
enum Table {
    /// On a scale that all rows share and that normalising removes.
    I8(Cow<'static, [i8]>),
    F32(Vec<f32>),
}

/// Both the names that are in use for the table.
const TABLE_NAMES: [&str; 2] = ["embedding.weight", "embeddings"];

impl StaticModel {
    /// Reads the table and fits the tokenizer to it.
    pub(super) fn new(
        weights: &Weights,
        tokenizer: RawTokenizer,
        layout: &StaticLayout,
        settings: SentenceSettings,
    ) -> Result<Self, LoadError> {
        // Further tensors of model2vec change what a row means, so that they must not be ignored.
        for tensor in ["mapping", "weights"] {
            if weights.contains(tensor) {
                return Err(LoadError::Unsupported {
                    file: weights.file().to_owned(),
                    what: "the tensor",
                    found: tensor.to_owned(),
                    supported: "embeddings alone, one row a token",
                });
            }
        }
        let [first, second] = TABLE_NAMES;
        let name = if weights.contains(first) { first } else { second };
        let &[rows, width] = weights.shape(name)? else {
            return Err(LoadError::TensorShape {
                file: weights.file().to_owned(),
                tensor: name.to_owned(),
                found: weights.shape(name)?.to_vec(),
                wanted: vec![0, 0],
            });
        };
        let table = match weights.read_i8(name)? {
            Some(values) => Table::I8(values),
            None => {
                let mut values = Vec::new();
                weights.read(name, &[rows, width], &mut values)?;
                Table::F32(values)
            }
        };
        let tail = Tail::load(&layout.tail, width)?;
        let fingerprint = ModelFingerprint::new("static")
            .part("weights", &weights.digest()?)
            .part("tokenizer", &tokenizer.digest)
            .part("limits", format!("{}", layout.max_tokens).as_bytes())
            .part("computing type", b"f32")
            .part("tail", tail.digest())
            .finish();
        // The first tokens count, whatever the tokenizer's own limit says.
        let style = Style {
            special_tokens: false,
            lower_case: false,
            pools_prompt: true,
            side: Some(TruncationSide::Right),
            tells_segments: true,
        };
        let prompt = settings.default_prompt_text().to_owned();
        let encoder = tokenizer.fit(rows, layout.max_tokens, style, prompt)?;
        let card = ModelCard {
            architecture: "static".to_owned(),
            dimension: tail.outputs(),
            max_tokens: layout.max_tokens,
            normalized: tail.normalizes(),
            weight_bytes: (table.bytes() as u64).saturating_add(tail.weight_bytes()),
            prompts: settings.prompts,
            default_prompt: settings.default_prompt,
            similarity: Some(settings.similarity),
            truncate_dim: settings.truncate_dim,
        };
        Ok(Self { table, encoder, tail, card, fingerprint })
    }

    /// The mean of the tokens' rows.
    fn pool(&self, ids: &[u32], row: &mut [f32]) -> Result<(), ComputeError> {
        row.fill(0.0);
        for &id in ids {
            let start = usize::try_from(id).unwrap_or(usize::MAX).saturating_mul(row.len());
            if !self.table.add(start, row) {
                return Err(
                    candle_core::Error::Msg(format!("token {id} is beyond the table")).into()
                );
            }
        }
        if !ids.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "the mean needs no more digits")]
            let scale = 1.0 / ids.len() as f32;
            row.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}

impl Table {
    fn bytes(&self) -> usize {
        match self {
            Self::I8(values) => values.len(),
            Self::F32(values) => 4 * values.len(),
        }
    }

    /// Adds the table's values from `start` on to a row. `false`: there are not as many.
    fn add(&self, start: usize, row: &mut [f32]) -> bool {
        let span = start..start.saturating_add(row.len());
        match self {
            // Sums of bytes stay exact in f32 up to 2^17 tokens, and nobody sees a step beyond.
            Self::I8(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += f32::from(t));
            }),
            Self::F32(values) => values.get(span).map(|token| {
                row.iter_mut().zip(token).for_each(|(x, &t)| *x += t);
            }),
        }
        .is_some()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::I8(values) => write!(f, "I8({} values)", values.len()),
            Self::F32(values) => write!(f, "F32({} values)", values.len()),
        }
    }
}

impl EmbeddingModel for StaticModel {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn encode(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.encode(text)
    }

    fn encode_prompted(&self, prompt: &str, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.encode_prompted(prompt, text)
    }

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(self.fingerprint)
    }

    fn computer(self: Arc<Self>) -> Box<dyn Computer> {
        Box::new(StaticComputer { model: self, scratch: TailScratch::default() })
    }
}

#[derive(Debug)]
struct StaticComputer {
    model: Arc<StaticModel>,
    scratch: TailScratch,
}

impl Computer for StaticComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.card, batch, rows)?;
        model.tail.write(rows, &mut self.scratch, |rows| {
            let mut pairs = batch.iter().zip(rows);
            pairs.try_for_each(|(sequence, row)| model.pool(&sequence.ids, row))
        })
    }
}
