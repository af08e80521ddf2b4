//! Beam search for one text, step by step as `_beam_search` of transformers 4.57 does it. The
//! result depends on two of its details: it computes in f32, and it gives excluded beams a very low
//! score instead of removing them.

#[cfg(test)]
mod tests;

use crate::batching::generation::logits_processors::LogitsProcessors;
use crate::batching::generation::sampler::{Rng, Sampler};
use crate::batching::text_job::TextError;
use emberd_protocol::{EarlyStopping, FinishReason};

/// Added to the score of an excluded beam; also the score of an empty slot for an ended beam.
const EXCLUDED: f32 = -1.0e9;

/// The beams that are followed side by side, and the best of those that ended.
#[derive(Debug, Clone)]
pub(super) struct BeamSearch {
    count: usize,
    length_penalty: f32,
    early_stopping: EarlyStopping,
    running: Vec<Beam>,
    ended: Vec<Ended>,
    /// Whether a running beam may still become better than the beams that ended.
    improvable: bool,
    /// How the beams that go on are sampled. `None`: the most likely go on.
    sampling: Option<(Sampler, Rng)>,
}

/// A slot for a beam that ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    /// Begins with the start token.
    pub(super) ids: Vec<u32>,
    /// The sum of the log probabilities of its tokens, divided by its length to the power of the
    /// length penalty.
    pub(super) score: f32,
    /// `None` while the slot is empty.
    pub(super) finish: Option<FinishReason>,
}

/// The outcome of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The beams go on. For each, the number of the beam that it continues.
    Continue(Vec<usize>),
    /// No better answer is possible.
    End,
}

impl BeamSearch {
    pub(super) fn new(
        count: usize,
        length_penalty: f32,
        early_stopping: EarlyStopping,
        start: u32,
    ) -> Self {
        let beam =
            |number| Beam { ids: vec![start], score: if number == 0 { 0.0 } else { EXCLUDED } };
        let empty = Ended { ids: Vec::new(), score: EXCLUDED, finish: None };
        Self {
            count,
            length_penalty,
            early_stopping,
            running: (0..count).map(beam).collect(),
            ended: vec![empty; count],
            improvable: true,
            sampling: None,
        }
    }

    /// The same search, but the beams that go on are sampled.
    pub(super) fn sampled(self, sampler: Sampler, rng: Rng) -> Self {
        Self { sampling: Some((sampler, rng)), ..self }
    }

    /// The last token of each running beam.
    pub(super) fn last_tokens(&self) -> impl Iterator<Item = u32> {
        self.running.iter().filter_map(|beam| beam.ids.last().copied())
    }

    /// The `count` best of the beams that ended, the best first.
    pub(super) fn into_best(self, count: usize) -> impl Iterator<Item = (Ended, FinishReason)> {
        let ended = self.ended.into_iter().filter_map(|ended| Some((ended.finish?, ended)));
        ended.map(|(finish, ended)| (ended, finish)).take(count)
    }

    /// Advances by one token. `logits` holds a row for each running beam and is overwritten. `stops`
    /// tells whether a sequence of tokens contains a stop string.
    ///
    /// # Errors
    /// When every token is excluded and no beam has ended, or `stops` fails.
    pub(super) fn advance(
        &mut self,
        processors: &LogitsProcessors,
        logits: &mut [f32],
        mut stops: impl FnMut(&[u32]) -> Result<bool, TextError>,
    ) -> Result<Step, TextError> {
        let candidates = self.candidates(processors, logits);
        if candidates.is_empty() {
            let any = self.ended.iter().any(|ended| ended.finish.is_some());
            return if any { Ok(Step::End) } else { Err(TextError::NoToken) };
        }
        let mut next = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            let mut ids = self.running[candidate.from].ids.clone();
            ids.push(candidate.id);
            let mut finish = processors.finish(&ids);
            if stops(&ids)? {
                finish = Some(FinishReason::Stop);
            }
            next.push((Beam { ids, score: candidate.score }, finish));
        }
        self.note_ended(&next);
        let from = self.choose_running(&candidates, &next);
        let generated = self.generated();
        self.improvable &= self.may_improve(processors.max_new_tokens, generated);

