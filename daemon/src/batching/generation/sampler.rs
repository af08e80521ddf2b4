//! Sampling a token as transformers does it: temperature, then top-k, top-p, min-p, typical-p,
//! epsilon and eta cutoff, in this order.
//!
//! `LogitsProcessor` of candle-transformers is not used: it compares top-p with probabilities that
//! were not normalised after top-k, needs a tensor for each row, and its random numbers may change
//! with a version.

#[cfg(test)]
mod tests;

use crate::batching::generation::config::SamplingParams;
use emberd_engine::SamplingLimits;
use std::collections::BTreeSet;

/// A random number generator: SplitMix64, a scrambled counter (Steele, Lea, Flood: Fast Splittable
/// Pseudorandom Number Generators, 2014). The same seed gives the same numbers on every machine and
/// in every version.
#[derive(Debug, Clone)]
pub(super) struct Rng {
    state: u64,
}

impl Rng {
    /// The generator for one sequence of a text.
    pub(super) fn new(seed: u64, sequence: usize) -> Self {
        Self { state: scramble(seed ^ scramble(sequence as u64)) }
    }

    /// Gumbel noise: the greatest of scores with such noise are samples without replacement.
    pub(super) fn gumbel(&mut self) -> f64 {
        // Not 0, which has no logarithm.
        let uniform = self.uniform().max(f64::MIN_POSITIVE);
        -(-uniform.ln()).max(f64::MIN_POSITIVE).ln()
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.state)
    }

    /// A uniform number from 0 to below 1.
    fn uniform(&mut self) -> f64 {
        const FRACTION_BITS: u32 = 53;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64")]
        let fraction = (self.next() >> (u64::BITS - FRACTION_BITS)) as f64;
        fraction * 0.5f64.powi(FRACTION_BITS.cast_signed())
    }
}

/// Which tokens are sampled, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampler {
    pub(super) temperature: f32,
    /// 0: no limit.
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    /// Limits that only a model's folder can configure.
    pub(super) limits: SamplingLimits,
}

impl Sampler {
    /// The sampler for the parameters of a request and the limits of a folder.
    pub(super) fn new(params: SamplingParams, limits: SamplingLimits) -> Self {
        let SamplingParams { temperature, top_k, top_p, .. } = params;
        Self { temperature, top_k, top_p, limits }
    }

    /// Samples a token; `None` if no token has a finite score.
    pub(super) fn sample(self, scores: &[f32], rng: &mut Rng) -> Option<u32> {
        let mut odds = self.scaled(scores);
        let total = self.exclude(&mut odds, 1);
        let mut left = rng.uniform() * total;
        for &(id, weight) in &odds {
            left -= f64::from(weight);
            if left < 0.0 {
                return Some(id);
            }
        }
        // Because of rounding, the number may be beyond the last weight.
        odds.iter().rfind(|(_, weight)| *weight > 0.0).map(|(id, _)| *id)
    }

    /// The tokens that may be sampled, with their scores at this temperature. Each limit keeps at least
    /// `least` of them.
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

    /// Keeps the tokens that may be sampled, turns their scores into weights, and returns the sum of
    /// the weights.
    fn exclude(self, odds: &mut Vec<(u32, f32)>, least: usize) -> f64 {
        self.keep_top_k(odds, least);
        let total = exponentiate(odds);
        let total = self.keep_top_p(odds, total, least);
        self.keep_likely(odds, total, least)
    }

    /// Keeps the `top_k` best tokens, and ties with the last of them.
    fn keep_top_k(self, odds: &mut Vec<(u32, f32)>, least: usize) {
        let count = self.top_k.max(least);
        if self.top_k == 0 || count >= odds.len() {
            return;
        }
        let last = nth_greatest(odds, count);
        odds.retain(|(_, score)| *score >= last);
    }

    /// Keeps the most likely tokens that together have the probability `top_p`, at least `least`, and
    /// returns the sum of their weights.
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

    /// Applies the folder's limits, and returns the sum of the weights that are left.
    fn keep_likely(self, odds: &mut Vec<(u32, f32)>, mut total: f64, least: usize) -> f64 {
        let SamplingLimits { min_p, typical_p, epsilon_cutoff, eta_cutoff } = self.limits;
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

fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The `count`-th greatest score or weight.
fn nth_greatest(odds: &[(u32, f32)], count: usize) -> f32 {
    let mut values: Vec<f32> = odds.iter().map(|(_, value)| *value).collect();
    let at = count.clamp(1, values.len()) - 1;
    *values.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
}

/// The sum of weights.
fn weigh(odds: &[(u32, f32)]) -> f64 {
    odds.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Keeps weights of at least `floor`, and the `least` greatest in any case. Returns their sum.
fn keep(odds: &mut Vec<(u32, f32)>, floor: f64, least: usize) -> f64 {
    if !odds.is_empty() {
        let last = nth_greatest(odds, least);
        odds.retain(|(_, weight)| *weight >= last || f64::from(*weight) >= floor);
    }
    weigh(odds)
}

/// Keeps the tokens whose information is nearest to the entropy, until they have the probability
/// `mass`, and at least `least` of them. Returns the sum of their weights.
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

/// The entropy of the weights, in nats.
fn entropy(odds: &[(u32, f32)], total: f64) -> f64 {
    let parts = odds.iter().map(|(_, weight)| f64::from(*weight) / total);
    -parts.filter(|part| *part > 0.0).map(|part| part * part.ln()).sum::<f64>()
}

/// Turns scores into weights. The greatest weight is 1. Returns their sum.
fn exponentiate(odds: &mut [(u32, f32)]) -> f64 {
    let greatest = odds.iter().map(|(_, score)| *score).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (_, score) in odds {
        *score = (*score - greatest).exp();
        total += f64::from(*score);
    }
    total
}
