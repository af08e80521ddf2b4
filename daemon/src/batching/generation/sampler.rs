//! Drawing a token, as transformers does it: by temperature, then top-k, top-p, min-p, typical-p,
//! epsilon and eta in this order.
//!
//! `LogitsProcessor` of candle-transformers is not used: it compares top-p with probabilities that
//! were not normalised after top-k, needs a tensor for each row, and draws by a generator whose
//! numbers may be others in the next version.

use crate::batching::generation::config::Drawing;
use emberd_engine::DrawLimits;
use std::collections::BTreeSet;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a counter
/// that is scrambled. The same seed gives the same numbers, on every machine and in every version.
#[derive(Debug, Clone)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    /// The draws for one of the answers to a text.
    pub(super) fn new(seed: u64, answer: usize) -> Self {
        Self { state: scramble(seed ^ scramble(answer as u64)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.state)
    }

    /// Noise of Gumbel's distribution: what is added to scores so that the greatest of them are draws.
    pub(super) fn gumbel(&mut self) -> f64 {
        // Not 0, of which there is no logarithm.
        let uniform = self.uniform().max(f64::MIN_POSITIVE);
        -(-uniform.ln()).max(f64::MIN_POSITIVE).ln()
    }

    /// A number from 0 to below 1.
    fn uniform(&mut self) -> f64 {
        const FRACTION_BITS: u32 = 53;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
        let fraction = (self.next() >> (u64::BITS - FRACTION_BITS)) as f64;
        fraction * 0.5f64.powi(FRACTION_BITS.cast_signed())
    }
}

fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// What is drawn from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampler {
    pub(super) temperature: f32,
    /// 0 for all.
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    /// Those that only a model's folder speaks of.
    pub(super) limits: DrawLimits,
}

impl Sampler {
    /// As a request and a folder have it.
    pub(super) fn new(drawing: Drawing, limits: DrawLimits) -> Self {
        let Drawing { temperature, top_k, top_p, .. } = drawing;
        Self { temperature, top_k, top_p, limits }
    }

    /// Draws a token by its scores; `None` if no token has a finite one.
    pub(super) fn draw(self, scores: &[f32], draws: &mut Draws) -> Option<u32> {
        let mut odds = self.scaled(scores);
        let total = self.exclude(&mut odds, 1);
        let mut left = draws.uniform() * total;
        for &(id, weight) in &odds {
            left -= f64::from(weight);
            if left < 0.0 {
                return Some(id);
            }
        }
        // Rounding may leave a crumb behind the last one.
        odds.iter().rfind(|(_, weight)| *weight > 0.0).map(|(id, _)| *id)
    }

    /// The tokens that may be drawn, with their scores at this temperature. Each limit leaves as many as
    /// `least`.
    pub(super) fn kept(self, scores: &[f32], least: usize) -> Vec<(u32, f32)> {
        let all = self.scaled(scores);
        let mut odds = all.clone();
        self.exclude(&mut odds, least);
        let kept: BTreeSet<u32> = odds.into_iter().map(|(id, _)| id).collect();
        all.into_iter().filter(|(id, _)| kept.contains(id)).collect()
    }

    fn scaled(self, scores: &[f32]) -> Vec<(u32, f32)> {
        let finite = (0u32..).zip(scores).filter(|(_, score)| score.is_finite());
        finite.map(|(id, score)| (id, score / self.temperature)).collect()
    }

    /// Leaves of tokens and scores those that may be drawn, with their weights, and answers the sum
    /// of these.
    fn exclude(self, odds: &mut Vec<(u32, f32)>, least: usize) -> f64 {
        self.keep_top_k(odds, least);
        let total = exponentiate(odds);
        let total = self.keep_top_p(odds, total, least);
        self.keep_likely(odds, total, least)
    }

    /// Keeps the best ones, and what is as good as the last of them.
    fn keep_top_k(self, odds: &mut Vec<(u32, f32)>, least: usize) {
        let count = self.top_k.max(least);
        if self.top_k == 0 || count >= odds.len() {
            return;
        }
        let last = nth_greatest(odds, count);
        odds.retain(|(_, score)| *score >= last);
    }

    /// Keeps the likeliest ones that together have the probability `top_p`, so many at least, and
    /// answers the sum of their weights.
    fn keep_top_p(self, odds: &mut Vec<(u32, f32)>, total: f64, least: usize) -> f64 {
        if self.top_p >= 1.0 {
            return total;
        }
        odds.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let wanted = f64::from(self.top_p) * total;
        let mut sum = 0.0;
        let kept = odds.iter().take_while(|(_, weight)| {
            let open = sum < wanted;
            sum += f64::from(*weight);
            open
        });
        let kept = kept.count().max(least);
        odds.truncate(kept);
        weigh(odds)
    }

