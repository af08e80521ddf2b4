//! Static models: a table of token rows. The row of a text is the mean of its tokens' rows.

use std::sync::Arc;

use crate::api::embedding::{ComputeContext, EmbeddingModel, check_rows};
use crate::api::error::ComputeError;
use crate::api::sequence::Sequence;
use crate::api::spec::ModelSpec;
use crate::checkpoint::fingerprint::ModelFingerprint;
use crate::checkpoint::layout::StaticLayout;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::sentence::SentenceSettings;
use crate::checkpoint::weights::Weights;
use crate::heads::post_pooling::{PostPooling, PostPoolingScratch};
use crate::heads::token_table::TokenTable;
use crate::tokenizer::{TextTokenizer, TokenizeOptions, TokenizerFile};

/// A static model with its tokenizer.
#[derive(Debug)]
pub(crate) struct StaticModel {
    table: TokenTable,
    tokenizer: TextTokenizer,
    post_pooling: PostPooling,
    spec: ModelSpec,
    fingerprint: [u8; 32],
}

impl StaticModel {
    /// Reads the table and fits the tokenizer to it.
    pub(crate) fn new(
        weights: &Weights,
        tokenizer: TokenizerFile,
        layout: &StaticLayout,
        settings: SentenceSettings,
    ) -> Result<Self, LoadError> {
        let table = TokenTable::read(weights)?;
        let width = table.width;
        let post_pooling = PostPooling::load(&layout.modules, width)?;
        // The tokenizer's own limit counts: no other file sets one.
        let own_limit = tokenizer.tokenizer.get_truncation().map(|own| own.max_length);
        let max_tokens = own_limit.map_or(layout.max_tokens, |own| own.min(layout.max_tokens));
        let fingerprint = ModelFingerprint::new("static")
            .part("weights", &weights.digest()?)
            .part("tokenizer", &tokenizer.digest)
            .part("limits", format!("{max_tokens}").as_bytes())
            .part("computing type", b"f32")
            .part("tail", post_pooling.digest())
            .finish();
        let options = TokenizeOptions {
            special_tokens: false,
            lower_case: false,
            pools_prompt: true,
            side: None,
            tells_segments: true,
        };
        let prompt = settings.default_prompt_text().to_owned();
        let tokenizer = tokenizer.fit(table.tokens(), max_tokens, options, prompt)?;
        let spec = ModelSpec {
            architecture: "static".to_owned(),
            dimension: post_pooling.outputs(),
            max_tokens,
            normalized: post_pooling.normalizes(),
            weight_bytes: table.bytes().saturating_add(post_pooling.weight_bytes()),
            prompts: settings.prompts,
            default_prompt: settings.default_prompt,
            similarity: Some(settings.similarity),
            truncate_dim: settings.truncate_dim,
        };
        Ok(Self { table, tokenizer, post_pooling, spec, fingerprint })
    }

    /// Writes the mean of the tokens' rows.
    fn pool(&self, ids: &[u32], row: &mut [f32]) -> Result<(), ComputeError> {
        row.fill(0.0);
        for &id in ids {
            if !self.table.add(id, row) {
                return Err(
                    candle_core::Error::Msg(format!("token {id} is beyond the table")).into()
                );
            }
        }
        if !ids.is_empty() {
            #[expect(clippy::cast_precision_loss, reason = "the mean needs no more digits")]
            let scale = 1.0 / ids.len() as f32;
            row.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(())
    }
}

impl EmbeddingModel for StaticModel {
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
        Box::new(StaticContext { model: self, scratch: PostPoolingScratch::default() })
    }
}

#[derive(Debug)]
struct StaticContext {
    model: Arc<StaticModel>,
    scratch: PostPoolingScratch,
}

impl ComputeContext for StaticContext {
    fn compute(
        &mut self,
        batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        let model = &*self.model;
        check_rows(&model.spec, batch, rows)?;
        model.post_pooling.write(rows, &mut self.scratch, |rows| {
            let mut pairs = batch.iter().zip(rows);
            pairs.try_for_each(|(sequence, row)| model.pool(&sequence.ids, row))
        })
    }
}
