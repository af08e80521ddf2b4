//! What is done to the scores of tokens before one is chosen, in the order of transformers.

use super::config::GenerationConfig;
use crate::engine::text_model::GenerationDefaults;
use emberd_protocol::FinishReason;

const NEVER: f32 = f32::NEG_INFINITY;

/// What holds for every answer of a request. Tokens made so far are given with the start token in
/// front, as the rules of transformers see them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    pub(super) start: u32,
    eos: Vec<u32>,
    forced_bos: Option<u32>,
    forced_eos: Option<u32>,
    suppressed: Vec<u32>,
    pub(super) min_new_tokens: usize,
    pub(super) max_new_tokens: usize,
    pub(super) repetition_penalty: f32,
    pub(super) no_repeat_ngram_size: usize,
}

impl Rules {
    pub(super) fn new(config: &GenerationConfig, model: &GenerationDefaults) -> Self {
        Self {
            start: model.decoder_start,
            eos: model.eos.clone(),
            forced_bos: model.forced_bos,
            forced_eos: model.forced_eos,
            suppressed: model.suppressed.clone(),
            min_new_tokens: config.min_new_tokens,
            max_new_tokens: config.max_new_tokens,
            repetition_penalty: config.repetition_penalty,
            no_repeat_ngram_size: config.no_repeat_ngram_size,
        }
    }

    /// Tokens that can end an answer.
    pub(super) fn ends(&self) -> usize {
        self.eos.len()
    }

    /// Changes the scores of what may come after these tokens.
    pub(super) fn apply(&self, ids: &[u32], scores: &mut [f32]) {
        self.penalise_repetition(ids, scores);
        self.forbid_repeated_ngrams(ids, scores);
        let made = ids.len() - 1;
        if made < self.min_new_tokens {
            set(scores, &self.eos, NEVER);
        }
        if made == 0 {
            force(scores, self.forced_bos);
        }
        if made + 1 == self.max_new_tokens {
            force(scores, self.forced_eos);
        }
        set(scores, &self.suppressed, NEVER);
    }

    /// Whether an answer ends with its last token.
    pub(super) fn finish(&self, ids: &[u32]) -> Option<FinishReason> {
        let full = ids.len() > self.max_new_tokens;
        // An end that was forced upon the model is not its own.
        let own_end = !(full && self.forced_eos.is_some());
        match ids.last() {
            Some(last) if own_end && self.eos.contains(last) => Some(FinishReason::End),
            _ if full => Some(FinishReason::Length),
            _ => None,
        }
    }

    fn penalise_repetition(&self, ids: &[u32], scores: &mut [f32]) {
        if (self.repetition_penalty - 1.0).abs() <= f32::EPSILON {
            return;
        }
        let mut seen = ids.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(score) = scores.get_mut(id as usize) {
                let penalty = self.repetition_penalty;
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }

    fn forbid_repeated_ngrams(&self, ids: &[u32], scores: &mut [f32]) {
        let size = self.no_repeat_ngram_size;
        if size == 0 || size > ids.len() {
            return;
        }
        let end = &ids[ids.len() + 1 - size..];
        for ngram in ids.windows(size) {
            if let Some((last, front)) = ngram.split_last()
                && front == end
            {
                set(scores, &[*last], NEVER);
            }
        }
    }
}

fn set(scores: &mut [f32], ids: &[u32], value: f32) {
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = value;
        }
    }
}

/// Leaves one token only.
fn force(scores: &mut [f32], id: Option<u32>) {
    if let Some(id) = id {
        scores.fill(NEVER);
        set(scores, &[id], 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            start: 0,
            eos: vec![1],
            forced_bos: None,
            forced_eos: None,
            suppressed: Vec::new(),
            min_new_tokens: 0,
            max_new_tokens: 10,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }

    fn applied(rules: &Rules, ids: &[u32]) -> Vec<f32> {
        let mut scores = vec![1.0, 2.0, -3.0, 4.0];
        rules.apply(ids, &mut scores);
        scores
    }

    #[test]
    fn repetition_is_penalised_once_a_token_whatever_its_sign_the_start_token_too() {
        let rules = Rules { repetition_penalty: 2.0, ..rules() };
        assert_eq!(applied(&rules, &[0, 2, 2]), [0.5, 2.0, -6.0, 4.0]);
    }

    #[test]
    fn no_ngram_comes_twice() {
        let bigrams = Rules { no_repeat_ngram_size: 2, ..rules() };
        assert_eq!(applied(&bigrams, &[0, 3, 2, 3]), [1.0, 2.0, NEVER, 4.0]);
        assert_eq!(applied(&bigrams, &[0]), [1.0, 2.0, -3.0, 4.0]);
        let unigrams = Rules { no_repeat_ngram_size: 1, ..rules() };
        assert_eq!(applied(&unigrams, &[0, 3]), [NEVER, 2.0, -3.0, NEVER]);
    }

    #[test]
    fn an_answer_does_not_end_before_its_least_length() {
        let rules = Rules { min_new_tokens: 2, ..rules() };
        assert_eq!(applied(&rules, &[0, 3])[1], NEVER);
        assert_eq!(applied(&rules, &[0, 3, 3])[1], 2.0);
    }

    #[test]
    fn forced_tokens_are_the_only_ones_at_their_places() {
        let rules =
            Rules { forced_bos: Some(3), forced_eos: Some(1), max_new_tokens: 3, ..rules() };
        assert_eq!(applied(&rules, &[0]), [NEVER, NEVER, NEVER, 0.0]);
        assert_eq!(applied(&rules, &[0, 3]), [1.0, 2.0, -3.0, 4.0]);
        assert_eq!(applied(&rules, &[0, 3, 2]), [NEVER, 0.0, NEVER, NEVER]);
    }

    #[test]
    fn an_answer_ends_by_itself_or_for_its_length() {
        let free = Rules { max_new_tokens: 2, ..rules() };
        assert_eq!(free.finish(&[0, 3]), None);
        assert_eq!(free.finish(&[0, 1]), Some(FinishReason::End));
        assert_eq!(free.finish(&[0, 3, 3]), Some(FinishReason::Length));
        assert_eq!(free.finish(&[0, 3, 1]), Some(FinishReason::End));
        let forced = Rules { forced_eos: Some(1), ..free };
        assert_eq!(forced.finish(&[0, 3, 1]), Some(FinishReason::Length));
    }

    #[test]
    fn numbers_of_tokens_that_the_model_has_not_change_nothing() {
        let rules = Rules { suppressed: vec![99, 3], repetition_penalty: 2.0, ..rules() };
        assert_eq!(applied(&rules, &[77]), [1.0, 2.0, -3.0, NEVER]);
    }
}
