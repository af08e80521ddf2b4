//! Searches over small trees of probabilities.

use crate::batching::generation::beam::{BeamSearch, Ended, Step};
use crate::batching::generation::logits_processors::LogitsProcessors;
use crate::batching::generation::sampler::{Rng, Sampler};
use crate::batching::generation::{GenerationConfig, GenerationLimits};
use crate::batching::text_job::TextError;
use emberd_engine::GenerationDefaults;
use emberd_protocol::{EarlyStopping, GenerateOptions};

/// Probabilities of the next token: the start (never), the end, and two letters.
type Next = fn(&[u32]) -> [f32; 4];

const EOS: u32 = 1;
const A: u32 = 2;
const B: u32 = 3;

fn processors(max_new_tokens: u32) -> LogitsProcessors {
    let options =
        GenerateOptions { max_new_tokens: Some(max_new_tokens), ..GenerateOptions::default() };
    let defaults = GenerationDefaults { eos: vec![EOS], ..GenerationDefaults::default() };
    let limits = GenerationLimits { max_input_tokens: 1, max_new_tokens: 100, rows: 4 };
    let config = GenerationConfig::resolve(&options, false, &defaults, limits).unwrap();
    LogitsProcessors::new(&config, &defaults, &[])
}

/// The answers, and the number of steps that they took.
fn search(mut beams: BeamSearch, processors: &LogitsProcessors, next: Next) -> (Vec<Ended>, usize) {
    for steps in 1.. {
        let rows = beams.running.iter().flat_map(|beam| next(&beam.ids[1..]));
        let mut logits: Vec<f32> = rows.map(f32::ln).collect();
        let before: Vec<Vec<u32>> = beams.running.iter().map(|beam| beam.ids.clone()).collect();
        match beams.advance(processors, &mut logits, |_| Ok(false)).unwrap() {
            Step::Continue(from) => {
                for (beam, from) in beams.running.iter().zip(from) {
                    assert_eq!(beam.ids[..beam.ids.len() - 1], before[from]);
                }
            }
            Step::End => return (beams.into_best(4).map(|(ended, _)| ended).collect(), steps),
        }
    }
    unreachable!("every answer has a maximum length")
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
fn a_better_answer_is_found_after_a_worse_beginning() {
    let beams = BeamSearch::new(2, 0.0, EarlyStopping::No, 0);
    let (answers, _) = search(beams, &processors(5), trap);
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
        let (answers, steps) = search(BeamSearch::new(2, 2.0, early, 0), &processors(12), long);
        (answers[0].ids.len() - 1, steps)
    };
    assert_eq!(steps(EarlyStopping::Yes), (2, 2));
    assert_eq!(steps(EarlyStopping::Never), (12, 12));
}

#[test]
fn answers_that_a_penalty_makes_very_bad_are_better_than_none() {
    for penalty in [-40.0, -1.0e38] {
        let beams = BeamSearch::new(3, penalty, EarlyStopping::No, 0);
        let (answers, _) = search(beams, &processors(12), long);
        assert_eq!(answers.len(), 3, "{penalty}: {answers:?}");
        assert!(answers.is_sorted_by(|a, b| a.score >= b.score), "{penalty}: {answers:?}");
    }
}

#[test]
fn sampled_beams_are_the_same_for_a_seed_and_likely_ones_occur_more_often() {
    let all = Sampler {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        limits: emberd_engine::SamplingLimits::default(),
    };
    let first = |seed| {
        let beams = BeamSearch::new(1, 0.0, EarlyStopping::Yes, 0);
        search(beams.sampled(all, Rng::new(seed, 0)), &processors(12), long).0.swap_remove(0).ids
    };
    let answers: Vec<Vec<u32>> = (0..400).map(first).collect();
    assert_eq!(answers[..20], (0..20).map(first).collect::<Vec<_>>());
    // The first token is the end with 0.45, A with 0.54 and B with 0.01.
    let begins = |token| answers.iter().filter(|ids| ids[1] == token).count();
    assert!((140..220).contains(&begins(EOS)), "{}", begins(EOS));
    assert!((180..260).contains(&begins(A)) && begins(B) < 20, "{} {}", begins(A), begins(B));
}

#[test]
fn if_only_one_token_is_possible_the_other_beams_stay_excluded() {
    let only = |ids: &[u32]| match ids.len() {
        3 => [0.0, 1.0, 0.0, 0.0],
        _ => [0.0, 0.0, 1.0, 0.0],
    };
    let (answers, steps) =
        search(BeamSearch::new(3, 1.0, EarlyStopping::No, 0), &processors(9), only);
    assert_eq!((answers[0].ids.as_slice(), steps), ([0, A, A, A, EOS].as_slice(), 4));
    assert!(answers[1..].iter().all(|out| out.score < -1.0e8), "{answers:?}");
}

#[test]
fn scores_that_are_not_numbers_are_an_error() {
    let mut beams = BeamSearch::new(2, 1.0, EarlyStopping::No, 0);
    let result = beams.advance(&processors(5), &mut [f32::NAN; 8], |_| Ok(false));
    assert!(matches!(result, Err(TextError::NoToken)));
}
