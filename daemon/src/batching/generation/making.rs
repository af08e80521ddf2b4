//! The answers to one text in the making: greedy, drawn or by beams, one token at a time. Pure: it
//! knows logits, and nothing of who computes them.

use crate::batching::generation::beam::{BeamSearch, Step};
use crate::batching::generation::config::{GenerationConfig, Search};
use crate::batching::generation::reading::find_stop;
use crate::batching::generation::rules::Rules;
use crate::batching::generation::sampler::{Draws, Sampler};
use crate::batching::text_job::TextError;
use emberd_engine::GenerationDefaults;
use emberd_protocol::{FinishReason, GeneratedSequence};

/// Turns tokens into text.
pub(super) type Decode<'a> = &'a dyn Fn(&[u32]) -> Result<String, TextError>;

/// The answers to one text.
#[derive(Debug)]
pub(super) struct Making {
    rules: Rules,
    stop: Vec<String>,
    /// Whether the text is wanted at every token.
    reads: bool,
    return_sequences: usize,
    answers: Answers,
}

#[derive(Debug)]
enum Answers {
    Singles(Vec<Single>),
    Beams(BeamSearch),
}

/// An answer that goes its own way.
#[derive(Debug)]
struct Single {
    /// The start token in front.
    ids: Vec<u32>,
    /// `None`: the likeliest token is taken.
    drawn: Option<(Sampler, Draws)>,
    finish: Option<FinishReason>,
    /// The text so far, cut before a stop string, where it is wanted at every token.
    text: String,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The answers go on as they lie.
    Continue,
    /// The beams go on, each from the one of this number.
    Reorder(Vec<usize>),
    /// Every answer is whole.
    End,
}

impl Making {
    /// Nothing is made yet of a text of these tokens. `streams`: the text is wanted at every token.
    pub(super) fn new(
        config: &GenerationConfig,
        model: &GenerationDefaults,
        input: &[u32],
        seed: u64,
        streams: bool,
    ) -> Self {
        let rules = Rules::new(config, model, input);
        let single =
            |drawn| Single { ids: vec![rules.start], drawn, finish: None, text: String::new() };
        let answers = match config.search {
            Search::Greedy => Answers::Singles(vec![single(None)]),
            Search::Sample(drawing) => {
                let sampler = Sampler::new(drawing, model.draw_limits);
                let draws = (0..config.return_sequences).map(|answer| Draws::new(seed, answer));
                Answers::Singles(draws.map(|draws| single(Some((sampler, draws)))).collect())
            }
            Search::Beams { count, length_penalty, early_stopping, drawing } => {
                let mut beams = BeamSearch::new(count, length_penalty, early_stopping, rules.start);
                if let Some(drawing) = drawing {
                    let sampler = Sampler::new(drawing, model.draw_limits);
                    beams = beams.drawn(sampler, Draws::new(seed, 0));
                }
                Answers::Beams(beams)
            }
        };
        Self {
            reads: streams || !config.stop.is_empty(),
            stop: config.stop.clone(),
            return_sequences: config.return_sequences,
            rules,
            answers,
        }
    }

    /// The rows that are computed next, by number, each with its last token.
    pub(super) fn next(&self) -> Vec<(usize, u32)> {
        match &self.answers {
            Answers::Singles(singles) => {
                let open = singles.iter().enumerate().filter(|(_, single)| single.finish.is_none());
                open.filter_map(|(row, single)| Some((row, *single.ids.last()?))).collect()
            }
            Answers::Beams(search) => search.last_tokens().enumerate().collect(),
        }
    }

