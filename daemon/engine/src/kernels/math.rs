//! Scalar functions and row reductions written so that the compiler turns them into vector code.
//!
//! They are inlined into loops that run under [`pulp::Arch::dispatch`]. Sums are kept in a fixed
//! number of lanes, because the compiler may not reorder float additions by itself; so a result
//! does not depend on the width of the machine's registers either, except where it fuses.

/// Independent partial results of a reduction: one AVX-512 register.
const LANES: usize = 16;

/// `e^x` for `x <= 0`, relative error below 2e-7; anything below -87 counts as -87 (1.6e-38).
#[inline(always)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that the product with a small integer is exact in the first.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

/// The complementary error function for `z >= 0`, absolute error below 6e-7, less as it falls.
#[inline(always)]
pub(crate) fn erfc_nonnegative(z: f32) -> f32 {
    // Abramowitz and Stegun 7.1.26. Unlike a quotient of polynomials for erf it goes to 0 as erfc
    // does, so that nothing is left of rounding errors when it is multiplied with a large number.
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = 1.061_405_4;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    p * t * exp_nonpositive(-z * z)
}

/// The hyperbolic tangent, absolute error below 3e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = exp_nonpositive(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

/// `1 / (1 + e^-x)`, relative error below 3e-7.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    // By the exponential of a negative number on either side, so that nothing overflows.
    let e = exp_nonpositive(-x.abs());
    let numerator = if x < 0.0 { e } else { 1.0 };
    numerator / (1.0 + e)
}

/// The sum of `f` over a row.
#[inline(always)]
pub(crate) fn sum_by(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    in_pairs(lanes, |a, b| a + b)
}

/// One of all lanes: each of the first half with its like in the second, until one is left. The
/// additions of a level need not wait for each other.
#[inline(always)]
fn in_pairs(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (first, second) = lanes.split_at_mut(half);
        first.iter_mut().zip(second).for_each(|(a, b)| *a = join(*a, *b));
        half /= 2;
    }
    lanes[0]
}

/// The weights of some scores, before they are divided by the sum of all. A loop, where `map` would be
/// shorter: that is a function of the library, which need not be inlined.
#[inline(always)]
fn weigh(chunk: &mut [f32; LANES], max: f32, scale: f32) {
    for x in chunk {
        *x = exp_nonpositive((*x - max) * scale);
    }
}

#[inline(always)]
fn add(sums: &mut [f32; LANES], chunk: &[f32; LANES]) {
    for (sum, x) in sums.iter_mut().zip(chunk) {
        *sum += x;
    }
}

/// Turns scores into weights that add up to 1: `softmax(scale * row)`. `scale` is positive.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32], scale: f32) {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    // What is left is done as a whole chunk that goes on with nothing.
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks.iter().chain([&last]) {
        most.iter_mut().zip(chunk).for_each(|(most, &x)| *most = greater(*most, x));
    }
    let max = in_pairs(most, greater);
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        weigh(chunk, max, scale);
        add(&mut sums, chunk);
    }
    if !rest.is_empty() {
        weigh(&mut last, max, scale);
        last[rest.len()..].fill(0.0);
        add(&mut sums, &last);
    }
    let inverse = 1.0 / in_pairs(sums, |a, b| a + b);
    rest.copy_from_slice(&last[..rest.len()]);
    row.iter_mut().for_each(|x| *x *= inverse);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "test values are rounded to f32")]

    use super::{erfc_nonnegative, exp_nonpositive, softmax, sum_by, tanh};

    fn sweep(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=400_000u32).map(move |i| from + (to - from) * (f64::from(i) / 4e5) as f32)
    }

    #[test]
    fn weights_add_up_whatever_is_left_of_a_row() {
        for len in 1..70_u8 {
            let scores: Vec<f32> = (0..len).map(|i| f32::from(i * 3 % 23)).collect();
            let mut row = scores.clone();
            softmax(&mut row, 0.5);
            let most = scores.iter().copied().fold(0.0, f32::max);
            let weight = |x: f32| (f64::from(x - most) * 0.5).exp();
            let total: f64 = scores.iter().map(|&x| weight(x)).sum();
            for (got, &score) in row.iter().zip(&scores) {
                assert!((f64::from(*got) - weight(score) / total).abs() < 1e-6, "{len}");
            }
            // Nothing but what is ruled out: all alike, as far as they are.
            let mut row = vec![f32::NEG_INFINITY; len.into()];
            softmax(&mut row, 1.0);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{len}");
        }
    }

    #[test]
    fn exp_is_within_its_relative_error() {
        for x in sweep(-87.0, 0.0) {
            let want = f64::from(x).exp();
            let error = (f64::from(exp_nonpositive(x)) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp_nonpositive(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp_nonpositive(0.0), 1.0);
    }

    #[test]
    fn erfc_and_tanh_are_within_their_absolute_errors() {
        for z in sweep(0.0, 8.0) {
            let want = candle_core::cpu::erf::erfc_f64(f64::from(z));
            let error = f64::from(erfc_nonnegative(z)) - want;
            assert!(error.abs() < 6e-7, "erfc({z}) is off by {error:e}");
        }
        for x in sweep(-8.0, 8.0) {
            let error = f64::from(tanh(x)) - f64::from(x).tanh();
            assert!(error.abs() < 3e-7, "tanh({x}) is off by {error:e}");
        }
    }

    #[test]
    fn softmax_adds_up_to_one_and_keeps_ratios_for_every_length() {
        for len in 1..70u16 {
            let scores: Vec<f32> = (0..len).map(|i| f32::from(i % 7) * 3.0 - 400.0).collect();
            let mut row = scores.clone();
            softmax(&mut row, 0.5);
            assert!((sum_by(&row, |x| x) - 1.0).abs() < 1e-6);
            for (w, s) in row.iter().zip(&scores) {
                let want = row[0] * ((s - scores[0]) * 0.5).exp();
                assert!((w - want).abs() < 1e-6, "length {len}: {w} is not {want}");
            }
        }
    }

    #[test]
    fn softmax_of_far_apart_scores_is_finite() {
        let mut row = [-1e30, 0.0, 1e30];
        softmax(&mut row, 1.0);
        assert_eq!(row[2], 1.0);
        assert!(row[0] < 1e-30 && row[1] < 1e-30);
    }
}
