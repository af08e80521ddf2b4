//! What changes the scores of tokens before one is chosen, in the order of transformers.

#[cfg(test)]
mod tests;

use crate::batching::generation::config::GenerationConfig;
use emberd_engine::{GenerationDefaults, LogitsSettings};
use emberd_protocol::FinishReason;
use std::collections::BTreeSet;

const NEVER: f32 = f32::NEG_INFINITY;

/// The processors of a request; they apply to each of its sequences. The ids of a sequence begin
/// with the start token, as transformers passes them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LogitsProcessors {
    pub(super) start: u32,
    eos: Vec<u32>,
    forced_bos: Vec<u32>,
    forced_eos: Vec<u32>,
    /// Those that only the model's folder can configure.
    folder: LogitsSettings,
    /// The tokens of the input; empty if no processor looks at them.
    input: Vec<u32>,
    pub(super) min_new_tokens: usize,
    pub(super) max_new_tokens: usize,
    pub(super) repetition_penalty: f32,
    pub(super) no_repeat_ngram_size: usize,
}

impl LogitsProcessors {
    /// `input`: the tokens of the input.
    pub(super) fn new(
        config: &GenerationConfig,
        model: &GenerationDefaults,
        input: &[u32],
    ) -> Self {
        let folder = model.logits.clone();
        let looks_at_input =
            folder.encoder_no_repeat_ngram_size > 0 || changes(folder.encoder_repetition_penalty);
        Self {
            start: model.decoder_start,
            eos: model.eos.clone(),
            forced_bos: model.forced_bos.clone(),
            forced_eos: model.forced_eos.clone(),
            input: if looks_at_input { input.to_vec() } else { Vec::new() },
            folder,
            min_new_tokens: config.min_new_tokens,
            max_new_tokens: config.max_new_tokens,
            repetition_penalty: config.repetition_penalty,
            no_repeat_ngram_size: config.no_repeat_ngram_size,
        }
    }

    /// How many tokens can end an answer.
    pub(super) fn end_tokens(&self) -> usize {
        self.eos.len()
    }

    /// Changes the scores of the tokens that may follow `ids`.
    pub(super) fn apply(&self, ids: &[u32], scores: &mut [f32]) {
        let folder = &self.folder;
        for (run, bias) in &folder.sequence_bias {
            add_behind(ids, run, *bias, scores);
        }
        // The greater this penalty, the likelier are the tokens of the input.
        penalise(&self.input, folder.encoder_repetition_penalty.recip(), scores);
        penalise(ids, self.repetition_penalty, scores);
        forbid_ngrams(ids, ids, self.no_repeat_ngram_size, scores);
        forbid_ngrams(&self.input, ids, folder.encoder_no_repeat_ngram_size, scores);
        for run in &folder.bad_words {
            add_behind(ids, run, NEVER, scores);
        }
        let generated = ids.len() - 1;
        if generated < self.min_new_tokens {
            set(scores, &self.eos, NEVER);
        }
        if generated == 0 {
            force(scores, &self.forced_bos);
        }
        if generated + 1 == self.max_new_tokens {
            force(scores, &self.forced_eos);
        }
        self.boost_end(generated, scores);
        set(scores, &folder.suppressed, NEVER);
        if generated == usize::from(!self.forced_bos.is_empty()) {
            set(scores, &folder.begin_suppressed, NEVER);
        }
    }

    /// Whether scores are normalised again after tokens were excluded.
    pub(super) fn renormalises(&self) -> bool {
        self.folder.renormalize
    }

    /// Why the answer ends with its last token, if it does.
    pub(super) fn finish(&self, ids: &[u32]) -> Option<FinishReason> {
        let full = ids.len() > self.max_new_tokens;
        // A forced end token does not count as the choice of the model.
        let own_end = !full || self.forced_eos.is_empty();
        match ids.last() {
            Some(last) if own_end && self.eos.contains(last) => Some(FinishReason::End),
            _ if full => Some(FinishReason::Length),
            _ => None,
        }
    }

    /// Makes the end likelier with each token beyond a length.
    fn boost_end(&self, generated: usize, scores: &mut [f32]) {
        let Some((length, factor)) = self.folder.length_decay else { return };
        let beyond = i32::try_from(generated.saturating_sub(length)).unwrap_or(i32::MAX);
        if beyond == 0 {
            return;
        }
        // Each end token once, even if the folder lists it twice.
        let ends: BTreeSet<u32> = self.eos.iter().copied().collect();
        for end in ends {
            if let Some(score) = scores.get_mut(end as usize).filter(|score| score.is_finite()) {
                *score += score.abs() * (factor.powi(beyond) - 1.0);
            }
        }
    }
}

/// Whether a penalty has an effect.
fn changes(penalty: f32) -> bool {
    (penalty - 1.0).abs() > f32::EPSILON
}

/// Makes tokens less likely, each once, whether its score is positive or negative.
fn penalise(tokens: &[u32], penalty: f32, scores: &mut [f32]) {
    if !changes(penalty) {
        return;
    }
    let mut seen = tokens.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Excludes tokens that would complete an n-gram of `size` tokens that occurs in `text`. 0: no
/// effect.
fn forbid_ngrams(text: &[u32], ids: &[u32], size: usize, scores: &mut [f32]) {
    if size == 0 || size > ids.len() + 1 {
        return;
    }
    let end = &ids[ids.len() + 1 - size..];
    for ngram in text.windows(size) {
        if let Some((last, front)) = ngram.split_last()
            && front == end
        {
            set(scores, &[*last], NEVER);
        }
    }
}

/// Adds `bias` to the score of the last token of a run if `ids` ends with the tokens before it.
fn add_behind(ids: &[u32], run: &[u32], bias: f32, scores: &mut [f32]) {
    if let Some((last, front)) = run.split_last()
        && ids.ends_with(front)
        && let Some(score) = scores.get_mut(*last as usize)
    {
        *score += bias;
    }
}

fn set(scores: &mut [f32], ids: &[u32], value: f32) {
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = value;
        }
    }
}

/// Leaves only these tokens; no effect if there are none.
fn force(scores: &mut [f32], ids: &[u32]) {
    if !ids.is_empty() {
        scores.fill(NEVER);
        set(scores, ids, 0.0);
    }
}