    /// Keeps what the folder's limits leave, so many at least, and answers the sum of their weights.
    fn keep_likely(self, odds: &mut Vec<(u32, f32)>, mut total: f64, least: usize) -> f64 {
        let DrawLimits { min_p, typical_p, epsilon_cutoff, eta_cutoff } = self.limits;
        if min_p > 0.0 {
            // The greatest weight is 1.
            total = keep(odds, min_p.into(), least);
        }
        if typical_p < 1.0 {
            total = keep_typical(odds, total, typical_p.into(), least);
        }
        if epsilon_cutoff > 0.0 && epsilon_cutoff < 1.0 {
            total = keep(odds, f64::from(epsilon_cutoff) * total, least);
        }
        if eta_cutoff > 0.0 && eta_cutoff < 1.0 {
            let eta = f64::from(eta_cutoff);
            let floor = eta.min(eta.sqrt() * (-entropy(odds, total)).exp());
            total = keep(odds, floor * total, least);
        }
        total
    }
}

/// The so-manieth greatest score or weight, of at least as many.
fn nth_greatest(odds: &[(u32, f32)], count: usize) -> f32 {
    let mut values: Vec<f32> = odds.iter().map(|(_, value)| *value).collect();
    let at = count.clamp(1, values.len()) - 1;
    *values.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
}

