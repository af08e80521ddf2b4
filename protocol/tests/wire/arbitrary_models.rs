//! Any model, and what may be asked of models that make no rows, and answered.

use crate::arbitrary::{float, model_id, target, text};
use emberd_protocol::{
    EarlyStopping, FilledMask, FilledText, FinishReason, GenerateOptions, GenerateRequest,
    Generated, GeneratedSequence, GeneratedText, MaskCandidate, MasksFilled, Method, ModelInfo,
    ModelKind, Pairing, RerankRequest, ScoreActivation,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any};
use proptest::sample::select;

pub(crate) fn kind() -> impl Strategy<Value = ModelKind> {
    select(vec![ModelKind::Embedding, ModelKind::Text2Text, ModelKind::Rerank])
}

pub(crate) fn info() -> impl Strategy<Value = ModelInfo> {
    let methods = select(vec![Method::Embed, Method::Rerank, Method::Generate, Method::FillMask]);
    let lists = (vec(methods, 0..5), vec(text(), 0..3), vec(text(), 0..3));
    let words = (text(), text(), option::of(text()), option::of(text()));
    (model_id(), kind(), lists, words, any::<([u32; 3], bool, u64)>()).prop_map(
        |(id, kind, (methods, prompts, labels), words, (short, normalized, weight_bytes))| {
            ModelInfo {
                id,
                kind,
                methods,
                architecture: words.0,
                device: words.1,
                dimension: short[0],
                max_tokens: short[1],
                normalized,
                max_output_tokens: short[2],
                prompts,
                default_prompt: words.2,
                similarity: words.3,
                labels,
                weight_bytes,
            }
        },
    )
}

pub(crate) fn rerank() -> impl Strategy<Value = RerankRequest> {
    use ScoreActivation::{Identity, Model, Sigmoid, Softmax};
    let pairs = select(vec![Pairing::QueryFirst, Pairing::Adjacent]);
    let activation = select(vec![Model, Identity, Sigmoid, Softmax]);
    (target(), any::<u32>(), pairs, activation).prop_map(|(target, texts, pairs, activation)| {
        RerankRequest { target, texts, pairs, activation }
    })
}

pub(crate) fn generate() -> impl Strategy<Value = GenerateRequest> {
    (target(), any::<u32>(), options(), any::<bool>()).prop_map(
        |(target, texts, options, stream)| GenerateRequest { target, texts, options, stream },
    )
}

fn options() -> impl Strategy<Value = GenerateOptions> {
    let early = select(vec![EarlyStopping::No, EarlyStopping::Yes, EarlyStopping::Never]);
    let numbers = any::<([Option<u32>; 6], Option<bool>, Option<u64>)>();
    let float = || option::of(float());
    let floats = (float(), float(), float(), float());
    (numbers, floats, option::of(early), vec(text(), 0..4)).prop_map(
        |((numbers, do_sample, seed), floats, early_stopping, stop)| GenerateOptions {
            max_new_tokens: numbers[0],
            min_new_tokens: numbers[1],
            num_beams: numbers[2],
            num_return_sequences: numbers[3],
            length_penalty: floats.0,
            early_stopping,
            do_sample,
            temperature: floats.1,
            top_k: numbers[4],
            top_p: floats.2,
            seed,
            repetition_penalty: floats.3,
            no_repeat_ngram_size: numbers[5],
            stop,
        },
    )
}

pub(crate) fn generated() -> impl Strategy<Value = Generated> {
    let finish = select(vec![FinishReason::End, FinishReason::Length, FinishReason::Stop]);
    let sequence = (text(), vec(any::<u32>(), 0..9), option::of(float()), finish)
        .prop_map(|(text, ids, score, finish)| GeneratedSequence { text, ids, score, finish });
    let text = (vec(sequence, 0..3), any::<(u32, bool)>()).prop_map(
        |(sequences, (input_tokens, truncated))| GeneratedText {
            sequences,
            input_tokens,
            truncated,
        },
    );
    vec(text, 0..3).prop_map(|texts| Generated { texts })
}

pub(crate) fn filled() -> impl Strategy<Value = MasksFilled> {
    let candidate = (any::<u32>(), text(), float()).prop_map(|(id, text, score)| MaskCandidate {
        id,
        text,
        score,
    });
    let mask = (any::<u32>(), vec(candidate, 0..3))
        .prop_map(|(position, candidates)| FilledMask { position, candidates });
    let text = (vec(mask, 0..3), any::<bool>())
        .prop_map(|(masks, truncated)| FilledText { masks, truncated });
    (vec(text, 0..3), any::<u64>()).prop_map(|(texts, tokens)| MasksFilled { texts, tokens })
}
