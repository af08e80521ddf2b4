#![expect(clippy::cast_possible_truncation, reason = "test values are rounded to f32")]

use super::{erfc_nonnegative, exp_nonpositive, softmax, sum_by, tanh};

fn sweep(from: f32, to: f32) -> impl Iterator<Item = f32> {
    (0..=400_000u32).map(move |i| from + (to - from) * (f64::from(i) / 4e5) as f32)
}

#[test]
fn weights_add_up_to_one_for_every_remainder_of_a_row() {
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
        // If every score is excluded, all weights are equal.
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