/// The sum of weights.
fn weigh(odds: &[(u32, f32)]) -> f64 {
    odds.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Keeps weights from `floor` on, and the `least` greatest in any case; answers their sum.
fn keep(odds: &mut Vec<(u32, f32)>, floor: f64, least: usize) -> f64 {
    if !odds.is_empty() {
        let last = nth_greatest(odds, least);
        odds.retain(|(_, weight)| *weight >= last || f64::from(*weight) >= floor);
    }
    weigh(odds)
}

/// Keeps the tokens whose information is nearest to what is expected, as many as together have a
/// probability and so many at least, and answers the sum of their weights.
fn keep_typical(odds: &mut Vec<(u32, f32)>, total: f64, mass: f64, least: usize) -> f64 {
    let expected = entropy(odds, total);
    let strangeness = |weight: f32| (-(f64::from(weight) / total).ln() - expected).abs();
    let mut order: Vec<f32> = odds.iter().map(|(_, weight)| *weight).collect();
    order.sort_by(|a, b| strangeness(*a).total_cmp(&strangeness(*b)));
    let mut sum = 0.0;
    let enough = order.iter().position(|weight| {
        sum += f64::from(*weight) / total;
        sum >= mass
    });
    let last = enough.unwrap_or(order.len()).max(least.saturating_sub(1));
    if let Some(most) = order.get(last).map(|weight| strangeness(*weight)) {
        odds.retain(|(_, weight)| strangeness(*weight) <= most);
    }
    weigh(odds)
}

/// What is expected of the information of a draw, in nats.
fn entropy(odds: &[(u32, f32)], total: f64) -> f64 {
    let parts = odds.iter().map(|(_, weight)| f64::from(*weight) / total);
    -parts.filter(|part| *part > 0.0).map(|part| part * part.ln()).sum::<f64>()
}

/// Makes weights of scores, the greatest 1, and answers their sum.
fn exponentiate(odds: &mut [(u32, f32)]) -> f64 {
    let greatest = odds.iter().map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (_, score) in odds {
        *score = (*score - greatest).exp();
        total += f64::from(*score);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NO_LIMITS: DrawLimits =
        DrawLimits { min_p: 0.0, typical_p: 1.0, epsilon_cutoff: 0.0, eta_cutoff: 0.0 };
    const ALL: Sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, limits: NO_LIMITS };

    /// How often each token is drawn in 10,000 draws.
    fn counts(sampler: Sampler, probabilities: &[f32]) -> BTreeMap<u32, usize> {
        let scores: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut draws = Draws::new(7, 0);
        let mut counts = BTreeMap::new();
        for _ in 0..10_000 {
            *counts.entry(sampler.draw(&scores, &mut draws).unwrap()).or_default() += 1;
        }
        counts
    }

    fn assert_near(count: usize, wanted: usize) {
        assert!(count.abs_diff(wanted) < 200, "{count} draws, not about {wanted}");
    }

    #[test]
    fn the_numbers_are_those_of_splitmix64() {
        let mut draws = Draws { state: 1_234_567 };
        let first: Vec<u64> = (0..3).map(|_| draws.next()).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let counts = counts(ALL, &[0.5, 0.0, 0.3, 0.2]);
        assert_eq!(counts.len(), 3);
        assert_near(counts[&0], 5000);
        assert_near(counts[&2], 3000);
        assert_near(counts[&3], 2000);
    }

    #[test]
    fn temperature_sharpens_and_evens() {
        // The square of the odds: 25 to 4.
        let cold = counts(Sampler { temperature: 0.5, ..ALL }, &[0.5, 0.2]);
        assert_near(cold[&0], 8621);
        let hot = counts(Sampler { temperature: 1000.0, ..ALL }, &[0.9, 0.1]);
        assert_near(hot[&0], 5000);
    }

    #[test]
    fn top_k_keeps_the_best_and_what_is_as_good_as_the_last() {
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
        // Of the best two alone the first has five eighths.
        let both = counts(Sampler { top_k: 2, top_p: 0.6, ..ALL }, &[0.2, 0.5, 0.3]);
        assert_eq!(both.keys().copied().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_folder_excludes_what_is_unlikely_in_its_own_ways() {
        let kept = |limits: DrawLimits, probabilities: &[f32]| {
            let counts = counts(Sampler { limits, ..ALL }, probabilities);
            counts.into_keys().collect::<Vec<_>>()
        };
        let odds = [0.02, 0.5, 0.3, 0.18];
        assert_eq!(kept(NO_LIMITS, &odds), [0, 1, 2, 3]);
        assert_eq!(kept(DrawLimits { min_p: 0.5, ..NO_LIMITS }, &odds), [1, 2]);
        assert_eq!(kept(DrawLimits { min_p: 1.0, ..NO_LIMITS }, &odds), [1]);
        assert_eq!(kept(DrawLimits { epsilon_cutoff: 0.1, ..NO_LIMITS }, &odds), [1, 2, 3]);
        assert_eq!(kept(DrawLimits { epsilon_cutoff: 0.9, ..NO_LIMITS }, &odds), [1]);
        // The entropy is 1.095 nats: 0.3 is 1.204, 0.5 is 0.693, 0.18 is 1.715, 0.02 is 3.912.
        assert_eq!(kept(DrawLimits { typical_p: 0.2, ..NO_LIMITS }, &odds), [2]);
        assert_eq!(kept(DrawLimits { typical_p: 0.7, ..NO_LIMITS }, &odds), [1, 2]);
        assert_eq!(kept(DrawLimits { typical_p: 0.9, ..NO_LIMITS }, &odds), [1, 2, 3]);
        // The root of 0.04 times e^-1.095 is 0.067, and less than that is 0.04 itself.
        assert_eq!(kept(DrawLimits { eta_cutoff: 0.04, ..NO_LIMITS }, &odds), [1, 2, 3]);
        assert_eq!(kept(DrawLimits { eta_cutoff: 0.01, ..NO_LIMITS }, &odds), [0, 1, 2, 3]);
        // And that of 0.5 times it 0.237.
        assert_eq!(kept(DrawLimits { eta_cutoff: 0.5, ..NO_LIMITS }, &odds), [1, 2]);
    }

    #[test]
    fn noise_on_the_scores_draws_as_often_as_tokens_are_likely() {
        let probabilities = [0.5f64, 0.3, 0.2];
        let (mut draws, mut counts) = (Draws::new(3, 0), [0usize; 3]);
        for _ in 0..10_000 {
            let keys = probabilities.map(|p| p.ln() + draws.gumbel());
            counts[(0..3).max_by(|a, b| keys[*a].total_cmp(&keys[*b])).unwrap()] += 1;
        }
        for (count, wanted) in counts.into_iter().zip([5000, 3000, 2000]) {
            assert_near(count, wanted);
        }
    }

    #[test]
    fn what_is_kept_has_its_score_at_the_temperature_and_the_best_are_kept_anyway() {
        let scores = [0.0, 4.0, 2.0, f32::NEG_INFINITY, 3.0];
        let sampler = Sampler { temperature: 2.0, top_k: 2, ..ALL };
        assert_eq!(sampler.kept(&scores, 1), [(1, 2.0), (4, 1.5)]);
        assert_eq!(sampler.kept(&scores, 3), [(1, 2.0), (2, 1.0), (4, 1.5)]);
        assert_eq!(sampler.kept(&scores, 9).len(), 4);
        // The most typical ones, where those are what is kept: the likeliest is not among them.
        let limits = DrawLimits { typical_p: 0.05, ..NO_LIMITS };
        let sampler = Sampler { limits, ..ALL };
        let even: Vec<f32> = [0.4f32, 0.15, 0.15, 0.1, 0.1, 0.1].map(f32::ln).to_vec();
        let ids =
            |least| sampler.kept(&even, least).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!((ids(1), ids(2)), (vec![1, 2], vec![1, 2]));
        assert!(!ids(3).contains(&0), "{:?}", ids(3));
    }

    #[test]
    fn the_answers_to_a_text_are_drawn_apart_and_each_again_the_same() {
        let draw = |seed, answer| {
            let mut draws = Draws::new(seed, answer);
            let scores = [0.0; 100];
            (0..10).map(|_| ALL.draw(&scores, &mut draws).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(0, 1), draw(1, 0));
    }

    #[test]
    fn where_no_score_is_a_number_nothing_is_drawn() {
        let scores = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
        assert_eq!(ALL.draw(&scores, &mut Draws::new(1, 0)), None);
        assert_eq!(ALL.draw(&[f32::NAN, 0.0], &mut Draws::new(1, 0)), Some(1));
    }
}
