//! A network with its tokenizer and what makes rows of texts from those of tokens.

use std::sync::Arc;

use crate::api::embedding::{ComputeContext, EmbeddingModel, check_rows};
use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::encoder::network::Network;
use crate::encoder::workspace::Workspace;
use crate::heads::head::Head;
use crate::heads::post_pooling::TailScratch;
use crate::tokenizer::TextTokenizer;

/// An embedding model around a network.
#[derive(Debug)]
pub(crate) struct Transformer {
    /// A head that scores may share it, and the tokenizer.
    pub(crate) network: Arc<Network>,
    pub(crate) encoder: Arc<TextTokenizer>,
    pub(crate) head: Head,
    pub(crate) card: ModelSpec,
    pub(crate) fingerprint: [u8; 32],
}

impl EmbeddingModel for Transformer {
    fn spec(&self) -> &ModelSpec {
        &self.card
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.tokenize(text)
    }

    fn tokenize_with_prompt(&self, prompt: &str, text: &str) -> Result<Sequence, ComputeError> {
        self.encoder.tokenize_with_prompt(prompt, text)
    }

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(self.fingerprint)
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(TransformerComputer {
            model: self,
            workspace: Workspace::default(),
            tail: TailScratch::default(),
        })
    }
}

#[derive(Debug)]
struct TransformerComputer {
    model: Arc<Transformer>,
    workspace: Workspace,
    tail: TailScratch,
}

impl ComputeContext for TransformerComputer {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.card, batch, rows)?;
        if batch.iter().all(|sequence| sequence.ids.is_empty()) {
            return model.head.write(&[], batch, rows, &mut self.tail);
        }
        let hidden = model.network.forward(batch, &mut self.workspace).map_err(ComputeError::from);
        let written =
            hidden.and_then(|hidden| model.head.write_from(&hidden, batch, rows, &mut self.tail));
        written.map_err(|error| {
            let tokens = batch.iter().map(|sequence| sequence.ids.len()).sum();
            error.or_out_of_memory(model.network.device(), tokens)
        })
    }
}
