//! Beam search for one text, step for step as `_beam_search` of transformers 4.57 does it: in f32,
//! with its score for beams that are out of the race, since what it answers depends on both.

use crate::batching::generation::rules::Rules;
use crate::batching::generation::sampler::{Draws, Sampler};
use crate::batching::text_job::TextError;
use emberd_protocol::{EarlyStopping, FinishReason};

/// What is added to the score of a beam that is out of the race, and the score of an empty place.
const OUT: f32 = -1.0e9;

/// Beams that are followed side by side, and the best that ended.
#[derive(Debug, Clone)]
pub(super) struct BeamSearch {
    count: usize,
    length_penalty: f32,
    early_stopping: EarlyStopping,
    running: Vec<Beam>,
    ended: Vec<Ended>,
    /// Whether a running beam may still become better than those that ended.
    improvable: bool,
    /// How it is drawn which beams go on; `None`: the likeliest do.
    drawn: Option<(Sampler, Draws)>,
}

/// A beam that is followed.
#[derive(Debug, Clone, PartialEq)]
struct Beam {
    /// The start token in front.
    ids: Vec<u32>,
    /// The sum of its tokens' logarithmic probabilities.
    score: f32,
}

/// A place for a beam that ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    /// The start token in front.
    pub(super) ids: Vec<u32>,
    /// The sum of its tokens' logarithmic probabilities over its length to the power of the penalty.
    pub(super) score: f32,
    /// `None` while the place is empty.
    pub(super) finish: Option<FinishReason>,
}

/// A running beam with one more token.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    from: usize,
    id: u32,
    score: f32,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The beams go on: each from the one of this number.
    Continue(Vec<usize>),
    /// No better answer is to be had.
    End,
}

impl BeamSearch {
    pub(super) fn new(
        count: usize,
        length_penalty: f32,
        early_stopping: EarlyStopping,
        start: u32,
    ) -> Self {
        let beam = |number| Beam { ids: vec![start], score: if number == 0 { 0.0 } else { OUT } };
        let empty = Ended { ids: Vec::new(), score: OUT, finish: None };
        Self {
            count,
            length_penalty,
            early_stopping,
            running: (0..count).map(beam).collect(),
            ended: vec![empty; count],
            improvable: true,
            drawn: None,
        }
    }

    /// The same, but which beams go on is drawn.
    pub(super) fn drawn(self, sampler: Sampler, draws: Draws) -> Self {
        Self { drawn: Some((sampler, draws)), ..self }
    }

    /// The last token of each running beam.
    pub(super) fn last_tokens(&self) -> impl Iterator<Item = u32> {
        self.running.iter().filter_map(|beam| beam.ids.last().copied())
    }

    /// Tokens of a running beam.
    fn made(&self) -> usize {
        self.running.first().map_or(0, |beam| beam.ids.len() - 1)
    }

    /// The best answers that ended, the best first.
    pub(super) fn into_best(self, count: usize) -> impl Iterator<Item = (Ended, FinishReason)> {
        let ended = self.ended.into_iter().filter_map(|ended| Some((ended.finish?, ended)));
        ended.map(|(finish, ended)| (ended, finish)).take(count)
    }

    /// Goes on by one token. `logits` are those of the running beams, row behind row, and are
    /// changed; `stops` says whether an answer of these tokens holds a stop string.
    ///
    /// # Errors
    /// When no token can come next and nothing has ended, or `stops` fails.
    pub(super) fn advance(
        &mut self,
        rules: &Rules,
        logits: &mut [f32],
        mut stops: impl FnMut(&[u32]) -> Result<bool, TextError>,
    ) -> Result<Step, TextError> {
        let candidates = self.candidates(rules, logits);
        if candidates.is_empty() {
            let any = self.ended.iter().any(|ended| ended.finish.is_some());
            return if any { Ok(Step::End) } else { Err(TextError::NoToken) };
        }
        let mut next = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            let mut ids = self.running[candidate.from].ids.clone();
            ids.push(candidate.id);
            let mut finish = rules.finish(&ids);
            if stops(&ids)? {
                finish = Some(FinishReason::Stop);
            }
            next.push((Beam { ids, score: candidate.score }, finish));
        }
        self.note_ended(&next);
        let from = self.choose_running(&candidates, &next);
        let made = self.made();
        self.improvable &= self.may_improve(rules.max_new_tokens, made);

