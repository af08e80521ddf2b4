//! Beam search for one text, step for step as `_beam_search` of transformers 4.57 does it: in f32,
//! with its score for beams that are out of the race, since what it answers depends on both.

use super::rules::Rules;
use crate::text_job::TextError;
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
        }
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
    fn candidates(&self, rules: &Rules, logits: &mut [f32]) -> Vec<Candidate> {
        let wanted = self.count * (1 + rules.ends()).max(2);
        let vocabulary = logits.len() / self.running.len();
        let mut best: Vec<Candidate> = Vec::with_capacity(wanted + 1);
        let rows = self.running.iter().zip(logits.chunks_exact_mut(vocabulary));
        for (from, (beam, row)) in rows.enumerate() {
            log_softmax(row);
            rules.apply(&beam.ids, row);
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
        // Stable: of equal ones the first stays.
        self.ended.sort_by(|a, b| b.score.total_cmp(&a.score));
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
        let worst = self.ended.last().map_or(OUT, |ended| ended.score);
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
    let sum: f64 = row.iter().map(|value| f64::from((value - greatest).exp())).sum();
    #[expect(clippy::cast_possible_truncation, reason = "the row is f32")]
    let log_sum = sum.ln() as f32;
    for value in row {
        *value = *value - greatest - log_sum;
    }
}
