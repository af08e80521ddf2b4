//! Frequencies of many samples, and the random numbers behind them.

use crate::batching::generation::sampler::{Rng, Sampler};
use emberd_engine::SamplingLimits;
use std::collections::BTreeMap;

const NO_LIMITS: SamplingLimits =
    SamplingLimits { min_p: 0.0, typical_p: 1.0, epsilon_cutoff: 0.0, eta_cutoff: 0.0 };
const ALL: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, limits: NO_LIMITS };

/// How often each token is sampled in 10,000 samples.
fn counts(sampler: Sampler, probabilities: &[f32]) -> BTreeMap<u32, usize> {
    let scores: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    let mut rng = Rng::new(7, 0);
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        *counts.entry(sampler.sample(&scores, &mut rng).unwrap()).or_default() += 1;
    }
    counts
}

fn assert_near(count: usize, wanted: usize) {
    assert!(count.abs_diff(wanted) < 200, "{count} samples, not about {wanted}");
}

#[test]
fn the_numbers_are_those_of_splitmix64() {
    let mut rng = Rng { state: 1_234_567 };
    let first: Vec<u64> = (0..3).map(|_| rng.next()).collect();
    assert_eq!(
        first,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}

#[test]
fn tokens_are_sampled_as_often_as_they_are_likely() {
    let counts = counts(ALL, &[0.5, 0.0, 0.3, 0.2]);
    assert_eq!(counts.len(), 3);
    assert_near(counts[&0], 5000);
    assert_near(counts[&2], 3000);
    assert_near(counts[&3], 2000);
}

#[test]
fn a_temperature_sharpens_or_flattens() {
    // The square of the odds: 25 to 4.
    let cold = counts(Sampler { temperature: 0.5, ..ALL }, &[0.5, 0.2]);
    assert_near(cold[&0], 8621);
    let hot = counts(Sampler { temperature: 1000.0, ..ALL }, &[0.9, 0.1]);
    assert_near(hot[&0], 5000);
}

#[test]
fn top_k_keeps_the_best_and_ties_with_the_last() {
    let best = counts(Sampler { top_k: 2, ..ALL }, &[0.1, 0.5, 0.3, 0.1]);
    assert_eq!(best.keys().copied().collect::<Vec<_>>(), [1, 2]);
    assert_near(best[&1], 6250);
    let tied = counts(Sampler { top_k: 2, ..ALL }, &[0.2, 0.5, 0.2, 0.1]);
    assert_eq!(tied.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it_after_top_k_was_normalised() {
    let nucleus = counts(Sampler { top_p: 0.7, ..ALL }, &[0.2, 0.5, 0.3]);
    assert_eq!(nucleus.keys().copied().collect::<Vec<_>>(), [1, 2]);
    let one = counts(Sampler { top_p: 0.01, ..ALL }, &[0.2, 0.5, 0.3]);
    assert_eq!(one.len(), 1);
    // Of the best two the first has five eighths of the probability.
    let both = counts(Sampler { top_k: 2, top_p: 0.6, ..ALL }, &[0.2, 0.5, 0.3]);
    assert_eq!(both.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn each_limit_of_a_folder_excludes_unlikely_tokens() {
    let kept = |limits: SamplingLimits, probabilities: &[f32]| {
        let counts = counts(Sampler { limits, ..ALL }, probabilities);
        counts.into_keys().collect::<Vec<_>>()
    };
    let odds = [0.02, 0.5, 0.3, 0.18];
    assert_eq!(kept(NO_LIMITS, &odds), [0, 1, 2, 3]);
    assert_eq!(kept(SamplingLimits { min_p: 0.5, ..NO_LIMITS }, &odds), [1, 2]);
    assert_eq!(kept(SamplingLimits { min_p: 1.0, ..NO_LIMITS }, &odds), [1]);
    assert_eq!(kept(SamplingLimits { epsilon_cutoff: 0.1, ..NO_LIMITS }, &odds), [1, 2, 3]);
    assert_eq!(kept(SamplingLimits { epsilon_cutoff: 0.9, ..NO_LIMITS }, &odds), [1]);
    // The entropy is 1.095 nats: 0.3 is 1.204, 0.5 is 0.693, 0.18 is 1.715, 0.02 is 3.912.
    assert_eq!(kept(SamplingLimits { typical_p: 0.2, ..NO_LIMITS }, &odds), [2]);
    assert_eq!(kept(SamplingLimits { typical_p: 0.7, ..NO_LIMITS }, &odds), [1, 2]);
    assert_eq!(kept(SamplingLimits { typical_p: 0.9, ..NO_LIMITS }, &odds), [1, 2, 3]);
    // The root of 0.04 times e^-1.095 is 0.067, and less than that is 0.04 itself.
    assert_eq!(kept(SamplingLimits { eta_cutoff: 0.04, ..NO_LIMITS }, &odds), [1, 2, 3]);
    assert_eq!(kept(SamplingLimits { eta_cutoff: 0.01, ..NO_LIMITS }, &odds), [0, 1, 2, 3]);
    // And that of 0.5 times it 0.237.
    assert_eq!(kept(SamplingLimits { eta_cutoff: 0.5, ..NO_LIMITS }, &odds), [1, 2]);
}

#[test]
fn gumbel_noise_samples_tokens_as_often_as_they_are_likely() {
    let probabilities = [0.5f64, 0.3, 0.2];
    let (mut rng, mut counts) = (Rng::new(3, 0), [0usize; 3]);
    for _ in 0..10_000 {
        let keys = probabilities.map(|p| p.ln() + rng.gumbel());
        counts[(0..3).max_by(|a, b| keys[*a].total_cmp(&keys[*b])).unwrap()] += 1;
    }
    for (count, wanted) in counts.into_iter().zip([5000, 3000, 2000]) {
        assert_near(count, wanted);
    }
}

#[test]
fn kept_tokens_have_scores_at_the_temperature_and_the_best_are_always_kept() {
    let scores = [0.0, 4.0, 2.0, f32::NEG_INFINITY, 3.0];
    let sampler = Sampler { temperature: 2.0, top_k: 2, ..ALL };
    assert_eq!(sampler.kept(&scores, 1), [(1, 2.0), (4, 1.5)]);
    assert_eq!(sampler.kept(&scores, 3), [(1, 2.0), (2, 1.0), (4, 1.5)]);
    assert_eq!(sampler.kept(&scores, 9).len(), 4);
    // The most typical tokens are kept; the most likely is not among them.
    let limits = SamplingLimits { typical_p: 0.05, ..NO_LIMITS };
    let sampler = Sampler { limits, ..ALL };
    let even: Vec<f32> = [0.4f32, 0.15, 0.15, 0.1, 0.1, 0.1].map(f32::ln).to_vec();
    let ids = |least| sampler.kept(&even, least).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!((ids(1), ids(2)), (vec![1, 2], vec![1, 2]));
    assert!(!ids(3).contains(&0), "{:?}", ids(3));
}

#[test]
fn sequences_of_a_text_differ_and_each_is_reproducible() {
    let sample = |seed, answer| {
        let mut rng = Rng::new(seed, answer);
        let scores = [0.0; 100];
        (0..10).map(|_| ALL.sample(&scores, &mut rng).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sample(1, 0), sample(1, 0));
    assert_ne!(sample(1, 0), sample(1, 1));
    assert_ne!(sample(1, 0), sample(2, 0));
    assert_ne!(sample(0, 1), sample(1, 0));
}

#[test]
fn nothing_is_sampled_if_no_score_is_finite() {
    let scores = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
    assert_eq!(ALL.sample(&scores, &mut Rng::new(1, 0)), None);
    assert_eq!(ALL.sample(&[f32::NAN, 0.0], &mut Rng::new(1, 0)), Some(1));
}
