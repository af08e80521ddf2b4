//! What is done to the scores of tokens before one is chosen, in the order of transformers.

use crate::batching::generation::config::GenerationConfig;
use emberd_engine::{GenerationDefaults, ScoreRules};
use emberd_protocol::FinishReason;
use std::collections::BTreeSet;

const NEVER: f32 = f32::NEG_INFINITY;

/// What holds for every answer of a request. Tokens made so far are given with the start token in
/// front, as the rules of transformers see them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    pub(super) start: u32,
    eos: Vec<u32>,
    forced_bos: Vec<u32>,
    forced_eos: Vec<u32>,
    /// Those that only the folder speaks of.
    folder: ScoreRules,
    /// The input's tokens, where a rule looks at them.
    input: Vec<u32>,
    pub(super) min_new_tokens: usize,
    pub(super) max_new_tokens: usize,
    pub(super) repetition_penalty: f32,
    pub(super) no_repeat_ngram_size: usize,
}

impl Rules {
    /// `input`: the tokens of the text.
    pub(super) fn new(
        config: &GenerationConfig,
        model: &GenerationDefaults,
        input: &[u32],
    ) -> Self {
        let folder = model.rules.clone();
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

    /// Tokens that can end an answer.
    pub(super) fn ends(&self) -> usize {
        self.eos.len()
    }

    /// Changes the scores of what may come after these tokens.
    pub(super) fn apply(&self, ids: &[u32], scores: &mut [f32]) {
        let folder = &self.folder;
        for (run, bias) in &folder.sequence_bias {
            add_behind(ids, run, *bias, scores);
        }
        // The greater the penalty, the likelier is what the input says.
        penalise(&self.input, folder.encoder_repetition_penalty.recip(), scores);
        penalise(ids, self.repetition_penalty, scores);
        forbid_ngrams(ids, ids, self.no_repeat_ngram_size, scores);
        forbid_ngrams(&self.input, ids, folder.encoder_no_repeat_ngram_size, scores);
        for run in &folder.bad_words {
            add_behind(ids, run, NEVER, scores);
        }
        let made = ids.len() - 1;
        if made < self.min_new_tokens {
            set(scores, &self.eos, NEVER);
        }
        if made == 0 {
            force(scores, &self.forced_bos);
        }
        if made + 1 == self.max_new_tokens {
            force(scores, &self.forced_eos);
        }
        self.urge_the_end(made, scores);
        set(scores, &folder.suppressed, NEVER);
        if made == usize::from(!self.forced_bos.is_empty()) {
            set(scores, &folder.begin_suppressed, NEVER);
        }
    }

    /// Whether scores are made probabilities again once tokens were excluded.
    pub(super) fn renormalises(&self) -> bool {
        self.folder.renormalize
    }

    /// Makes an end likelier with each token beyond a length.
    fn urge_the_end(&self, made: usize, scores: &mut [f32]) {
        let Some((length, factor)) = self.folder.length_decay else { return };
        let beyond = i32::try_from(made.saturating_sub(length)).unwrap_or(i32::MAX);
        if beyond == 0 {
            return;
        }
        // Each once, however often it is named.
        let ends: BTreeSet<u32> = self.eos.iter().copied().collect();
        for end in ends {
            if let Some(score) = scores.get_mut(end as usize).filter(|score| score.is_finite()) {
                *score += score.abs() * (factor.powi(beyond) - 1.0);
            }
        }
    }

    /// Whether an answer ends with its last token.
    pub(super) fn finish(&self, ids: &[u32]) -> Option<FinishReason> {
        let full = ids.len() > self.max_new_tokens;
        // An end that was forced upon the model is not its own.
        let own_end = !full || self.forced_eos.is_empty();
        match ids.last() {
            Some(last) if own_end && self.eos.contains(last) => Some(FinishReason::End),
            _ if full => Some(FinishReason::Length),
            _ => None,
        }
    }
}

/// Whether a penalty is one.
fn changes(penalty: f32) -> bool {
    (penalty - 1.0).abs() > f32::EPSILON
}

/// Makes tokens less likely, each once, whatever the sign of its score.
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

/// Forbids what would end a run of so many tokens that `text` has already; 0 for none.
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

/// Adds to the score of the last token of a run where the others have just been made.
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

/// Leaves only these tokens, if there are any.
fn force(scores: &mut [f32], ids: &[u32]) {
    if !ids.is_empty() {
        scores.fill(NEVER);
        set(scores, ids, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            start: 0,
            eos: vec![1],
            forced_bos: Vec::new(),
            forced_eos: Vec::new(),
            folder: ScoreRules::default(),
            input: Vec::new(),
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
            Rules { forced_bos: vec![3], forced_eos: vec![1], max_new_tokens: 3, ..rules() };
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
        let forced = Rules { forced_eos: vec![1], ..free };
        assert_eq!(forced.finish(&[0, 3, 1]), Some(FinishReason::Length));
    }

    #[test]
    fn numbers_of_tokens_that_the_model_has_not_change_nothing() {
        let folder = ScoreRules { suppressed: vec![99, 3], ..ScoreRules::default() };
        let rules = Rules { folder, repetition_penalty: 2.0, ..rules() };
        assert_eq!(applied(&rules, &[77]), [1.0, 2.0, -3.0, NEVER]);
    }

    fn of_folder(folder: ScoreRules) -> Rules {
        Rules { folder, ..rules() }
    }

    #[test]
    fn runs_of_tokens_are_kept_out_or_made_likelier_behind_their_beginning() {
        let none = ScoreRules::default();
        let rules =
            of_folder(ScoreRules { bad_words: vec![vec![3, 2, 1], vec![0]], ..none.clone() });
        assert_eq!(applied(&rules, &[0, 3, 2]), [NEVER, NEVER, -3.0, 4.0]);
        assert_eq!(applied(&rules, &[0, 2, 2]), [NEVER, 2.0, -3.0, 4.0]);
        assert_eq!(applied(&rules, &[2]), [NEVER, 2.0, -3.0, 4.0]);
        let bias = vec![(vec![3, 2], 5.0), (vec![1], -1.0)];
        let rules = of_folder(ScoreRules { sequence_bias: bias, ..none });
        assert_eq!(applied(&rules, &[0, 3]), [1.0, 1.0, 2.0, 4.0]);
        assert_eq!(applied(&rules, &[3, 0]), [1.0, 1.0, -3.0, 4.0]);
    }

    #[test]
    fn the_input_is_made_likelier_and_its_ngrams_are_kept_out() {
        let none = ScoreRules::default();
        let likelier = ScoreRules { encoder_repetition_penalty: 2.0, ..none.clone() };
        let rules = Rules { input: vec![1, 2, 1], ..of_folder(likelier) };
        assert_eq!(applied(&rules, &[0]), [1.0, 4.0, -1.5, 4.0]);
        let ngrams = ScoreRules { encoder_no_repeat_ngram_size: 2, ..none };
        let rules = Rules { input: vec![3, 2, 3, 1], ..of_folder(ngrams) };
        assert_eq!(applied(&rules, &[0, 3]), [1.0, NEVER, NEVER, 4.0]);
        assert_eq!(applied(&rules, &[3, 0]), [1.0, 2.0, -3.0, 4.0]);
    }

    #[test]
    fn the_end_is_urged_beyond_a_length_and_the_beginning_has_its_own_rules() {
        let none = ScoreRules::default();
        let rules = of_folder(ScoreRules { length_decay: Some((1, 3.0)), ..none.clone() });
        assert_eq!(applied(&rules, &[0, 3])[1], 2.0);
        assert_eq!(applied(&rules, &[0, 3, 3])[1], 6.0);
        assert_eq!(applied(&rules, &[0, 3, 3, 3])[1], 18.0);
        let rules = of_folder(ScoreRules { begin_suppressed: vec![3], ..none });
        assert_eq!(applied(&rules, &[0])[3], NEVER);
        assert_eq!(applied(&rules, &[0, 2])[3], 4.0);
        let rules = Rules { forced_bos: vec![2], ..rules };
        assert_eq!(applied(&rules, &[0])[2], 0.0);
        assert_eq!(applied(&rules, &[0, 2])[3], NEVER);
    }
}
