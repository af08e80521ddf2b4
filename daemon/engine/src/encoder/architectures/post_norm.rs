//! BERT's shape under any names: an embedding of tokens, positions and segments, then blocks that
//! normalise after each residual addition.

use crate::checkpoint::encoder_spec::{EncoderSpec, Widths};
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::RawConfig;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::Attention;
use crate::layers::embedding::{Embedding, Positions};

/// The token table, by which files with a prefix before each name are recognised.
pub(crate) const TOKEN_TABLE: &str = "embeddings.word_embeddings.weight";

/// The sizes of an encoder of this shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostNormEncoder {
    pub(crate) vocabulary: usize,
    /// Values of an embedding row. Unless it equals `width`, a projection must follow.
    pub(crate) embedding_width: usize,
    /// Values of a row in the residual stream.
    pub(crate) width: usize,
    /// Divides `width`.
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
    /// Rows of the position table.
    pub(crate) position_rows: usize,
    /// Rows of the segment table, if there is one.
    pub(crate) segments: Option<usize>,
    /// The id of the padding token, if positions count from behind it.
    pub(crate) padding: Option<u32>,
}

/// The names of the parts of a block in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostNormNames {
    pub(crate) qkv: [&'static str; 3],
    pub(crate) attended: &'static str,
    pub(crate) attended_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) norm: &'static str,
}

/// BERT's names, which most of its successors keep.
pub(crate) const BERT_NAMES: PostNormNames = PostNormNames {
    qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
    attended: "attention.output.dense",
    attended_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

impl PostNormEncoder {
    /// Reads the settings that BERT's successors spell in the same way. There are segments, and positions
    /// count from 0.
    pub(crate) fn read(config: RawConfig<'_>, activation: Activation) -> Result<Self, LoadError> {
        config.only("position_embedding_type", &"absolute".into(), "absolute")?;
        let width = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        config.parts("hidden_size", width, heads)?;
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            embedding_width: width,
            width,
            heads,
            inner: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            activation: config.activation_or("hidden_act", activation)?,
            epsilon: config.positive_or("layer_norm_eps", 1e-12)?,
            position_rows: config.size("max_position_embeddings")?,
            segments: Some(config.size_or("type_vocab_size", 2)?),
            padding: None,
        })
    }

    /// The specification of an encoder of this name.
    pub(crate) fn spec(&self, name: &'static str) -> EncoderSpec {
        let before_first = self.padding.map_or(0, rows_before_first);
        EncoderSpec {
            name,
            vocabulary: self.vocabulary,
            positions: self.position_rows.saturating_sub(before_first),
            positions_end: true,
            widths: self.widths(),
        }
    }

    /// Counts positions from behind the padding token's id.
    ///
    /// # Errors
    /// When that leaves no row of the position table.
    pub(crate) fn counting_from(
        self,
        padding: u32,
        config: RawConfig<'_>,
    ) -> Result<Self, LoadError> {
        let (before, rows) = (rows_before_first(padding), self.position_rows);
        if rows > before {
            return Ok(Self { padding: Some(padding), ..self });
        }
        let wanted = format!("more than {before}, since positions count from pad_token_id");
        Err(config.setting("max_position_embeddings", rows, wanted))
    }

    /// Reads the whole network; its blocks are `{stem}.0`, `{stem}.1` and so on.
    pub(crate) fn network(
        &self,
        reader: &mut TensorReader<'_>,
        stem: &str,
        names: &PostNormNames,
    ) -> Result<Network, LoadError> {
        let embedding = self.embedding(reader)?;
        let blocks = (0..self.layers)
            .map(|i| self.block(reader, &format!("{stem}.{i}"), names))
            .collect::<Result<_, _>>()?;
        // The file must hold no other tensors of the encoder.
        let encoder = stem.split_inclusive('.').next().unwrap_or(stem);
        reader.check_extra(&["embeddings", encoder])?;
        Ok(Network::of(embedding, blocks, self.widths(), reader.bytes()))
    }

    /// Reads the embedding.
    pub(crate) fn embedding(&self, reader: &mut TensorReader<'_>) -> Result<Embedding, LoadError> {
        let (width, epsilon) = (self.embedding_width, self.epsilon);
        let tokens = reader.table(TOKEN_TABLE, &[self.vocabulary, width])?;
        let segments = match self.segments {
            None => None,
            Some(rows) => {
                Some(reader.tensor("embeddings.token_type_embeddings.weight", &[rows, width])?)
            }
        };
        let positions = "embeddings.position_embeddings.weight";
        let positions = Positions {
            rows: reader.tensor(positions, &[self.position_rows, width])?,
            padding: self.padding,
        };
        let norm = reader.layer_norm("embeddings.LayerNorm", width, Bias::Each, epsilon)?;
        Ok(Embedding {
            segments,
            positions: Some(positions),
            norm: Some(norm),
            ..Embedding::of_tokens(tokens)
        })
    }

    /// Reads the block whose tensors begin with `prefix`.
    pub(crate) fn block(
        &self,
        reader: &mut TensorReader<'_>,
        prefix: &str,
        names: &PostNormNames,
    ) -> Result<Block, LoadError> {
        let Self { width, inner, activation, epsilon, .. } = *self;
        let mut linear = |parts: &[&str], inputs, outputs, activation| {
            let parts: Vec<_> =
                parts.iter().map(|part| (format!("{prefix}.{part}"), outputs)).collect();
            reader.linear(&parts, inputs, Bias::Each, activation)
        };
        let attention = SelfAttention {
            qkv: linear(&names.qkv, width, width, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: self.shape(),
            output: linear(&[names.attended], width, width, Activation::None)?,
        };
        let feed_forward = FeedForward {
            up: linear(&[names.up], width, inner, activation)?,
            gate: None,
            down: linear(&[names.down], inner, width, Activation::None)?,
        };
        let mut norm =
            |part: &str| reader.layer_norm(&format!("{prefix}.{part}"), width, Bias::Each, epsilon);
        let norms =
            Norms::After { attention: norm(names.attended_norm)?, feed_forward: norm(names.norm)? };
        Ok(Block { attention, feed_forward, norms })
    }

    /// Sizes of the activations.
    pub(crate) fn widths(&self) -> Widths {
        let widths = Widths::new(self.width, self.shape(), self.inner, false);
        Widths { embedding: self.embedding_width, ..widths }
    }

    fn shape(&self) -> Attention {
        Attention::full(self.heads, self.width / self.heads)
    }
}

/// Rows of the position table up to the padding token's own, which no other token uses.
fn rows_before_first(padding: u32) -> usize {
    usize::try_from(padding).unwrap_or(usize::MAX).saturating_add(1)
}
