//! The sequences of one text while they are generated: greedy, sampled or by beams, one token at a
//! time. Pure: logits go in, and it does not matter where they come from.

use crate::batching::generation::beam::{BeamSearch, Step};
use crate::batching::generation::config::{GenerationConfig, Search};
use crate::batching::generation::detokenizer::find_stop;
use crate::batching::generation::logits_processors::LogitsProcessors;
use crate::batching::generation::sampler::{Rng, Sampler};
use crate::batching::text_job::TextError;
use emberd_engine::GenerationDefaults;
use emberd_protocol::{FinishReason, GeneratedSequence};

/// Decodes tokens into text.
pub(super) type Decode<'a> = &'a dyn Fn(&[u32]) -> Result<String, TextError>;

/// All sequences of one text.
#[derive(Debug)]
pub(super) struct TextState {
    processors: LogitsProcessors,
    stop: Vec<String>,
    /// Whether the text is decoded after every token.
    decodes: bool,
    return_sequences: usize,
    sequences: Sequences,
}

/// The outcome of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The sequences go on.
    Continue,
    /// The beams go on. For each, the number of the beam that it continues.
    Reorder(Vec<usize>),
    /// Every sequence is complete.
    End,
}

impl TextState {
    /// The state before the first token. `input`: the tokens of the text. `streams`: the text is
    /// decoded after every token.
    pub(super) fn new(
        config: &GenerationConfig,
        model: &GenerationDefaults,
        input: &[u32],
        seed: u64,
        streams: bool,
    ) -> Self {
        let processors = LogitsProcessors::new(config, model, input);
        let start = processors.start;
        let sequence = |sampling| SequenceState {
            ids: vec![start],
            sampling,
            finish: None,
            text: String::new(),
        };
        let sequences = match config.search {
            Search::Greedy => Sequences::Independent(vec![sequence(None)]),
            Search::Sample(params) => {
                let sampler = Sampler::new(params, model.sampling_limits);
                let rngs = (0..config.return_sequences).map(|number| Rng::new(seed, number));
                Sequences::Independent(rngs.map(|rng| sequence(Some((sampler, rng)))).collect())
            }
            Search::Beams { count, length_penalty, early_stopping, sampling } => {
                let mut beams = BeamSearch::new(count, length_penalty, early_stopping, start);
                if let Some(params) = sampling {
                    let sampler = Sampler::new(params, model.sampling_limits);
                    beams = beams.sampled(sampler, Rng::new(seed, 0));
                }
                Sequences::Beams(beams)
            }
        };
        Self {
            decodes: streams || !config.stop.is_empty(),
            stop: config.stop.clone(),
            return_sequences: config.return_sequences,
            processors,
            sequences,
        }
    }

    /// The rows of this text to compute next, each with its last token.
    pub(super) fn next(&self) -> Vec<(usize, u32)> {
        match &self.sequences {
            Sequences::Independent(sequences) => {
                let open = sequences.iter().enumerate().filter(|(_, one)| one.finish.is_none());
                open.filter_map(|(row, one)| Some((row, *one.ids.last()?))).collect()
            }
            Sequences::Beams(search) => search.last_tokens().enumerate().collect(),
        }
    }

