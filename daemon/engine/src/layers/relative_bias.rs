//! A bias of attention scores by the distance between query and key.

/// For each head a bias by distance, learned in buckets that widen with the distance.
#[derive(Debug, Clone)]
pub(crate) struct RelativeBias {
    /// For each head the bias at the distances `-reach..=reach`: the position of the key less that of the
    /// query.
    curves: Vec<f32>,
    /// Beyond this distance the bias is constant.
    reach: usize,
}

/// The buckets of distances. Half of them are for keys behind the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buckets {
    /// Rows of the learned table; at least 4.
    pub(crate) count: usize,
    /// The distance where the last bucket begins.
    pub(crate) max_distance: usize,
}

impl Buckets {
    /// The bucket of a key `distance` positions behind the query, or in front of it.
    fn of(self, distance: usize, is_behind: bool) -> usize {
        let half = self.count / 2;
        self.widening(distance, half) + if is_behind { half } else { 0 }
    }

    /// The bucket of a key `distance` positions in front of the query in causal attention, where all
    /// buckets are for keys in front.
    fn of_past(self, distance: usize) -> usize {
        self.widening(distance, self.count)
    }

    /// One of `count` buckets. Each of the first half is for one distance.
    fn widening(self, distance: usize, count: usize) -> usize {
        let exact = count / 2;
        if distance < exact {
            return distance;
        }
        // In f32 and in this order, as in training: rounding determines the edges of the buckets.
        let ratio = (as_f32(distance) / as_f32(exact)).ln()
            / (as_f32(self.max_distance) / as_f32(exact)).ln();
        (exact + truncated(ratio * as_f32(count - exact))).min(count - 1)
    }
}

impl RelativeBias {
    /// From the learned table, `[buckets, heads]`.
    pub(crate) fn new(table: &[f32], heads: usize, buckets: Buckets) -> Self {
        Self::with(table, heads, buckets.max_distance, |distance, is_behind| {
            buckets.of(distance, is_behind)
        })
    }

    /// As [`new`](Self::new), for causal attention.
    pub(crate) fn causal(table: &[f32], heads: usize, buckets: Buckets) -> Self {
        Self::with(table, heads, buckets.max_distance, |distance, is_behind| {
            buckets.of_past(if is_behind { 0 } else { distance })
        })
    }

    /// For each head the bias at the distances `-reach..=reach`, and the reach.
    pub(crate) fn curves(&self) -> (&[f32], usize) {
        (&self.curves, self.reach)
    }

    /// `scores = scale · scores + bias` for one query and the keys from `first_key` on.
    #[inline(always)]
    pub(crate) fn add(
        &self,
        head: usize,
        query: usize,
        first_key: usize,
        scale: f32,
        scores: &mut [f32],
    ) {
        let len = 2 * self.reach + 1;
        let curve = &self.curves[head * len..][..len];
        // Keys in front of `near` are farther than `reach`.
        let near = query.saturating_sub(self.reach).saturating_sub(first_key).min(scores.len());
        let (front, rest) = scores.split_at_mut(near);
        front.iter_mut().for_each(|x| *x = *x * scale + curve[0]);
        let from = (first_key + near + self.reach).saturating_sub(query);
        let curve = curve.get(from..).unwrap_or_default();
        let (within, behind) = rest.split_at_mut(curve.len().min(rest.len()));
        within.iter_mut().zip(curve).for_each(|(x, bias)| *x = *x * scale + bias);
        let last = self.curves[head * len + len - 1];
        behind.iter_mut().for_each(|x| *x = *x * scale + last);
    }

    fn with(
        table: &[f32],
        heads: usize,
        reach: usize,
        bucket: impl Fn(usize, bool) -> usize,
    ) -> Self {
        let mut curves = Vec::with_capacity(heads * (2 * reach + 1));
        for head in 0..heads {
            let at = |distance, is_behind| table[bucket(distance, is_behind) * heads + head];
            curves.extend((1..=reach).rev().map(|distance| at(distance, false)));
            curves.extend((0..=reach).map(|distance| at(distance, distance > 0)));
        }
        Self { curves, reach }
    }
}

#[expect(clippy::cast_precision_loss, reason = "distances are far below 2^24")]
fn as_f32(distance: usize) -> f32 {
    distance as f32
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounds down to a whole bucket; ratios are not negative"
)]
fn truncated(bucket: f32) -> usize {
    bucket as usize
}

#[cfg(test)]
mod tests {
    use super::{Buckets, RelativeBias};

    const BUCKETS: Buckets = Buckets { count: 32, max_distance: 128 };

    #[test]
    fn buckets_are_exact_near_by_and_widen_up_to_the_last() {
        let of = |distance| BUCKETS.of(distance, false);
        assert_eq!((0..8).map(of).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
        // By transformers' `_relative_position_bucket`.
        let edges =
            [(8, 8), (11, 8), (12, 9), (15, 9), (16, 10), (22, 10), (23, 11), (31, 11), (32, 12)];
        for (distance, bucket) in edges {
            assert_eq!(of(distance), bucket, "{distance}");
        }
        assert_eq!([64, 90, 91, 128, 5000].map(of), [14, 14, 15, 15, 15]);
        assert_eq!(BUCKETS.of(3, true), 19);
        let past = [0, 7, 15, 16, 31, 32, 63, 64, 127, 128, 5000].map(|d| BUCKETS.of_past(d));
        assert_eq!(past, [0, 7, 15, 16, 21, 21, 26, 26, 31, 31, 31]);
    }

    #[test]
    fn each_score_gets_the_bias_of_its_distance_however_far() {
        let table: Vec<f32> = (0..64u8).map(f32::from).collect();
        let bias = RelativeBias::new(&table, 2, BUCKETS);
        for (query, first_key, len) in
            [(0, 0, 300), (299, 0, 300), (150, 20, 200), (200, 3, 5), (0, 150, 40)]
        {
            let mut scores = vec![1.0; len];
            bias.add(1, query, first_key, 0.5, &mut scores);
            for (key, score) in (first_key..).zip(scores) {
                let bucket = BUCKETS.of(query.abs_diff(key), key > query);
                assert_eq!(score, 0.5 + table[bucket * 2 + 1], "{query} {key}");
            }
        }
    }
}
