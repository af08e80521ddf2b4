//! T5's relative positions: what is added to a score depends on the distance of key and query.

use pulp::Arch;

/// The bias of each head at each distance, looked up once when the model is loaded.
#[derive(Debug)]
pub(super) struct Bias {
    /// `[heads][from -reach to reach]`: from a key far in front of the query to one far behind it.
    values: Vec<f32>,
    /// From this distance on all are alike.
    reach: usize,
}

impl Bias {
    /// `table` is `[buckets, heads]`, as the weights have it.
    pub(super) fn new(table: &[f32], heads: usize, reach: usize, is_two_sided: bool) -> Self {
        let buckets = table.len() / heads;
        let mut values = Vec::with_capacity(heads * (2 * reach + 1));
        for head in 0..heads {
            let before = (0..=reach).rev().map(|distance| (distance, false));
            let behind = (1..=reach).map(|distance| (distance, true));
            values.extend(before.chain(behind).map(|(distance, is_behind)| {
                let bucket = bucket(distance, is_behind, buckets, reach, is_two_sided);
                table[bucket * heads + head]
            }));
        }
        Self { values, reach }
    }

    /// Adds to the scores of all keys from 0 on, for the query at this position.
    pub(super) fn add(&self, head: usize, query: usize, scores: &mut [f32]) {
        let row = &self.values[head * (2 * self.reach + 1)..][..2 * self.reach + 1];
        // The first key that is within reach, and the first behind that is not.
        let first = query.saturating_sub(self.reach).min(scores.len());
        let end = (query + self.reach + 1).min(scores.len());
        let (near, after) = scores.split_at_mut(end);
        let (before, near) = near.split_at_mut(first);
        let near_bias = &row[self.reach + first - query.min(self.reach + first)..];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                before.iter_mut().for_each(|score| *score += row[0]);
                near.iter_mut().zip(near_bias).for_each(|(score, bias)| *score += bias);
                after.iter_mut().for_each(|score| *score += row[2 * self.reach]);
            },
        );
    }
}

/// The bucket of a distance: one each for small ones, wider and wider ones up to `reach`.
///
/// In 32 bits and in this order, as the reference has it: where a logarithm is a whole number,
/// other roundings would fall into the next bucket.
fn bucket(
    distance: usize,
    is_behind: bool,
    buckets: usize,
    reach: usize,
    is_two_sided: bool,
) -> usize {
    let (buckets, base, distance) = match (is_two_sided, is_behind) {
        (true, true) => (buckets / 2, buckets / 2, distance),
        (true, false) => (buckets / 2, 0, distance),
        // A decoder looks at nothing behind; such a key would count as its own.
        (false, true) => (buckets, 0, 0),
        (false, false) => (buckets, 0, distance),
    };
    let exact = buckets / 2;
    if distance < exact {
        return base + distance;
    }
    let ratio = as_f32(distance) / as_f32(exact);
    let span = as_f64(reach) / as_f64(exact);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded to 32 bits, as the reference has it"
    )]
    let logs = ratio.ln() / span.ln() as f32 * as_f32(buckets - exact);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number, not negative; its fraction is to be dropped"
    )]
    let wide = logs.max(0.0) as usize;
    base + (exact + wide).min(buckets - 1)
}

#[expect(clippy::cast_precision_loss, reason = "distances that a model tells apart are small")]
fn as_f32(number: usize) -> f32 {
    number as f32
}

#[expect(clippy::cast_precision_loss, reason = "distances that a model tells apart are small")]
fn as_f64(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::{Bias, bucket};

    /// What transformers' `_relative_position_bucket` answers for 32 buckets and 128.
    #[test]
    fn buckets_are_those_of_the_reference() {
        for (distance, two_sided, one_sided) in [
            (0, 0, 0),
            (1, 1, 1),
            (7, 7, 7),
            (8, 8, 8),
            (11, 8, 11),
            (12, 9, 12),
            (15, 9, 15),
            (16, 10, 16),
            (31, 11, 21),
            (32, 12, 21),
            (63, 13, 26),
            (64, 14, 26),
            (127, 15, 31),
            (128, 15, 31),
        ] {
            assert_eq!(bucket(distance, false, 32, 128, true), two_sided, "{distance}");
            assert_eq!(bucket(distance, false, 32, 128, false), one_sided, "{distance}");
            if distance > 0 {
                assert_eq!(bucket(distance, true, 32, 128, true), 16 + two_sided, "{distance}");
            }
        }
    }

    #[test]
    fn every_query_gets_the_bias_of_its_distances() {
        let (heads, buckets, reach) = (2, 8, 10);
        let table: Vec<f32> = (0..16_u8).map(f32::from).collect();
        let bias = Bias::new(&table, heads, reach, true);
        for len in [1, 5, 40] {
            for query in 0..len {
                for head in 0..heads {
                    let mut scores = vec![100.0; len];
                    bias.add(head, query, &mut scores);
                    for (key, score) in scores.iter().enumerate() {
                        let distance = key.abs_diff(query).min(reach);
                        let bucket = bucket(distance, key > query, buckets, reach, true);
                        assert_eq!(*score, 100.0 + table[bucket * heads + head]);
                    }
                }
            }
        }
    }
}