    /// Advances by one token. `logits` holds the rows that [`TextState::next`] asked for and is
    /// overwritten.
    ///
    /// # Errors
    /// When every token is excluded, or the tokenizer fails.
    pub(super) fn advance(
        &mut self,
        logits: &mut [f32],
        decode: Decode<'_>,
    ) -> Result<Progress, TextError> {
        let Self { processors, stop, decodes, .. } = self;
        match &mut self.sequences {
            Sequences::Independent(sequences) => {
                let open = sequences.iter_mut().filter(|one| one.finish.is_none());
                let mut open: Vec<_> = open.collect();
                let vocabulary = logits.len() / open.len().max(1);
                for (sequence, row) in open.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
                    sequence.advance(processors, row)?;
                    if *decodes {
                        sequence.decode(stop, decode)?;
                    }
                }
                let ended = sequences.iter().all(|one| one.finish.is_some());
                Ok(if ended { Progress::End } else { Progress::Continue })
            }
            Sequences::Beams(search) => {
                let stops = |ids: &[u32]| {
                    Ok(!stop.is_empty() && find_stop(&decode(&ids[1..])?, stop).is_some())
                };
                Ok(match search.advance(processors, logits, stops)? {
                    Step::Continue(from) => Progress::Reorder(from),
                    Step::End => Progress::End,
                })
            }
        }
    }

    /// The first sequence so far, decoded and as tokens, of a text that is streamed.
    pub(super) fn so_far(&self) -> (&str, &[u32]) {
        match &self.sequences {
            Sequences::Independent(sequences) => {
                sequences.first().map_or(("", &[]), |one| (&one.text, &one.ids[1..]))
            }
            Sequences::Beams(_) => ("", &[]),
        }
    }

    /// The stop strings.
    pub(super) fn stops(&self) -> &[String] {
        &self.stop
    }

    /// The finished sequences, the best first.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub(super) fn into_sequences(
        self,
        decode: Decode<'_>,
    ) -> Result<Vec<GeneratedSequence>, TextError> {
        let Self { sequences, stop, return_sequences, .. } = self;
        let sequence = |ids: Vec<u32>, score, finish| {
            let ids = ids[1..].to_vec();
            let mut text = decode(&ids)?;
            if let Some(end) = find_stop(&text, &stop) {
                text.truncate(end);
            }
            Ok(GeneratedSequence { text, ids, score, finish })
        };
        match sequences {
            Sequences::Independent(sequences) => sequences
                .into_iter()
                .map(|SequenceState { ids, finish, .. }| {
                    sequence(ids, None, finish.unwrap_or(FinishReason::Length))
                })
                .collect(),
            Sequences::Beams(search) => search
                .into_best(return_sequences)
                .map(|(ended, finish)| sequence(ended.ids, Some(ended.score), finish))
                .collect(),
        }
    }
}

#[derive(Debug)]
enum Sequences {
    Independent(Vec<SequenceState>),
    Beams(BeamSearch),
}

/// A sequence that does not depend on others.
#[derive(Debug)]
struct SequenceState {
    /// Begins with the start token.
    ids: Vec<u32>,
    /// `None`: the most likely token is chosen.
    sampling: Option<(Sampler, Rng)>,
    finish: Option<FinishReason>,
    /// The text so far, cut before a stop string, if it is decoded after every token.
    text: String,
}

impl SequenceState {
    fn advance(
        &mut self,
        processors: &LogitsProcessors,
        scores: &mut [f32],
    ) -> Result<(), TextError> {
        processors.apply(&self.ids, scores);
        let next = match &mut self.sampling {
            None => argmax(scores),
            Some((sampler, rng)) => sampler.sample(scores, rng),
        };
        self.ids.push(next.ok_or(TextError::NoToken)?);
        self.finish = processors.finish(&self.ids);
        Ok(())
    }

    fn decode(&mut self, stop: &[String], decode: Decode<'_>) -> Result<(), TextError> {
        self.text = decode(&self.ids[1..])?;
        if let Some(end) = find_stop(&self.text, stop) {
            self.text.truncate(end);
            self.finish = Some(FinishReason::Stop);
        }
        Ok(())
    }
}

/// The first of the greatest scores; `None` if no score is a number above negative infinity.
fn argmax(scores: &[f32]) -> Option<u32> {
    // Lane by lane, so that the compiler vectorizes it: this runs between two steps, for every
    // sequence, while nothing else is computed. NaN is not greater than anything.
    const LANES: usize = 16;
    let greater = |most: f32, score: f32| if score > most { score } else { most };
    let (lines, rest) = scores.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for line in lines {
        most = std::array::from_fn(|lane| greater(most[lane], line[lane]));
    }
    let most = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, greater);
    let first = scores.iter().position(|&score| score == most && most > f32::NEG_INFINITY)?;
    u32::try_from(first).ok()
}

#[cfg(test)]
mod tests {
    use super::argmax;

    /// At every position: in each lane, and after the last full set of lanes.
    #[test]
    fn the_first_of_the_greatest_is_chosen_at_any_position() {
        for len in [1, 15, 16, 17, 50] {
            for at in 0..len {
                let mut scores = vec![-3.0; len];
                scores[at..].fill(-2.0);
                assert_eq!(argmax(&scores), u32::try_from(at).ok(), "{at} of {len}");
            }
        }
    }

    #[test]
    fn a_score_that_is_not_a_number_is_never_chosen() {
        let mut scores = vec![f32::NAN; 40];
        assert_eq!(argmax(&scores), None);
        scores[3] = f32::NEG_INFINITY;
        assert_eq!(argmax(&scores), None);
        (scores[20], scores[39]) = (-1.0, -0.5);
        assert_eq!(argmax(&scores), Some(39));
        assert_eq!(argmax(&[]), None);
    }
}
