//! BERT as sentence encoder.

use std::sync::Arc;

use candle_core::{DType, Device, Result as TensorResult, Tensor};
use candle_transformers::models::bert::Config;

use super::encoder::Encoder;
use super::layers::activation::Activation;
use super::layers::attention::{Attention, AttentionScratch};
use super::layers::embedding::Embedding;
use super::layers::linear::{Linear, LinearBuilder};
use super::layers::norm::LayerNorm;
use super::layers::with_values;
use super::load_error::LoadError;
use super::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence, check_rows};
use super::pooling::Head;
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
}

impl EmbeddingModel for Bert {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn encode(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.encode(text)
    }

    fn computer(self: Arc<Self>) -> Box<dyn Computer> {
        Box::new(BertComputer { model: self, workspace: Workspace::default() })
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
        let width = model.network.width;
        if lengths.iter().all(|&len| len == 0) {
            model.head.write(&[], width, &lengths, rows);
            return Ok(());
        }
        let hidden = model.network.forward(&sequences, &lengths, &mut self.workspace)?;
        with_values(&hidden, |hidden| {
            model.head.write(hidden, width, &lengths, rows);
            Ok(())
        })?;
        Ok(())
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
        Loader::new(config, weights, device).network()
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

/// Reads tensors by the names of Hugging Face's BERT.
struct Loader<'a> {
    config: &'a Config,
    weights: &'a Weights,
    device: &'a Device,
    /// `bert.` where the file was saved with a head around the encoder.
    prefix: &'static str,
    /// Weights on their way into panels.
    buffer: Vec<f32>,
    values_read: u64,
}

impl<'a> Loader<'a> {
    fn new(config: &'a Config, weights: &'a Weights, device: &'a Device) -> Self {
        let prefix =
            if weights.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        Self { config, weights, device, prefix, buffer: Vec::new(), values_read: 0 }
    }

    fn network(mut self) -> Result<Network, LoadError> {
        let width = self.config.hidden_size;
        let heads = self.config.num_attention_heads;
        let embedding = self.embedding()?;
        let blocks = (0..self.config.num_hidden_layers)
            .map(|i| self.block(i))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Network {
            embedding,
            blocks,
            attention: Attention { heads, head_width: width / heads },
            width,
            widest: self.config.intermediate_size.max(3 * width),
            weight_bytes: 4 * self.values_read,
        })
    }

    fn embedding(&mut self) -> Result<Embedding, LoadError> {
        let (width, config) = (self.config.hidden_size, self.config);
        let tokens =
            self.tensor("embeddings.word_embeddings.weight", &[config.vocab_size, width])?;
        let mut positions = self.values(
            "embeddings.position_embeddings.weight",
            &[config.max_position_embeddings, width],
        )?;
        self.fetch("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, width])?;
        for row in positions.chunks_exact_mut(width) {
            // Single texts are of segment 0 throughout.
            row.iter_mut().zip(&self.buffer).for_each(|(p, s)| *p += s);
        }
        Ok(Embedding {
            tokens,
            positions: self.place(positions, &[config.max_position_embeddings, width])?,
            norm: self.norm("embeddings.LayerNorm")?,
        })
    }

    fn block(&mut self, index: usize) -> Result<Block, LoadError> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let activation = Activation::from(self.config.hidden_act);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Block {
            qkv: self.linear(&qkv, width, width, Activation::None)?,
            attended: self.linear(
                &[name("attention.output.dense")],
                width,
                width,
                Activation::None,
            )?,
            attended_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: self.linear(&[name("intermediate.dense")], width, inner, activation)?,
            down: self.linear(&[name("output.dense")], inner, width, Activation::None)?,
            norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    /// One layer of the named ones, side by side, each `inputs` to `outputs`.
    fn linear(
        &mut self,
        names: &[String],
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Linear, LoadError> {
        let mut builder = LinearBuilder::new(inputs, names.len() * outputs);
        for name in names {
            let bias = self.values(&format!("{name}.bias"), &[outputs])?;
            self.fetch(&format!("{name}.weight"), &[outputs, inputs])?;
            builder.push(&self.buffer, &bias);
        }
        builder.finish(activation, self.device).map_err(|source| self.placing(source))
    }

    fn norm(&mut self, name: &str) -> Result<LayerNorm, LoadError> {
        let width = self.config.hidden_size;
        #[expect(clippy::cast_possible_truncation, reason = "an epsilon needs no more digits")]
        let epsilon = self.config.layer_norm_eps as f32;
        Ok(LayerNorm {
            weight: self.tensor(&format!("{name}.weight"), &[width])?,
            bias: self.tensor(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let values = self.values(name, shape)?;
        self.place(values, shape)
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut values = Vec::new();
        self.read(name, shape, &mut values)?;
        Ok(values)
    }

    /// Reads into the buffer that all layers share on their way.
    fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<(), LoadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read(name, shape, &mut buffer);
        self.buffer = buffer;
        read
    }

    fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &mut Vec<f32>,
    ) -> Result<(), LoadError> {
        self.weights.read(&format!("{}{name}", self.prefix), shape, values)?;
        self.values_read += u64::try_from(values.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn place(&self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor, LoadError> {
        Tensor::from_vec(values, shape, self.device).map_err(|source| self.placing(source))
    }

    fn placing(&self, source: candle_core::Error) -> LoadError {
        LoadError::Tensor { file: self.weights.file().to_owned(), source }
    }
}
