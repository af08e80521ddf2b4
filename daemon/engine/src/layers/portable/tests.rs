//! Each layer by tensor operations beside its kernel, both on the CPU.

use crate::api::sequence::Sequence;
use crate::api::weight_type::WeightType;
use crate::layers::activation::Activation;
use crate::layers::attention::AttentionScratch;
use crate::layers::attention_shape::{Attention, Reach};
use crate::layers::elementwise::{add, multiply};
use crate::layers::embedding::{Embedding, Positions};
use crate::layers::linear::LinearBuilder;
use crate::layers::norm::{LayerNorm, Norm};
use crate::layers::portable::forced;
use crate::layers::relative_bias::{Buckets, RelativeBias};
use crate::layers::rms_norm::{HeadNorm, RmsNorm};
use crate::layers::rotary::{Rotary, RotatedHeads};
use candle_core::{DType, Device, Tensor};

/// Values between -`size` and `size` without a pattern that a row or a head could share.
fn waves(rows: usize, columns: usize, size: f64) -> Tensor {
    let count = u32::try_from(rows * columns).unwrap();
    let numbers = Tensor::arange(0, count, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let waves = ((numbers * 12.9898).unwrap().sin().unwrap() * size).unwrap();
    waves.to_dtype(DType::F32).unwrap().reshape((rows, columns)).unwrap()
}

fn vector(len: usize, size: f64) -> Tensor {
    waves(1, len, size).flatten_all().unwrap()
}

/// Runs a layer by its kernel and by tensor operations, each over a copy of `start`, and compares
/// what it leaves there.
fn same(what: &str, start: &Tensor, layer: impl Fn(&Tensor)) {
    let by_kernel = start.copy().unwrap();
    layer(&by_kernel);
    let by_tensors = start.copy().unwrap();
    forced::on(|| layer(&by_tensors));
    let off = (&by_kernel - &by_tensors).unwrap().abs().unwrap();
    let off = off.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    assert!(off < 1e-5, "{what} is off by {off:e}");
    let is_changed = (by_kernel - start).unwrap().abs().unwrap().sum_all().unwrap();
    assert!(is_changed.to_scalar::<f32>().unwrap() > 0.0, "{what} did nothing");
}

#[test]
fn linear_layers_are_the_same_by_tensor_operations() {
    use Activation::{Gelu, GeluTanh, None, Relu, Silu, Tanh};
    let x = waves(7, 13, 2.0);
    for activation in [None, Gelu, GeluTanh, Relu, Silu, Tanh] {
        same(&format!("{activation:?}"), &waves(7, 45, 1.0), |out| {
            let mut builder = LinearBuilder::new(13, 45);
            for (rows, size) in [(33, 0.5), (12, 0.7)] {
                let weight = vector(rows * 13, size).to_vec1::<f32>().unwrap();
                builder.push(&weight, &vector(rows, 0.3).to_vec1::<f32>().unwrap());
            }
            builder
                .finish(activation, &Device::Cpu, WeightType::F32)
                .unwrap()
                .forward(&x, out)
                .unwrap();
        });
    }
}

#[test]
fn norms_and_sums_are_the_same_by_tensor_operations() {
    let (weight, bias) = (vector(24, 1.5), vector(24, 0.5));
    let layer = Norm::Layer(LayerNorm { weight: weight.clone(), bias, epsilon: 1e-12 });
    let rms = Norm::Rms(RmsNorm { weight, epsilon: 1e-6 });
    let (x, start) = (waves(5, 24, 2.0), waves(5, 24, 3.0));
    for norm in [layer, rms] {
        same("added and normalised", &start, |out| norm.add(&x, out).unwrap());
        same("normalised elsewhere", &start, |out| norm.write(&x, out).unwrap());
        same("normalised in place", &start, |out| norm.apply(out).unwrap());
    }
    same("a sum", &start, |out| add(out, &x).unwrap());
    same("a product", &start, |out| multiply(out, &x).unwrap());
    let norm = |size| RmsNorm { weight: vector(6, size), epsilon: 1e-6 };
    let heads = HeadNorm { queries: norm(1.5), keys: norm(0.7), heads: 4, key_heads: 2 };
    same("heads", &waves(5, 8 * 6, 2.0), |out| heads.forward(out).unwrap());
}

#[test]
fn rotary_positions_are_the_same_by_tensor_operations() {
    let rotary = Rotary::new(10_000.0, 8);
    let lengths = [3, 0, 9, 1];
    for head_width in [8, 12] {
        let rotated = RotatedHeads { heads: 3, head_width };
        same("rotary", &waves(13, 4 * head_width, 2.0), |rows| {
            rotary.table(9).forward(rows, rotated, &lengths).unwrap();
        });
    }
    let rows = waves(13, 32, 2.0);
    let rotated = RotatedHeads { heads: 3, head_width: 8 };
    let beyond = forced::on(|| rotary.table(9).forward(&rows, rotated, &[13, 400]));
    assert!(beyond.is_err(), "lengths that do not add up");
}

#[test]
fn attention_is_the_same_by_tensor_operations() {
    let table: Vec<f32> = vector(8 * 4, 2.0).to_vec1().unwrap();
    let bias = RelativeBias::new(&table, 4, Buckets { count: 8, max_distance: 20 });
    // Equal lengths side by side, as in sorted batches, and apart; longer than the bias reaches.
    let lengths = [1, 1, 4, 4, 4, 0, 0, 33, 4, 70];
    let tokens: usize = lengths.iter().sum();
    for reach in [Reach::All, Reach::Before, Reach::Near(3), Reach::Near(500)] {
        for key_heads in [4, 2, 1] {
            for bias in [None, Some(&bias)] {
                let full = Attention::full(4, 12);
                let shape = Attention { key_heads, reach, ..full };
                let qkv = waves(tokens, shape.qkv_width(), 3.0);
                let what = format!("{reach:?}, {key_heads} heads of keys, {}", bias.is_some());
                same(&what, &waves(tokens, shape.width(), 1.0), |context| {
                    let scratch = &mut AttentionScratch::default();
                    shape.forward(&qkv, context, &lengths, bias, scratch).unwrap();
                });
            }
        }
    }
}

#[test]
fn embeddings_are_the_same_by_tensor_operations_and_look_no_further_than_their_tables() {
    let sequence =
        |ids: &[u32], first_len| Sequence { ids: ids.into(), first_len, ..Sequence::default() };
    let sequences = [sequence(&[3, 1, 1, 4], 2), sequence(&[], 0), sequence(&[0, 5, 2], 0)];
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let layer = |padding, with_norm: bool| Embedding {
        tokens: waves(6, 8, 2.0),
        scale: 1.5,
        segments: Some(waves(2, 8, 1.0)),
        positions: Some(Positions { rows: waves(7, 8, 0.7), padding }),
        norm: with_norm.then(|| {
            let (weight, bias) = (vector(8, 1.0), vector(8, 0.5));
            Norm::Layer(LayerNorm { weight, bias, epsilon: 1e-12 })
        }),
    };
    for padding in [None, Some(1)] {
        for with_norm in [true, false] {
            let layer = layer(padding, with_norm);
            same("embedding", &waves(7, 8, 1.0), |out| layer.forward(&batch, out).unwrap());
        }
    }
    let layer = layer(None, true);
    for (ids, word) in [(&[6][..], "vocabulary"), (&[u32::MAX], "vocabulary"), (&[0; 8], "longer")]
    {
        let out = waves(ids.len(), 8, 1.0);
        let sequence = sequence(ids, 0);
        let error = forced::on(|| layer.forward(&[&sequence], &out)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
