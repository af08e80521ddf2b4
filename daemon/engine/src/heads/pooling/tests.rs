use super::normalize;
use crate::api::sequence::Sequence;
use crate::checkpoint::pooling::{Pooling, PoolingMode};
use crate::layers::portable;
use candle_core::{Device, Tensor};

/// The tokens of three texts: two, none, and three, the first of which belongs to a prompt.
const HIDDEN: [f32; 10] = [1.0, 2.0, 3.0, 6.0, 0.0, -5.0, 8.0, 7.0, -4.0, -9.0];

fn pool(modes: &[PoolingMode]) -> Vec<Vec<f32>> {
    let pooling = Pooling { modes: modes.to_vec() };
    let mut out = vec![vec![f32::NAN; pooling.outputs(2)]; 3];
    let mut rows: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    let sequence =
        |tokens, unpooled| Sequence { ids: vec![0; tokens], unpooled, ..Sequence::default() };
    let batch = [sequence(2, 0), sequence(0, 0), sequence(3, 1)];
    pooling.write(&HIDDEN, 2, &batch.each_ref(), &mut rows);
    out
}

#[test]
fn each_mode_pools_what_is_behind_the_prompt() {
    for (mode, first, third) in [
        (PoolingMode::Cls, [1.0, 2.0], [0.0, -5.0]),
        (PoolingMode::Max, [3.0, 6.0], [8.0, 7.0]),
        (PoolingMode::Mean, [2.0, 4.0], [2.0, -1.0]),
        (
            PoolingMode::MeanSqrtLen,
            [4.0 / 2f32.sqrt(), 8.0 / 2f32.sqrt()],
            [4.0 / 2f32.sqrt(), -2.0 / 2f32.sqrt()],
        ),
        (PoolingMode::WeightedMean, [7.0 / 3.0, 14.0 / 3.0], [4.0 / 5.0, -13.0 / 5.0]),
        (PoolingMode::LastToken, [3.0, 6.0], [-4.0, -9.0]),
    ] {
        let rows = pool(&[mode]);
        for (got, want) in [(&rows[0], first), (&rows[1], [0.0; 2]), (&rows[2], third)] {
            let close = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6);
            assert!(close, "{mode:?}: {got:?} is not {want:?}");
        }
    }
}

#[test]
fn shares_of_tokens_add_up_to_what_a_mode_pools() {
    let sequence =
        |tokens, unpooled| Sequence { ids: vec![0; tokens], unpooled, ..Sequence::default() };
    // As in `pool`.
    let batch = [sequence(2, 0), sequence(0, 0), sequence(3, 1)];
    let hidden = Tensor::from_slice(&HIDDEN, (5, 2), &Device::Cpu).unwrap();
    for mode in [
        PoolingMode::Cls,
        PoolingMode::Mean,
        PoolingMode::MeanSqrtLen,
        PoolingMode::WeightedMean,
        PoolingMode::LastToken,
    ] {
        let want = pool(&[mode, PoolingMode::Cls]);
        let weights =
            Pooling { modes: vec![mode, PoolingMode::Cls] }.token_weights(&batch.each_ref());
        for (i, weights) in weights.unwrap().into_iter().enumerate() {
            let got = portable::pool(&hidden, &[2, 0, 3], weights).unwrap();
            for (got, want) in got.to_vec2::<f32>().unwrap().iter().zip(&want) {
                let close = got.iter().zip(&want[2 * i..]).all(|(a, b)| (a - b).abs() < 1e-6);
                assert!(close, "{mode:?}: {got:?} is not {want:?}");
            }
        }
    }
    assert!(Pooling { modes: vec![PoolingMode::Max] }.token_weights(&batch.each_ref()).is_none());
}

#[test]
fn modes_are_joined_in_their_order() {
    let rows = pool(&[PoolingMode::LastToken, PoolingMode::Cls]);
    assert_eq!(rows[0], [3.0, 6.0, 1.0, 2.0]);
    assert_eq!(rows[1], [0.0; 4]);
}

#[test]
fn a_prompt_without_a_text_leaves_nothing_to_pool() {
    let sequence = Sequence { ids: vec![0], unpooled: 7, ..Sequence::default() };
    for mode in
        [PoolingMode::Max, PoolingMode::Mean, PoolingMode::WeightedMean, PoolingMode::LastToken]
    {
        let mut row = [f32::NAN; 2];
        let pooling = Pooling { modes: vec![mode] };
        pooling.write(&HIDDEN[..2], 2, &[&sequence], &mut [&mut row]);
        assert_eq!(row, [0.0; 2], "{mode:?}");
    }
}

#[test]
fn a_row_of_zeros_has_no_direction_to_keep() {
    let mut row = [3.0, 4.0];
    normalize(&mut row);
    assert!((row[0] - 0.6).abs() < 1e-6 && (row[1] - 0.8).abs() < 1e-6);
    let mut zero = [0.0; 2];
    normalize(&mut zero);
    assert_eq!(zero, [0.0; 2]);
}
