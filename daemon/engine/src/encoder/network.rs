//! What all encoders are made of: an embedding and a stack of blocks of attention and feed-forward.
//!
//! Architectures differ in where they normalise, in how they tell places apart, and in what a token
//! looks at. Each is a [`Network`] with those parts chosen; see [`crate::encoder::architectures`].

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::api::embedding::Sequence;
use crate::encoder::workspace::{Workspace, view};
use crate::layers::attention::Attention;
use crate::layers::elementwise::{add, multiply};
use crate::layers::embedding::Embedding;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::relative_bias::RelativeBias;
use crate::layers::rms_norm::HeadNorm;
use crate::layers::rotary::{Rotary, Turned, Turns};

/// An encoder without its tokenizer.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) embedding: Embedding,
    pub(crate) blocks: Vec<Block>,
    /// Added to the scores of all blocks.
    pub(crate) bias: Option<RelativeBias>,
    /// By number, as blocks name them.
    pub(crate) rotaries: Vec<Rotary>,
    /// Behind the last block.
    pub(crate) last_norm: Option<Norm>,
    pub(crate) widths: Widths,
    /// Bytes that the weights hold in memory.
    pub(crate) weight_bytes: u64,
}

/// Values of one token in the activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Widths {
    /// In the residual stream.
    pub(crate) hidden: usize,
    /// In the queries, keys and values.
    pub(crate) qkv: usize,
    /// In the context that attention makes.
    pub(crate) context: usize,
    /// Between the layers of the feed-forward.
    pub(crate) inner: usize,
    /// Whether that is gated, and so computed twice.
    pub(crate) gated: bool,
}

impl Widths {
    /// The buffers of [`Network::forward`]: the residual stream, what is read from it or joins it,
    /// the widest product, and the gate.
    fn buffers(self) -> [usize; 4] {
        let joining = self.hidden.max(self.context);
        let widest = self.qkv.max(self.inner).max(self.hidden);
        [self.hidden, joining, widest, if self.gated { self.inner } else { 0 }]
    }

    /// All of them together.
    pub(crate) fn total(self) -> u64 {
        self.buffers().iter().map(|&width| width as u64).fold(0, u64::saturating_add)
    }
}

/// Attention and feed-forward.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention: SelfAttention,
    pub(crate) feed: FeedForward,
    pub(crate) norms: Norms,
}

/// Attention with its weights.
#[derive(Debug)]
pub(crate) struct SelfAttention {
    pub(crate) qkv: Linear,
    pub(crate) head_norm: Option<HeadNorm>,
    /// Which of [`Network::rotaries`] turns queries and keys.
    pub(crate) rotary: Option<usize>,
    pub(crate) shape: Attention,
    pub(crate) output: Linear,
}

/// Two linear layers with an activation between, perhaps gated.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub(crate) up: Linear,
    /// Multiplies what comes out of `up`.
    pub(crate) gate: Option<Linear>,
    pub(crate) down: Linear,
}

/// Where a block normalises.
#[derive(Debug)]
pub(crate) enum Norms {
    /// What it adds to the residual stream, together with that: as BERT does.
    After {
        /// Behind attention.
        attention: Norm,
        /// Behind the feed-forward.
        feed: Norm,
    },
    /// What it reads from the residual stream.
    Before {
        /// In front of attention.
        attention: Option<Norm>,
        /// What attention adds.
        attended: Option<Norm>,
        /// In front of the feed-forward.
        feed: Norm,
        /// What the feed-forward adds.
        fed: Option<Norm>,
    },
}

/// The buffers that a block computes in, and what it needs to know of the batch.
struct Pass<'a> {
    network: &'a Network,
    lengths: &'a [usize],
    turns: &'a [std::sync::Arc<Turns>],
    tokens: usize,
    hidden: Tensor,
    joining: Tensor,
    wide: Tensor,
    gate: Tensor,
}

impl Network {
    /// Where its weights are, and its activations.
    pub(crate) fn device(&self) -> &Device {
        self.embedding.tokens.device()
    }

    /// The last hidden rows of all tokens, in the workspace.
    pub(crate) fn forward(
        &self,
        sequences: &[&Sequence],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let tokens = lengths.iter().sum();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let turns: Vec<_> = self.rotaries.iter().map(|rotary| rotary.turns(longest)).collect();
        let [hidden, joining, wide, gate] =
            workspace.buffers(tokens, self.widths.buffers(), self.device())?;
        let hidden = view(&hidden, tokens, self.widths.hidden)?;
        let (lengths, turns) = (&lengths[..], &turns[..]);
        let pass = Pass { network: self, lengths, turns, tokens, hidden, joining, wide, gate };

        self.embedding.forward(sequences, &pass.hidden)?;
        for block in &self.blocks {
            pass.block(block, workspace)?;
        }
        if let Some(norm) = &self.last_norm {
            norm.apply(&pass.hidden)?;
        }
        Ok(pass.hidden)
    }
}

impl Pass<'_> {
    fn block(&self, block: &Block, workspace: &mut Workspace) -> TensorResult<()> {
        let Block { attention, feed, norms } = block;
        let hidden = &self.hidden;
        match norms {
            Norms::After { attention: attention_norm, feed: feed_norm } => {
                let attended = self.attend(attention, hidden, workspace)?;
                attention_norm.add(&attended, hidden)?;
                let fed = self.feed(feed, hidden)?;
                feed_norm.add(&fed, hidden)
            }
            Norms::Before { attention: attention_norm, attended: after, feed: feed_norm, fed } => {
                let normed = view(&self.joining, self.tokens, self.network.widths.hidden)?;
                let read = match attention_norm {
                    None => hidden,
                    Some(norm) => {
                        norm.write(hidden, &normed)?;
                        &normed
                    }
                };
                let attended = self.attend(attention, read, workspace)?;
                if let Some(norm) = after {
                    norm.apply(&attended)?;
                }
                add(hidden, &attended)?;
                feed_norm.write(hidden, &normed)?;
                let joining = self.feed(feed, &normed)?;
                if let Some(norm) = fed {
                    norm.apply(&joining)?;
                }
                add(hidden, &joining)
            }
        }
    }

    /// What attention makes of rows that lie in `hidden` or `joining`, in `wide`.
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
        if let Some(turns) = layer.rotary.and_then(|number| self.turns.get(number)) {
            let heads = shape.heads + shape.key_heads;
            let turned = Turned { heads, head_width: shape.head_width };
            turns.forward(&qkv, turned, self.lengths)?;
        }
        let context = view(&self.joining, self.tokens, shape.width())?;
        let bias = self.network.bias.as_ref();
        shape.forward(&qkv, &context, self.lengths, bias, &mut workspace.attention)?;
        let attended = view(&self.wide, self.tokens, self.network.widths.hidden)?;
        layer.output.forward(&context, &attended)?;
        Ok(attended)
    }

    /// What the feed-forward makes of rows that lie in `hidden` or `joining`, in `joining`.
    fn feed(&self, layer: &FeedForward, rows: &Tensor) -> TensorResult<Tensor> {
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