        let full = self.ended.iter().all(|ended| ended.finish.is_some());
        let enough = full && self.early_stopping == EarlyStopping::Yes;
        let open = next.iter().any(|(_, finish)| finish.is_none());
        Ok(if self.improvable && !enough && open { Step::Continue(from) } else { Step::End })
    }

    /// Tokens generated so far in each running beam.
    fn generated(&self) -> usize {
        self.running.first().map_or(0, |beam| beam.ids.len() - 1)
    }

    /// The most likely continuations of the running beams, the most likely first. There are enough that
    /// all beams can go on, even if every end token is among the candidates of every beam.
    fn candidates(&mut self, processors: &LogitsProcessors, logits: &mut [f32]) -> Vec<Candidate> {
        let wanted = self.count * (1 + processors.end_tokens()).max(2);
        let vocabulary = logits.len() / self.running.len();
        if let Some((sampler, rng)) = &mut self.sampling {
            let rows = self.running.iter().zip(logits.chunks_exact_mut(vocabulary));
            // At least this many stay in each row, so that one of them does not end the beam.
            let least = 1 + processors.end_tokens();
            let mut keyed = Vec::new();
            for (from, (beam, row)) in rows.enumerate() {
                log_softmax(row);
                processors.apply(&beam.ids, row);
                let mut kept = sampler.kept(row, least);
                if processors.renormalises() {
                    let scores: Vec<f32> = kept.iter().map(|(_, score)| *score).collect();
                    let total = log_sum_exp(&scores);
                    kept.iter_mut().for_each(|(_, score)| *score -= total);
                }
                keyed.extend(kept.into_iter().map(|(id, score)| {
                    let score = score + beam.score;
                    (rng.gumbel() + f64::from(score), Candidate { from, id, score })
                }));
            }
            // With Gumbel noise the greatest scores are samples without replacement.
            keyed.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            return keyed.into_iter().map(|(_, candidate)| candidate).take(wanted).collect();
        }
        let mut best: Vec<Candidate> = Vec::with_capacity(wanted + 1);
        let rows = self.running.iter().zip(logits.chunks_exact_mut(vocabulary));
        for (from, (beam, row)) in rows.enumerate() {
            log_softmax(row);
            processors.apply(&beam.ids, row);
            if processors.renormalises() {
                log_softmax(row);
            }
            for (id, score) in (0u32..).zip(row.iter()) {
                let score = score + beam.score;
                // NaN is not greater than anything, so it is never chosen.
                let least = best.get(wanted - 1).map_or(f32::NEG_INFINITY, |last| last.score);
                if score > least {
                    let position = best.partition_point(|other| other.score >= score);
                    best.insert(position, Candidate { from, id, score });
                    best.truncate(wanted);
                }
            }
        }
        best
    }

    /// Keeps the best of the beams that ended before and those that end now. Only the first `count`
    /// candidates may end.
    fn note_ended(&mut self, next: &[(Beam, Option<FinishReason>)]) {
        let full = self.ended.iter().all(|ended| ended.finish.is_some());
        let closed = full && self.early_stopping == EarlyStopping::Yes;
        let generated = next.first().map_or(1, |(beam, _)| beam.ids.len() - 1);
        let divisor = power(generated, self.length_penalty);
        for (rank, (beam, finish)) in next.iter().enumerate() {
            let ends = finish.is_some() && rank < self.count;
            if ends && !closed && self.improvable {
                let score = beam.score / divisor;
                self.ended.push(Ended { ids: beam.ids.clone(), score, finish: *finish });
            }
        }
        // A stable sort: of equal scores the earlier beam stays. An empty slot comes last.
        let is_empty = |ended: &Ended| ended.finish.is_none();
        self.ended.sort_by(|a, b| is_empty(a).cmp(&is_empty(b)).then(b.score.total_cmp(&a.score)));
        self.ended.truncate(self.count);
    }

    /// Makes the best candidates the running beams. Returns the beam that each continues.
    fn choose_running(
        &mut self,
        candidates: &[Candidate],
        next: &[(Beam, Option<FinishReason>)],
    ) -> Vec<usize> {
        let scored = |(rank, (beam, finish)): (usize, &(Beam, Option<FinishReason>))| {
            (rank, if finish.is_some() { beam.score + EXCLUDED } else { beam.score })
        };
        let mut order: Vec<(usize, f32)> = next.iter().enumerate().map(scored).collect();
        order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        order.truncate(self.count);
        let beam = |&(rank, score): &(usize, f32)| Beam { ids: next[rank].0.ids.clone(), score };
        self.running = order.iter().map(beam).collect();
        order.iter().map(|&(rank, _)| candidates[rank].from).collect()
    }

    /// Whether the best running beam, at the length that suits it best, beats the worst beam that
    /// ended.
    fn may_improve(&self, max_new_tokens: usize, generated: usize) -> bool {
        let best = self.running.first().map_or(EXCLUDED, |beam| beam.score);
        let length = if self.early_stopping == EarlyStopping::Never && self.length_penalty > 0.0 {
            max_new_tokens
        } else {
            generated
        };
        let worst = match self.ended.last() {
            // Any running beam is better than no answer.
            Some(Ended { finish: None, .. }) if best > EXCLUDED / 2.0 => return true,
            Some(ended) => ended.score,
            None => EXCLUDED,
        };
        best / power(length, self.length_penalty) > worst
    }
}

/// A beam that is followed.
#[derive(Debug, Clone, PartialEq)]
struct Beam {
    /// Begins with the start token.
    ids: Vec<u32>,
    /// The sum of the log probabilities of its tokens.
    score: f32,
}

/// A running beam with one more token.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    from: usize,
    id: u32,
    score: f32,
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

/// Turns logits into log probabilities.
fn log_softmax(row: &mut [f32]) {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let rest = log_sum_exp_above(row, greatest);
    for value in row {
        *value = *value - greatest - rest;
    }
}

/// The logarithm of the sum of the exponentials.
fn log_sum_exp(row: &[f32]) -> f32 {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    greatest + log_sum_exp_above(row, greatest)
}

fn log_sum_exp_above(row: &[f32], greatest: f32) -> f32 {
    let sum: f64 = row.iter().map(|value| f64::from((value - greatest).exp())).sum();
    #[expect(clippy::cast_possible_truncation, reason = "the row is f32")]
    let log = sum.ln() as f32;
    log
}
