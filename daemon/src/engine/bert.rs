//! BERT as sentence encoder.

mod loader;

use std::sync::Arc;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use candle_transformers::models::bert::Config;

use super::encoder::Encoder;
use super::head::Head;
use super::layers::attention::{Attention, AttentionScratch};
use super::layers::embedding::Embedding;
use super::layers::linear::Linear;
use super::layers::norm::LayerNorm;
use super::layers::with_values;
use super::load_error::LoadError;
use super::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence, check_rows};
use super::tail::TailScratch;
use super::weights::Weights;

/// The network without its tokenizer.
#[derive(Debug)]
pub(super) struct Network {
    embedding: Embedding,
    blocks: Vec<Block>,
    attention: Attention,
    /// Values of a token row.
    width: usize,
    /// Values of the widest activation of one token.
    widest: usize,
    weight_bytes: u64,
}

#[derive(Debug)]
struct Block {
    qkv: Linear,
    attended: Linear,
    attended_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

/// BERT with its tokenizer and its head.
#[derive(Debug)]
pub(super) struct Bert {
    pub(super) network: Network,
    pub(super) encoder: Encoder,
    pub(super) head: Head,
    pub(super) card: ModelCard,
    pub(super) fingerprint: [u8; 32],
}

impl EmbeddingModel for Bert {
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
        Box::new(BertComputer {
            model: self,
            workspace: Workspace::default(),
            tail: TailScratch::default(),
        })
    }
}

/// Activations of one worker, kept from batch to batch. Flat, so that any width fits.
#[derive(Debug, Default)]
struct Workspace {
    /// For how many tokens there is room.
    tokens: usize,
    /// The residual stream, what joins it, and the widest product.
    buffers: Option<[Tensor; 3]>,
    attention: AttentionScratch,
}

#[derive(Debug)]
struct BertComputer {
    model: Arc<Bert>,
    workspace: Workspace,
    tail: TailScratch,
}

impl Computer for BertComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.card, batch, rows)?;
        let sequences: Vec<&[u32]> = batch.iter().map(|sequence| sequence.ids.as_slice()).collect();
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
        if lengths.iter().all(|&len| len == 0) {
            return model.head.write(&[], batch, rows, &mut self.tail);
        }
        let hidden = model.network.forward(&sequences, &lengths, &mut self.workspace)?;
        with_values(&hidden, |hidden| Ok(model.head.write(hidden, batch, rows, &mut self.tail)))?
    }
}

impl Network {
    /// The last hidden rows of all tokens, in the workspace.
    fn forward(
        &self,
        sequences: &[&[u32]],
        lengths: &[usize],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let tokens = lengths.iter().sum();
        let buffers = workspace.buffers(tokens, self.width, self.widest)?;
        let view = |buffer: &Tensor, width: usize| {
            buffer.narrow(0, 0, tokens * width)?.reshape((tokens, width))
        };
        let hidden = view(&buffers[0], self.width)?;
        let joining = view(&buffers[1], self.width)?;
        let qkv = view(&buffers[2], 3 * self.width)?;
        let scratch = &mut workspace.attention;

        self.embedding.forward(sequences, &hidden)?;
        for block in &self.blocks {
            block.qkv.forward(&hidden, &qkv)?;
            self.attention.forward(&qkv, &joining, lengths, scratch)?;
            let attended = view(&buffers[2], self.width)?;
            block.attended.forward(&joining, &attended)?;
            block.attended_norm.forward(&attended, &hidden)?;
            let inner = view(&buffers[2], block.up.outputs())?;
            block.up.forward(&hidden, &inner)?;
            block.down.forward(&inner, &joining)?;
            block.norm.forward(&joining, &hidden)?;
        }
        Ok(hidden)
    }

    /// Reads the weights that `config` tells of.
    pub(super) fn load(
        config: &Config,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, LoadError> {
        loader::Loader::new(config, weights, device).network()
    }

    /// Bytes that the weights hold in memory.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }
}

impl Workspace {
    fn buffers(&mut self, tokens: usize, width: usize, widest: usize) -> TensorResult<[Tensor; 3]> {
        if tokens > self.tokens {
            // Given up first, so that old and new never stand side by side.
            self.buffers = None;
            self.tokens = tokens;
        }
        if let Some(buffers) = &self.buffers {
            return Ok(buffers.clone());
        }
        let room = |width| Tensor::zeros(self.tokens * width, DType::F32, &Device::Cpu);
        let buffers = [room(width)?, room(width)?, room(widest)?];
        self.buffers = Some(buffers.clone());
        Ok(buffers)
    }
}
