//! Embedding models around an encoder.

use std::sync::Arc;

use crate::api::embedding::{ComputeContext, EmbeddingModel, check_rows};
use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::encoder::network::Network;
use crate::encoder::workspace::Workspace;
use crate::heads::pooling_head::PoolingHead;
use crate::heads::post_pooling::PostPoolingScratch;
use crate::tokenizer::TextTokenizer;

/// A network with its tokenizer and a pooling head.
#[derive(Debug)]
pub(crate) struct Transformer {
    /// May be shared with a classification head.
    pub(crate) network: Arc<Network>,
    pub(crate) tokenizer: Arc<TextTokenizer>,
    pub(crate) head: PoolingHead,
    pub(crate) spec: ModelSpec,
    pub(crate) fingerprint: [u8; 32],
}

impl EmbeddingModel for Transformer {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenizer.tokenize(text)
    }

    fn tokenize_with_prompt(&self, prompt: &str, text: &str) -> Result<Sequence, ComputeError> {
        self.tokenizer.tokenize_with_prompt(prompt, text)
    }

    fn fingerprint(&self) -> Option<[u8; 32]> {
        Some(self.fingerprint)
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(TransformerContext {
            model: self,
            workspace: Workspace::default(),
            post_pooling: PostPoolingScratch::default(),
        })
    }
}

#[derive(Debug)]
struct TransformerContext {
    model: Arc<Transformer>,
    workspace: Workspace,
    post_pooling: PostPoolingScratch,
}

impl ComputeContext for TransformerContext {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.spec, batch, rows)?;
        if batch.iter().all(|sequence| sequence.ids.is_empty()) {
            return model.head.write(&[], batch, rows, &mut self.post_pooling);
        }
        let hidden = model.network.forward(batch, &mut self.workspace).map_err(ComputeError::from);
        let written = hidden
            .and_then(|hidden| model.head.write_from(&hidden, batch, rows, &mut self.post_pooling));
        written.map_err(|error| {
            let tokens = batch.iter().map(|sequence| sequence.ids.len()).sum();
            error.or_out_of_memory(model.network.device(), tokens)
        })
    }
}
