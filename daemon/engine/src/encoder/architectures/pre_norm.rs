//! The shape of Qwen3 and Gemma 3: a decoder's blocks, which normalise the input of each layer, each
//! head of queries and keys, and the last rows.

use crate::checkpoint::encoder_spec::{EncoderSpec, Widths};
use crate::checkpoint::layer_reader::Bias;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;
use crate::layers::attention_shape::{Attention, Reach};
use crate::layers::embedding::Embedding;
use crate::layers::norm::Norm;
use crate::layers::rms_norm::HeadNorm;
use crate::layers::rotary::Rotary;

/// The sizes of an encoder of this shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreNormEncoder {
    pub(crate) vocabulary: usize,
    pub(crate) width: usize,
    /// The attention of all blocks, apart from its reach.
    pub(crate) shape: Attention,
    pub(crate) inner: usize,
    pub(crate) activation: Activation,
    /// The longest sequence, in tokens.
    pub(crate) positions: usize,
    /// Whether the layers of attention have a bias.
    pub(crate) attention_bias: Bias,
    pub(crate) epsilon: f32,
    /// Added to the weights of all norms: the file stores them without it.
    pub(crate) norm_offset: f32,
    /// Whether the outputs of attention and feed-forward are normalised, too.
    pub(crate) has_post_norms: bool,
    /// Multiplies the rows of the token table.
    pub(crate) embedding_scale: f32,
}

/// The settings of one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreNormLayer {
    pub(crate) reach: Reach,
    /// Index of its rotary embedding.
    pub(crate) rotary: usize,
}

impl PreNormEncoder {
    /// The specification of an encoder of this name.
    pub(crate) fn spec(&self, name: &'static str) -> EncoderSpec {
        EncoderSpec {
            name,
            vocabulary: self.vocabulary,
            positions: self.positions,
            positions_end: false,
            widths: self.widths(),
        }
    }

    /// Reads the whole network. `rotary_bases` has the base frequency of each rotary embedding.
    pub(crate) fn network(
        &self,
        reader: &mut TensorReader<'_>,
        layers: impl Iterator<Item = PreNormLayer>,
        rotary_bases: &[f32],
    ) -> Result<Network, LoadError> {
        reader.enter(&["model."], "embed_tokens.weight");
        let tokens = reader.table("embed_tokens.weight", &[self.vocabulary, self.width])?;
        let embedding = Embedding { scale: self.embedding_scale, ..Embedding::of_tokens(tokens) };
        let blocks = layers
            .enumerate()
            .map(|(i, layer)| self.block(reader, i, layer))
            .collect::<Result<_, _>>()?;
        let last_norm = Some(self.norm(reader, "norm")?);
        reader.check_extra(&["embed_tokens.", "layers.", "norm."])?;
        let rotary = |base: &f32| Rotary::new(*base, self.shape.head_width);
        let rotaries = rotary_bases.iter().map(rotary).collect();
        let network = Network::of(embedding, blocks, self.widths(), reader.bytes());
        Ok(Network { rotaries, last_norm, ..network })
    }

    fn block(
        &self,
        reader: &mut TensorReader<'_>,
        i: usize,
        layer: PreNormLayer,
    ) -> Result<Block, LoadError> {
        let (width, inner) = (self.width, self.inner);
        let shape = Attention { reach: layer.reach, ..self.shape };
        let name = |part: &str| format!("layers.{i}.{part}");
        let keys = shape.key_heads * shape.head_width;
        let qkv = [
            (name("self_attn.q_proj"), shape.width()),
            (name("self_attn.k_proj"), keys),
            (name("self_attn.v_proj"), keys),
        ];
        let output = &[(name("self_attn.o_proj"), width)];
        let mut head_norm =
            |part| reader.rms_norm(&name(part), shape.head_width, self.norm_offset, self.epsilon);
        let head_norm = HeadNorm {
            queries: head_norm("self_attn.q_norm")?,
            keys: head_norm("self_attn.k_norm")?,
            heads: shape.heads,
            key_heads: shape.key_heads,
        };
        let bias = self.attention_bias;
        let attention = SelfAttention {
            qkv: reader.linear(&qkv, width, bias, Activation::None)?,
            head_norm: Some(head_norm),
            rotary: Some(layer.rotary),
            shape,
            output: reader.linear(output, shape.width(), bias, Activation::None)?,
        };
        let mut linear = |part, inputs, outputs, activation| {
            reader.linear(&[(name(part), outputs)], inputs, Bias::None, activation)
        };
        let feed_forward = FeedForward {
            up: linear("mlp.gate_proj", width, inner, self.activation)?,
            gate: Some(linear("mlp.up_proj", width, inner, Activation::None)?),
            down: linear("mlp.down_proj", inner, width, Activation::None)?,
        };
        let mut norm = |part| self.norm(reader, &name(part));
        let attention_norm = Some(norm("input_layernorm")?);
        // The norm that Qwen3 calls post_attention is the input norm of the feed-forward.
        let norms = if self.has_post_norms {
            Norms::Before {
                attention: attention_norm,
                attended: Some(norm("post_attention_layernorm")?),
                feed_forward: norm("pre_feedforward_layernorm")?,
                fed: Some(norm("post_feedforward_layernorm")?),
            }
        } else {
            Norms::Before {
                attention: attention_norm,
                attended: None,
                feed_forward: norm("post_attention_layernorm")?,
                fed: None,
            }
        };
        Ok(Block { attention, feed_forward, norms })
    }

    fn norm(&self, reader: &mut TensorReader<'_>, name: &str) -> Result<Norm, LoadError> {
        reader.rms_norm(name, self.width, self.norm_offset, self.epsilon).map(Norm::Rms)
    }

    fn widths(&self) -> Widths {
        Widths::new(self.width, self.shape, self.inner, true)
    }
}
