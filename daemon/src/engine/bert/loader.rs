//! BERT's weights, by the names that Hugging Face gives them.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use candle_transformers::models::bert::Config;

use super::{Block, Network};
use crate::engine::layers::activation::Activation;
use crate::engine::layers::attention::Attention;
use crate::engine::layers::embedding::Embedding;
use crate::engine::layers::linear::{Linear, LinearBuilder};
use crate::engine::layers::norm::LayerNorm;
use crate::engine::load_error::LoadError;
use crate::engine::weights::Weights;

/// Reads the tensors of one file.
pub(super) struct Loader<'a> {
    config: &'a Config,
    weights: &'a Weights,
    device: &'a Device,
    /// `bert.` where the file was saved with a head around the encoder.
    prefix: &'static str,
    /// Weights on their way into panels.
    buffer: Vec<f32>,
    values_read: u64,
    names_read: BTreeSet<String>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(config: &'a Config, weights: &'a Weights, device: &'a Device) -> Self {
        let prefix =
            if weights.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        Self {
            config,
            weights,
            device,
            prefix,
            buffer: Vec::new(),
            values_read: 0,
            names_read: BTreeSet::new(),
        }
    }

    pub(super) fn network(mut self) -> Result<Network, LoadError> {
        let width = self.config.hidden_size;
        let heads = self.config.num_attention_heads;
        let embedding = self.embedding()?;
        let blocks = (0..self.config.num_hidden_layers)
            .map(|i| self.block(i))
            .collect::<Result<Vec<_>, _>>()?;
        self.check_extra()?;
        Ok(Network {
            embedding,
            blocks,
            attention: Attention { heads, head_width: width / heads },
            width,
            widest: self.config.intermediate_size.max(3 * width),
            weight_bytes: 4 * self.values_read,
        })
    }

    /// Refuses a file that has more of an encoder than was read: its configuration is another
    /// model's, and would make wrong rows. Poolers and heads beside the encoder are left alone.
    fn check_extra(&self) -> Result<(), LoadError> {
        let is_extra = |name: &&str| {
            let own = name.strip_prefix(self.prefix).unwrap_or(name);
            let is_counted_up = own.ends_with("position_ids") || own.ends_with("token_type_ids");
            let is_part = own.starts_with("embeddings.") || own.starts_with("encoder.");
            is_part && !is_counted_up && !self.names_read.contains(*name)
        };
        let is_unread = |name: &&str| !self.names_read.contains(*name);
        let unread: Vec<&str> = self.weights.names().filter(is_unread).collect();
        if let Some(first) = unread.first() {
            let (file, count) = (self.weights.file().display(), unread.len());
            tracing::info!(%file, count, first, "tensors beside the encoder are not used");
        }
        match self.weights.names().find(is_extra) {
            None => Ok(()),
            Some(tensor) => Err(LoadError::ExtraTensor {
                file: self.weights.file().to_owned(),
                tensor: tensor.to_owned(),
            }),
        }
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
        let name = format!("{}{name}", self.prefix);
        self.weights.read(&name, shape, values)?;
        self.names_read.insert(name);
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