        let full = self.ended.iter().all(|ended| ended.finish.is_some());
        let enough = full && self.early_stopping == EarlyStopping::Yes;
        let open = next.iter().any(|(_, finish)| finish.is_none());
        Ok(if self.improvable && !enough && open { Step::Continue(from) } else { Step::End })
    }

    /// The likeliest beams with one more token, the likeliest first: enough of them that as many as
    /// run go on, even if every beam could end in every way.
    fn candidates(&mut self, rules: &Rules, logits: &mut [f32]) -> Vec<Candidate> {
        let wanted = self.count * (1 + rules.ends()).max(2);
        let vocabulary = logits.len() / self.running.len();
        if let Some((sampler, draws)) = &mut self.drawn {
            let rows = self.running.iter().zip(logits.chunks_exact_mut(vocabulary));
            // So many stay in each row whatever is excluded, so that one can go on.
            let least = 1 + rules.ends();
            let mut keyed = Vec::new();
            for (from, (beam, row)) in rows.enumerate() {
                log_softmax(row);
                rules.apply(&beam.ids, row);
                let mut kept = sampler.kept(row, least);
                if rules.renormalises() {
                    let scores: Vec<f32> = kept.iter().map(|(_, score)| *score).collect();
                    let total = log_sum(&scores);
                    kept.iter_mut().for_each(|(_, score)| *score -= total);
                }
                keyed.extend(kept.into_iter().map(|(id, score)| {
                    let score = score + beam.score;
                    (draws.gumbel() + f64::from(score), Candidate { from, id, score })
                }));
            }
            // The greatest of scores with such noise are draws without putting back.
            keyed.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            return keyed.into_iter().map(|(_, candidate)| candidate).take(wanted).collect();
        }
        let mut best: Vec<Candidate> = Vec::with_capacity(wanted + 1);
        let rows = self.running.iter().zip(logits.chunks_exact_mut(vocabulary));
        for (from, (beam, row)) in rows.enumerate() {
            log_softmax(row);
            rules.apply(&beam.ids, row);
            if rules.renormalises() {
                log_softmax(row);
            }
            for (id, score) in (0u32..).zip(row.iter()) {
                let score = score + beam.score;
                // What is not a number is greater than nothing, and so never chosen.
                let least = best.get(wanted - 1).map_or(f32::NEG_INFINITY, |last| last.score);
                if score > least {
                    let place = best.partition_point(|other| other.score >= score);
                    best.insert(place, Candidate { from, id, score });
                    best.truncate(wanted);
                }
            }
        }
        best
    }

    /// Keeps the best of what had ended and what ends now among the first.
    fn note_ended(&mut self, next: &[(Beam, Option<FinishReason>)]) {
        let full = self.ended.iter().all(|ended| ended.finish.is_some());
        let closed = full && self.early_stopping == EarlyStopping::Yes;
        let made = next.first().map_or(1, |(beam, _)| beam.ids.len() - 1);
        let divisor = power(made, self.length_penalty);
        for (rank, (beam, finish)) in next.iter().enumerate() {
            let ends = finish.is_some() && rank < self.count;
            if ends && !closed && self.improvable {
                let score = beam.score / divisor;
                self.ended.push(Ended { ids: beam.ids.clone(), score, finish: *finish });
            }
        }
        // Stable: of equal ones the first stays. An empty place is worse than any answer.
        let is_empty = |ended: &Ended| ended.finish.is_none();
        self.ended.sort_by(|a, b| is_empty(a).cmp(&is_empty(b)).then(b.score.total_cmp(&a.score)));
        self.ended.truncate(self.count);
    }

    /// Takes the best as the next running beams, and answers which each comes from.
    fn choose_running(
        &mut self,
        candidates: &[Candidate],
        next: &[(Beam, Option<FinishReason>)],
    ) -> Vec<usize> {
        let scored = |(place, (beam, finish)): (usize, &(Beam, Option<FinishReason>))| {
            (place, if finish.is_some() { beam.score + OUT } else { beam.score })
        };
        let mut order: Vec<(usize, f32)> = next.iter().enumerate().map(scored).collect();
        order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        order.truncate(self.count);
        let beam = |&(place, score): &(usize, f32)| Beam { ids: next[place].0.ids.clone(), score };
        self.running = order.iter().map(beam).collect();
        order.iter().map(|&(place, _)| candidates[place].from).collect()
    }

    /// Whether the best running beam, at the length that would suit it best, beats the worst that
    /// ended.
    fn may_improve(&self, max_new_tokens: usize, made: usize) -> bool {
        let best = self.running.first().map_or(OUT, |beam| beam.score);
        let length = if self.early_stopping == EarlyStopping::Never && self.length_penalty > 0.0 {
            max_new_tokens
        } else {
            made
        };
        let worst = match self.ended.last() {
            // However bad it is, a beam that runs is better than no answer.
            Some(Ended { finish: None, .. }) if best > OUT / 2.0 => return true,
            Some(ended) => ended.score,
            None => OUT,
        };
        best / power(length, self.length_penalty) > worst
    }
}

