//! What a worker needs to know of a model that turns texts into rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::device_memory::DeviceMemory;

/// What is said about a loaded embedding model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelSpec {
    /// What computes it, such as `bert` or `static`.
    pub architecture: String,
    /// Values in a row.
    pub dimension: usize,
    /// Tokens of one text that are used, special tokens included; the rest is cut off.
    pub max_tokens: usize,
    /// Whether rows come out with length 1.
    pub normalized: bool,
    /// Prompts by name, for [`EmbeddingModel::encode_prompted`].
    pub prompts: BTreeMap<String, String>,
    /// Which of them [`EmbeddingModel::encode`] puts in front of a text.
    pub default_prompt: Option<String>,
    /// How rows are to be compared, such as `cosine`, if the folder says it.
    pub similarity: Option<String>,
    /// How many values of a row are used where nobody asks for another number, if the folder says
    /// it.
    pub truncate_dim: Option<usize>,
    /// Bytes that the weights hold in memory.
    pub weight_bytes: u64,
}

/// One text as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids, special tokens included. May be empty (a static model and an empty text).
    pub ids: Vec<u32>,
    /// Whether the text was longer than [`ModelSpec::max_tokens`] and lost its end.
    pub truncated: bool,
    /// Of a pair: how many tokens belong to the first text, special tokens around it included. 0
    /// for a single text.
    pub first_len: usize,
    /// Tokens at the front that are read but not pooled: a prompt that the model leaves out.
    pub unpooled: usize,
}

/// A loaded embedding model: immutable, shared by the workers that compute with it.
pub trait EmbeddingModel: fmt::Debug + Send + Sync + 'static {
    /// What is said about it.
    fn spec(&self) -> &ModelSpec;

    /// Reads a text as tokens. Any string is accepted.
    ///
    /// # Errors
    /// When the tokenizer itself fails, which a text alone should not bring about.
    fn encode(&self, text: &str) -> Result<Sequence, ComputeError>;

    /// Reads a text with another prompt in front of it than the model's default one; an empty one
    /// for none.
    ///
    /// # Errors
    /// As [`EmbeddingModel::encode`].
    fn encode_prompted(&self, prompt: &str, text: &str) -> Result<Sequence, ComputeError> {
        self.encode(&format!("{prompt}{text}"))
    }

    /// Reads a pair of texts as one sequence, for models that score pairs.
    ///
    /// # Errors
    /// When the model takes no pairs, or as [`EmbeddingModel::encode`].
    fn encode_pair(&self, first: &str, second: &str) -> Result<Sequence, ComputeError> {
        let _ = (first, second);
        Err(ComputeError::NoPairs)
    }

    /// What determines its rows beside the text, such as a `ModelFingerprint` gives: rows of models
    /// with the same one are taken for each other. `None`: its rows are not cached.
    fn fingerprint(&self) -> Option<[u8; 32]> {
        None
    }

    /// The private state (scratch memory) of one worker over these weights.
    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext>;
}

/// A head that scores pairs of texts: a cross-encoder or another sequence classification.
#[derive(Debug, Clone)]
pub struct RankHead {
    /// Reads pairs ([`EmbeddingModel::encode_pair`]); its rows are what the head puts out, one value
    /// for each label, no activation applied. They are never normalised nor cached.
    pub model: Arc<dyn EmbeddingModel>,
    /// The names of the labels, as `id2label` has them.
    pub labels: Vec<String>,
    /// What the folder says is to be done with what the head puts out; never
    /// [`ScoreActivation::Model`](emberd_protocol::ScoreActivation).
    pub activation: emberd_protocol::ScoreActivation,
}

/// As what a model's matrices and tables are held in memory. Sums are in f32 either way, and so is
/// everything on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightType {
    /// 32 bits: whatever the file has, exactly.
    #[default]
    F32,
    /// 16 bits, as f32 without the lower half: exactly what files of this type have, in half the
    /// memory; what others have is rounded to 8 bits of precision.
    Bf16,
}

impl WeightType {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A model in memory, by what can be asked of it. The parts may share their weights: each card counts
/// those that no part before it does.
#[derive(Debug, Clone, Default)]
pub struct ModelParts {
    /// Rows for texts.
    pub embed: Option<Arc<dyn EmbeddingModel>>,
    /// Scores for pairs.
    pub rank: Option<RankHead>,
    /// Texts from texts.
    pub generate: Option<Arc<dyn crate::api::generation::Seq2SeqModel>>,
    /// Candidates for masks.
    pub fill_mask: Option<Arc<dyn crate::api::generation::MaskedModel>>,
}

/// One worker's way through the weights. Its scratch memory grows to the largest batch seen.
pub trait ComputeContext: Send {
    /// Computes one row for each sequence, written to the row of the same index.
    ///
    /// `rows[i]` has [`ModelSpec::dimension`] values, of unknown content; every one of them is
    /// written. The result for a sequence does not depend on its company beyond rounding.
    ///
    /// # Errors
    /// When the device fails; the rows then hold nothing of use.
    fn compute(&mut self, batch: &[&Sequence], rows: &mut [&mut [f32]])
    -> Result<(), ComputeError>;
}

/// Why a computation failed.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The tensor library refused an operation.
    #[error("the computation failed")]
    Tensor(#[from] candle_core::Error),
    /// The device has no memory for the batch. Fewer texts at a time may do.
    #[error("the device has no memory for {tokens} tokens at once ({memory})")]
    OutOfMemory {
        /// Tokens of the batch.
        tokens: usize,
        /// What the device has.
        memory: DeviceMemory,
        /// What it said.
        source: Box<candle_core::Error>,
    },
    /// A pair was given to a model of single texts.
    #[error("this model takes no pairs of texts")]
    NoPairs,
    /// An encoder-decoder was asked for something that it cannot do.
    #[error("this cannot be generated: {0}")]
    Generation(&'static str),
    /// The tokenizer refused a text.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller gave other than one row a sequence.
    #[error("{sequences} sequences cannot be written to {rows} rows")]
    RowCount {
        /// Sequences given.
        sequences: usize,
        /// Rows given.
        rows: usize,
    },
    /// The caller gave a row of another length than the model writes.
    #[error("a row has {found} values, the model writes {wanted}")]
    RowLength {
        /// Values in the row.
        found: usize,
        /// [`ModelSpec::dimension`].
        wanted: usize,
    },
}

/// Checks that there is one row of the model's dimension for each sequence.
pub(crate) fn check_rows(
    card: &ModelSpec,
    batch: &[&Sequence],
    rows: &[&mut [f32]],
) -> Result<(), ComputeError> {
    if batch.len() != rows.len() {
        return Err(ComputeError::RowCount { sequences: batch.len(), rows: rows.len() });
    }
    match rows.iter().find(|row| row.len() != card.dimension) {
        Some(row) => Err(ComputeError::RowLength { found: row.len(), wanted: card.dimension }),
        None => Ok(()),
    }
}
