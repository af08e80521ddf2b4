//! Scalar functions and row reductions in a form that the compiler turns into vector code.
//!
//! They are inlined into loops that run under [`pulp::Arch::dispatch`]. Sums are kept in a fixed
//! number of lanes, because the compiler may not reorder float additions by itself. A result therefore
//! does not depend on the width of the machine's registers, except for fused multiply-adds.

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
    // does, so that rounding errors vanish when it is multiplied by a large number.
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
    // The exponent is negative for either sign of x, so that nothing overflows.
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

/// Turns scores into weights that add up to 1: `softmax(scale * row)`. `scale` is positive.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32], scale: f32) {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    // The remainder is padded to a whole chunk with scores of weight 0.
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

/// Reduces all lanes to one: joins the first half with the second, until one lane is left. The
/// operations of a level do not depend on each other.
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

/// Softmax weights of a chunk of scores, before the division by their sum. A loop rather than `map`,
/// which is a library function that need not be inlined.
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

/// Independent partial results of a reduction: one AVX-512 register.
const LANES: usize = 16;

#[cfg(test)]
mod tests;