fn power(length: usize, penalty: f32) -> f32 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a length is small, and the scores that are divided are f32"
    )]
    let power = (length as f64).powf(f64::from(penalty)) as f32;
    power
}

/// Makes logarithmic probabilities of logits.
fn log_softmax(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let rest = log_sum_beyond(row, greatest);
    for value in row {
        *value = *value - greatest - rest;
    }
}

/// The logarithm of the sum of what these are logarithms of.
fn log_sum(row: &[f32]) -> f32 {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    greatest + log_sum_beyond(row, greatest)
}

fn log_sum_beyond(row: &[f32], greatest: f32) -> f32 {
    let sum: f64 = row.iter().map(|value| f64::from((value - greatest).exp())).sum();
    #[expect(clippy::cast_possible_truncation, reason = "the row is f32")]
    let log = sum.ln() as f32;
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::generation::{GenerationConfig, GenerationLimits};
    use emberd_engine::GenerationDefaults;
    use emberd_protocol::GenerateOptions;

    /// Probabilities of what comes next: the start (never), the end, and two letters.
    type Next = fn(&[u32]) -> [f32; 4];

    const EOS: u32 = 1;
    const A: u32 = 2;
    const B: u32 = 3;

    fn rules(max_new_tokens: u32) -> Rules {
        let options =
            GenerateOptions { max_new_tokens: Some(max_new_tokens), ..GenerateOptions::default() };
        let defaults = GenerationDefaults { eos: vec![EOS], ..GenerationDefaults::default() };
        let limits = GenerationLimits { max_input_tokens: 1, max_new_tokens: 100, rows: 4 };
        let config = GenerationConfig::resolve(&options, false, &defaults, limits).unwrap();
        Rules::new(&config, &defaults, &[])
    }

    /// The answers, without their start token, and how many steps they took.
    fn search(mut beams: BeamSearch, rules: &Rules, next: Next) -> (Vec<Ended>, usize) {
        for steps in 1.. {
            let rows = beams.running.iter().flat_map(|beam| next(&beam.ids[1..]));
            let mut logits: Vec<f32> = rows.map(f32::ln).collect();
            let before: Vec<Vec<u32>> = beams.running.iter().map(|beam| beam.ids.clone()).collect();
            match beams.advance(rules, &mut logits, |_| Ok(false)).unwrap() {
                Step::Continue(from) => {
                    for (beam, from) in beams.running.iter().zip(from) {
                        assert_eq!(beam.ids[..beam.ids.len() - 1], before[from]);
                    }
                }
                Step::End => return (beams.into_best(4).map(|(ended, _)| ended).collect(), steps),
            }
        }
        unreachable!("every answer has a greatest length")
    }

    /// The likelier beginning has the worse ends.
    fn trap(ids: &[u32]) -> [f32; 4] {
        match ids {
            [] => [0.0, 0.0, 0.6, 0.4],
            [A] => [0.0, 0.3, 0.35, 0.35],
            [B] => [0.0, 0.9, 0.05, 0.05],
            _ => [0.0, 1.0, 0.0, 0.0],
        }
    }

    #[test]
    fn a_better_answer_is_found_behind_a_worse_beginning() {
        let beams = BeamSearch::new(2, 0.0, EarlyStopping::No, 0);
        let (answers, _) = search(beams, &rules(5), trap);
        assert_eq!(answers[0].ids, [0, B, EOS]);
        assert!((answers[0].score - 0.36f32.ln()).abs() < 1e-6, "{answers:?}");
    }

    /// Ends at once or goes on for long, at little cost.
    fn long(ids: &[u32]) -> [f32; 4] {
        match ids.len() {
            0 | 1 => [0.0, 0.45, 0.54, 0.01],
            _ => [0.0, 0.01, 0.98, 0.01],
        }
    }

    #[test]
    fn a_search_that_never_ends_early_finds_the_long_answer_and_one_that_does_is_done_sooner() {
        let steps = |early| {
            let (answers, steps) = search(BeamSearch::new(2, 2.0, early, 0), &rules(12), long);
            (answers[0].ids.len() - 1, steps)
        };
        assert_eq!(steps(EarlyStopping::Yes), (2, 2));
        assert_eq!(steps(EarlyStopping::Never), (12, 12));
    }

    #[test]
    fn answers_that_a_penalty_makes_very_bad_are_better_than_none() {
        for penalty in [-40.0, -1.0e38] {
            let beams = BeamSearch::new(3, penalty, EarlyStopping::No, 0);
            let (answers, _) = search(beams, &rules(12), long);
            assert_eq!(answers.len(), 3, "{penalty}: {answers:?}");
            assert!(answers.is_sorted_by(|a, b| a.score >= b.score), "{penalty}: {answers:?}");
        }
    }

    #[test]
    fn drawn_beams_are_the_same_for_a_seed_and_likely_ones_come_more_often() {
        let all = Sampler {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            limits: emberd_engine::DrawLimits::default(),
        };
        let first = |seed| {
            let beams = BeamSearch::new(1, 0.0, EarlyStopping::Yes, 0);
            search(beams.drawn(all, Draws::new(seed, 0)), &rules(12), long).0.swap_remove(0).ids
        };
        let answers: Vec<Vec<u32>> = (0..400).map(first).collect();
        assert_eq!(answers[..20], (0..20).map(first).collect::<Vec<_>>());
        // The first token is the end with 0.45, A with 0.54 and B with 0.01.
        let begins = |token| answers.iter().filter(|ids| ids[1] == token).count();
        assert!((140..220).contains(&begins(EOS)), "{}", begins(EOS));
        assert!((180..260).contains(&begins(A)) && begins(B) < 20, "{} {}", begins(A), begins(B));
    }

    #[test]
    fn where_one_token_alone_may_come_the_other_beams_stay_out_of_the_race() {
        let only = |ids: &[u32]| match ids.len() {
            3 => [0.0, 1.0, 0.0, 0.0],
            _ => [0.0, 0.0, 1.0, 0.0],
        };
        let (answers, steps) =
            search(BeamSearch::new(3, 1.0, EarlyStopping::No, 0), &rules(9), only);
        assert_eq!((answers[0].ids.as_slice(), steps), ([0, A, A, A, EOS].as_slice(), 4));
        assert!(answers[1..].iter().all(|out| out.score < -1.0e8), "{answers:?}");
    }

    #[test]
    fn numbers_that_are_none_are_an_error_and_no_answer() {
        let mut beams = BeamSearch::new(2, 1.0, EarlyStopping::No, 0);
        let result = beams.advance(&rules(5), &mut [f32::NAN; 8], |_| Ok(false));
        assert!(matches!(result, Err(TextError::NoToken)));
    }
}