    /// Goes on by one token. `logits` are those of the rows that [`Making::next`] told, and are
    /// changed.
    ///
    /// # Errors
    /// When no token can come next, or the tokenizer fails.
    pub(super) fn advance(
        &mut self,
        logits: &mut [f32],
        decode: Decode<'_>,
    ) -> Result<Progress, TextError> {
        let Self { rules, stop, reads, .. } = self;
        match &mut self.answers {
            Answers::Singles(singles) => {
                let open = singles.iter_mut().filter(|single| single.finish.is_none());
                let mut open: Vec<_> = open.collect();
                let vocabulary = logits.len() / open.len().max(1);
                for (single, row) in open.iter_mut().zip(logits.chunks_exact_mut(vocabulary)) {
                    single.advance(rules, row)?;
                    if *reads {
                        single.read(stop, decode)?;
                    }
                }
                let ended = singles.iter().all(|single| single.finish.is_some());
                Ok(if ended { Progress::End } else { Progress::Continue })
            }
            Answers::Beams(search) => {
                let stops = |ids: &[u32]| {
                    Ok(!stop.is_empty() && find_stop(&decode(&ids[1..])?, stop).is_some())
                };
                Ok(match search.advance(rules, logits, stops)? {
                    Step::Continue(from) => Progress::Reorder(from),
                    Step::End => Progress::End,
                })
            }
        }
    }

    /// The text so far and its tokens, of a text that is streamed.
    pub(super) fn so_far(&self) -> (&str, &[u32]) {
        match &self.answers {
            Answers::Singles(singles) => {
                singles.first().map_or(("", &[]), |single| (&single.text, &single.ids[1..]))
            }
            Answers::Beams(_) => ("", &[]),
        }
    }

    /// What may still begin a stop string is not shown.
    pub(super) fn stops(&self) -> &[String] {
        &self.stop
    }

    /// The answers, the best first.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub(super) fn into_sequences(
        self,
        decode: Decode<'_>,
    ) -> Result<Vec<GeneratedSequence>, TextError> {
        let Self { answers, stop, return_sequences, .. } = self;
        let sequence = |ids: Vec<u32>, score, finish| {
            let ids = ids[1..].to_vec();
            let mut text = decode(&ids)?;
            if let Some(end) = find_stop(&text, &stop) {
                text.truncate(end);
            }
            Ok(GeneratedSequence { text, ids, score, finish })
        };
        match answers {
            Answers::Singles(singles) => singles
                .into_iter()
                .map(|Single { ids, finish, .. }| {
                    sequence(ids, None, finish.unwrap_or(FinishReason::Length))
                })
                .collect(),
            Answers::Beams(search) => search
                .into_best(return_sequences)
                .map(|(ended, finish)| sequence(ended.ids, Some(ended.score), finish))
                .collect(),
        }
    }
}

impl Single {
    fn advance(&mut self, rules: &Rules, scores: &mut [f32]) -> Result<(), TextError> {
        rules.apply(&self.ids, scores);
        let next = match &mut self.drawn {
            None => likeliest(scores),
            Some((sampler, draws)) => sampler.draw(scores, draws),
        };
        self.ids.push(next.ok_or(TextError::NoToken)?);
        self.finish = rules.finish(&self.ids);
        Ok(())
    }

    fn read(&mut self, stop: &[String], decode: Decode<'_>) -> Result<(), TextError> {
        self.text = decode(&self.ids[1..])?;
        if let Some(end) = find_stop(&self.text, stop) {
            self.text.truncate(end);
            self.finish = Some(FinishReason::Stop);
        }
        Ok(())
    }
}

/// The first of the greatest; none if no score is a number above negative infinity.
fn likeliest(scores: &[f32]) -> Option<u32> {
    // Lane by lane, so that the compiler takes vectors: this runs between two steps, for every
    // answer, while nothing else is computed. What is no number is greater than nothing.
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
    use super::likeliest;

    /// Wherever it stands among the lanes, and what follows the last whole line of them.
    #[test]
    fn the_first_of_the_greatest_is_taken_wherever_it_stands() {
        for len in [1, 15, 16, 17, 50] {
            for at in 0..len {
                let mut scores = vec![-3.0; len];
                scores[at..].fill(-2.0);
                assert_eq!(likeliest(&scores), u32::try_from(at).ok(), "{at} of {len}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_never_taken() {
        let mut scores = vec![f32::NAN; 40];
        assert_eq!(likeliest(&scores), None);
        scores[3] = f32::NEG_INFINITY;
        assert_eq!(likeliest(&scores), None);
        (scores[20], scores[39]) = (-1.0, -0.5);
        assert_eq!(likeliest(&scores), Some(39));
        assert_eq!(likeliest(&[]), None);
    }
}
