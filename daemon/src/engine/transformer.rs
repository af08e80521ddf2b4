//! A network with its tokenizer and what makes rows of texts from those of tokens.

use std::sync::Arc;

use super::device_memory::compute_error;
use super::encoder::Encoder;
use super::layers::read_values;
use super::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence, check_rows};
use super::network::Network;
use super::pooling::Head;
use super::workspace::Workspace;

/// An embedding model around a network.
#[derive(Debug)]
pub(super) struct Transformer {
    pub(super) network: Network,
    pub(super) encoder: Encoder,
    pub(super) head: Head,
    pub(super) card: ModelCard,
    pub(super) fingerprint: [u8; 32],
}

impl EmbeddingModel for Transformer {
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
        Box::new(TransformerComputer { model: self, workspace: Workspace::default() })
    }
}

#[derive(Debug)]
struct TransformerComputer {
    model: Arc<Transformer>,
    workspace: Workspace,
}

impl Computer for TransformerComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.card, batch, rows)?;
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.ids.len()).collect();
        let width = model.network.widths.hidden;
        if lengths.iter().all(|&len| len == 0) {
            model.head.write(&[], width, &lengths, rows);
            return Ok(());
        }
        let failed = |source| compute_error(source, model.network.device(), lengths.iter().sum());
        let hidden = model.network.forward(batch, &mut self.workspace).map_err(failed)?;
        let write = |hidden: &[f32]| {
            model.head.write(hidden, width, &lengths, rows);
            Ok(())
        };
        read_values(&hidden, write).map_err(failed)
    }
}
