use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;

use super::TeamDecoder;
use crate::api::generation::{Decoder, Seq2SeqModel};
use crate::api::sequence::Sequence;
use crate::seq2seq::files::ModelFiles;
use crate::seq2seq::model::EncoderDecoder;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn model(name: &str) -> Arc<EncoderDecoder> {
    Arc::new(EncoderDecoder::load(&ModelFiles::open(&data(name)).unwrap()).unwrap())
}

fn json(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data(path)).unwrap()).unwrap()
}

/// The last rows of the encoder equal those of transformers, alone and packed with others.
#[test]
fn encoded_rows_are_those_of_the_reference() {
    let texts = json("texts.json");
    for name in ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"] {
        let model = model(name);
        let prefix = json(&format!("expected/{name}.json"))["prefix"].clone();
        let bytes = std::fs::read(data(&format!("expected/{name}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let want = |i: usize| -> Vec<f32> {
            let tensor = tensors.tensor(&format!("encoder_last_hidden_state.{i}")).unwrap();
            tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
        };
        let input = |i: usize| {
            let text = texts[i]["text"].as_str().unwrap();
            model.tokenize(&format!("{}{text}", prefix.as_str().unwrap()), 64).unwrap()
        };
        let (one, five) = (input(1), input(5));
        for threads in [1, 2, 4] {
            let mut decoder = TeamDecoder::new(model.network(), threads).unwrap();
            for (inputs, want) in [
                (vec![&one], want(1)),
                (vec![&five], want(5)),
                (vec![&one, &five, &one], [want(1), want(5), want(1)].concat()),
                // More tokens for each member than go through a layer at once.
                (vec![&five; 40], want(5).repeat(40)),
            ] {
                decoder.admit(&inputs).unwrap();
                let got = decoder.encoded();
                assert_eq!(got.len(), want.len());
                let scale = want.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-5 * scale, "{name}: {got} is not {want}");
                }
            }
        }
    }
}

/// The logits after the first token.
fn first_logits(decoder: &mut TeamDecoder, input: &Sequence) -> Vec<f32> {
    let source = decoder.admit(&[input]).unwrap()[0];
    let answer = decoder.begin(source, 10).unwrap();
    let mut logits = Vec::new();
    decoder.step(&[(answer, 0)], &mut logits).unwrap();
    decoder.end(answer);
    decoder.forget(source);
    logits
}

/// The memory of an input that was forgotten is reused; its old content does not matter.
#[test]
fn an_input_in_the_room_of_a_longer_one_is_answered_as_in_a_new_one() {
    let model = model("mt5");
    let new =
        |input: &Sequence| first_logits(&mut TeamDecoder::new(model.network(), 2).unwrap(), input);
    let sequence = |tokens: u32| Sequence {
        ids: (0..tokens).map(|t| 3 + t * 7 % 50).collect(),
        ..Sequence::default()
    };
    let (long, short) = (sequence(47), sequence(33));
    let mut decoder = TeamDecoder::new(model.network(), 2).unwrap();
    first_logits(&mut decoder, &long);
    decoder.for_caches(|cache| assert_eq!(cache.spare_inputs_kept(), 1));
    assert_eq!(first_logits(&mut decoder, &short), new(&short));
    decoder.for_caches(|cache| assert_eq!(cache.spare_inputs_kept(), 1));
    // A much shorter input gets memory of its own, and the unused memory stays bounded.
    assert_eq!(first_logits(&mut decoder, &sequence(3)), new(&sequence(3)));
    decoder.for_caches(|cache| assert_eq!(cache.spare_inputs_kept(), 2));
    for tokens in [400, 401, 402, 1500] {
        let input = sequence(tokens);
        assert_eq!(first_logits(&mut decoder, &input), new(&input));
    }
    decoder.for_caches(|cache| assert_eq!(cache.spare_inputs_kept(), 0));
}

/// Inputs that were given up leave nothing behind apart from the memory that is kept for later ones.
#[test]
fn numbers_that_were_given_up_hold_nothing() {
    let model = model("mt5");
    let input = model.tokenize("a text", 64).unwrap();
    let mut decoder = TeamDecoder::new(model.network(), 2).unwrap();
    for _ in 0..3 {
        let source = decoder.admit(&[&input]).unwrap()[0];
        let answer = decoder.begin(source, 10).unwrap();
        decoder.step(&[(answer, 0)], &mut Vec::new()).unwrap();
        decoder.end(answer);
        decoder.forget(source);
    }
    decoder.for_caches(|cache| assert!(cache.is_empty()));
    assert!(decoder.inputs.is_empty() && decoder.hypotheses.is_empty());
}
