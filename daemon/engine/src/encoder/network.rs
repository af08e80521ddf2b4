//! The network of every encoder: an embedding and a stack of blocks.
//!
//! Architectures differ in where they normalise, in how they encode positions, and in which tokens a
//! token attends to. Each is a [`Network`] with those parts chosen; see
//! [`architectures`](crate::encoder::architectures).

use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::api::sequence::Sequence;
use crate::checkpoint::encoder_spec::Widths;
use crate::encoder::block::{Block, FeedForward, Norms, SelfAttention};
use crate::encoder::workspace::{Workspace, view};
use crate::layers::elementwise::{add, multiply};
use crate::layers::embedding::Embedding;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::relative_bias::RelativeBias;
use crate::layers::rotary::{Rotary, RotaryTable, RotatedHeads};

/// An encoder without its tokenizer.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) embedding: Embedding,
    /// From embedding rows to the residual stream, if their widths differ.
    pub(crate) projection: Option<Linear>,
    /// In order. A block may occur several times; it is in memory once.
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Added to the scores of all blocks.
    pub(crate) bias: Option<RelativeBias>,
    /// Blocks refer to them by index.
    pub(crate) rotaries: Vec<Rotary>,
    /// After the last block.
    pub(crate) last_norm: Option<Norm>,
    pub(crate) widths: Widths,
    /// Bytes that the weights take in memory.
    pub(crate) weight_bytes: u64,
}

impl Network {
    /// A network of these parts, without the optional ones.
    pub(crate) fn of(
        embedding: Embedding,
        blocks: Vec<Block>,
        widths: Widths,
        weight_bytes: u64,
    ) -> Self {
        Self {
            embedding,
            projection: None,
            blocks: blocks.into_iter().map(Arc::new).collect(),
            bias: None,
            rotaries: Vec::new(),
            last_norm: None,
            widths,
            weight_bytes,
        }
    }

    /// The device of its weights and activations.
    pub(crate) fn device(&self) -> &Device {
        self.embedding.tokens.device()
    }

    /// The last hidden rows of all tokens, in the workspace: `[tokens, hidden]`.
    pub(crate) fn forward(
        &self,
        sequences: &[&Sequence],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let tokens = lengths.iter().sum();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let rotations: Vec<_> = self.rotaries.iter().map(|rotary| rotary.table(longest)).collect();
        let [hidden, joining, wide, gate] =
            workspace.buffers(tokens, self.widths.buffers(), self.device())?;
        let hidden = view(&hidden, tokens, self.widths.hidden)?;
        let (lengths, rotations) = (&lengths[..], &rotations[..]);
        let pass =
            ForwardPass { network: self, lengths, rotations, tokens, hidden, joining, wide, gate };

        pass.embed(sequences)?;
        for block in &self.blocks {
            pass.block(block, workspace)?;
        }
        if let Some(norm) = &self.last_norm {
            norm.apply(&pass.hidden)?;
        }
        Ok(pass.hidden)
    }
}

/// The forward pass of one batch: the buffers, and the lengths of the sequences.
struct ForwardPass<'a> {
    network: &'a Network,
    lengths: &'a [usize],
    rotations: &'a [Arc<RotaryTable>],
    tokens: usize,
    hidden: Tensor,
    joining: Tensor,
    wide: Tensor,
    gate: Tensor,
}

impl ForwardPass<'_> {
    /// Writes the embedding rows to `hidden`.
    fn embed(&self, sequences: &[&Sequence]) -> TensorResult<()> {
        let Network { embedding, projection, widths, .. } = self.network;
        let Some(projection) = projection else {
            return embedding.forward(sequences, &self.hidden);
        };
        let embedded = view(&self.joining, self.tokens, widths.embedding)?;
        embedding.forward(sequences, &embedded)?;
        projection.forward(&embedded, &self.hidden)
    }

    fn block(&self, block: &Block, workspace: &mut Workspace) -> TensorResult<()> {
        let Block { attention, feed_forward, norms } = block;
        let hidden = &self.hidden;
        match norms {
            Norms::After { attention: attention_norm, feed_forward: feed_norm } => {
                let attended = self.attend(attention, hidden, workspace)?;
                attention_norm.add(&attended, hidden)?;
                let fed = self.feed_forward(feed_forward, hidden)?;
                feed_norm.add(&fed, hidden)
            }
            Norms::Before {
                attention: attention_norm,
                attended: attended_norm,
                feed_forward: feed_norm,
                fed: fed_norm,
            } => {
                let normed = view(&self.joining, self.tokens, self.network.widths.hidden)?;
                let read = match attention_norm {
                    None => hidden,
                    Some(norm) => {
                        norm.write(hidden, &normed)?;
                        &normed
                    }
                };
                let attended = self.attend(attention, read, workspace)?;
                if let Some(norm) = attended_norm {
                    norm.apply(&attended)?;
                }
                add(hidden, &attended)?;
                feed_norm.write(hidden, &normed)?;
                let fed = self.feed_forward(feed_forward, &normed)?;
                if let Some(norm) = fed_norm {
                    norm.apply(&fed)?;
                }
                add(hidden, &fed)
            }
        }
    }

    /// The output of attention, in `wide`. The `rows` are in `hidden` or `joining`.
    fn attend(
        &self,
        layer: &SelfAttention,
        rows: &Tensor,
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let shape = layer.shape;
        let qkv = view(&self.wide, self.tokens, shape.qkv_width())?;
        layer.qkv.forward(rows, &qkv)?;
        if let Some(norm) = &layer.head_norm {
            norm.forward(&qkv)?;
        }
        if let Some(table) = layer.rotary.and_then(|index| self.rotations.get(index)) {
            let heads = shape.heads + shape.key_heads;
            let rotated = RotatedHeads { heads, head_width: shape.head_width };
            table.forward(&qkv, rotated, self.lengths)?;
        }
        let context = view(&self.joining, self.tokens, shape.width())?;
        let bias = self.network.bias.as_ref();
        shape.forward(&qkv, &context, self.lengths, bias, &mut workspace.attention)?;
        let attended = view(&self.wide, self.tokens, self.network.widths.hidden)?;
        layer.output.forward(&context, &attended)?;
        Ok(attended)
    }

    /// The output of the feed-forward, in `joining`. The `rows` are in `hidden` or `joining`.
    fn feed_forward(&self, layer: &FeedForward, rows: &Tensor) -> TensorResult<Tensor> {
        let inner = view(&self.wide, self.tokens, layer.up.outputs())?;
        layer.up.forward(rows, &inner)?;
        if let Some(gate) = &layer.gate {
            let open = view(&self.gate, self.tokens, layer.up.outputs())?;
            gate.forward(rows, &open)?;
            multiply(&inner, &open)?;
        }
        let fed = view(&self.joining, self.tokens, self.network.widths.hidden)?;
        layer.down.forward(&inner, &fed)?;
        Ok(fed)
    }
}
