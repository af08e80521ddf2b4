//! Static models: a table of token rows, and a text is the mean of its tokens' rows.

use std::borrow::Cow;
use std::sync::Arc;

use super::encoder::{Encoder, RawTokenizer, Style};
use super::fingerprint::ModelFingerprint;
use super::folder::StaticLayout;
use super::load_error::LoadError;
use super::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence, check_rows};
use super::pooling::normalize;
use super::weights::Weights;

/// A static model with its tokenizer.
#[derive(Debug)]
pub(super) struct StaticModel {
    table: Table,
    encoder: Encoder,
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
        let fingerprint = ModelFingerprint::new("static")
            .part("weights", &weights.digest()?)
            .part("tokenizer", &tokenizer.digest)
            .part("prompt", layout.prompt.as_bytes())
            .part("computing type", b"f32")
            .part("head", format!("{} {}", layout.max_tokens, layout.normalize).as_bytes())
            .finish();
        let style = Style { special_tokens: false, lower_case: false };
        let encoder = tokenizer.fit(rows, layout.max_tokens, style, layout.prompt.clone())?;
        let card = ModelCard {
            architecture: "static".to_owned(),
            dimension: width,
            max_tokens: layout.max_tokens,
            normalized: layout.normalize,
            weight_bytes: u64::try_from(table.bytes()).unwrap_or(u64::MAX),
            ..ModelCard::default()
        };
        Ok(Self { table, encoder, card, fingerprint })
    }

    fn write(&self, ids: &[u32], row: &mut [f32]) -> Result<(), ComputeError> {
        row.fill(0.0);
        for &id in ids {
            let start = usize::try_from(id).unwrap_or(usize::MAX).saturating_mul(row.len());
            if !self.table.add(start, row) {
                return Err(
                    candle_core::Error::Msg(format!("token {id} is beyond the table")).into()
                );
            }
        }
        if self.card.normalized {
            normalize(row);
        } else if !ids.is_empty() {
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

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(self.fingerprint)
    }

    fn computer(self: Arc<Self>) -> Box<dyn Computer> {
        Box::new(StaticComputer { model: self })
    }
}

#[derive(Debug)]
struct StaticComputer {
    model: Arc<StaticModel>,
}

impl Computer for StaticComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        check_rows(&self.model.card, batch, rows)?;
        for (sequence, row) in batch.iter().zip(rows) {
            self.model.write(&sequence.ids, row)?;
        }
        Ok(())
    }
}
