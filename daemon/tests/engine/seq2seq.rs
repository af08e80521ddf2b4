use std::sync::Arc;

use emberd_daemon::engine::model::Sequence;
use emberd_daemon::engine::text_model::{Decoder, HypothesisId, Seq2SeqModel, SourceId};
use emberd_daemon::engine::{
    builtin_verbalizer_t5, builtin_verbalizer_t5_need, holds_seq2seq, load_seq2seq, seq2seq_need,
};
use serde_json::Value;

use crate::support::{data, expected, json, texts};

const MODELS: [&str; 5] = ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"];

/// Tokens of a text that the references were given.
const INPUT_TOKENS: usize = 64;

fn load(name: &str) -> Arc<dyn Seq2SeqModel> {
    load_seq2seq(&data(name)).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

/// What a model was asked, and what the reference answered.
struct Case {
    input: Sequence,
    row: Value,
}

fn cases(model: &dyn Seq2SeqModel, name: &str) -> Vec<Case> {
    let expected = json(&format!("expected/{name}.json"));
    let prefix = expected["prefix"].as_str().unwrap();
    let rows = expected["rows"].as_array().unwrap().iter();
    let case = |(text, row): (String, &Value)| {
        let input = model.encode(&format!("{prefix}{text}"), INPUT_TOKENS).unwrap();
        Case { input, row: row.clone() }
    };
    texts().into_iter().zip(rows).map(case).collect()
}

fn admit(decoder: &mut dyn Decoder, input: &Sequence) -> SourceId {
    decoder.admit(&[input]).unwrap()[0]
}

/// The logits of one step of one answer.
fn step(decoder: &mut dyn Decoder, answer: HypothesisId, token: u32) -> Vec<f32> {
    let mut logits = Vec::new();
    decoder.step(&[(answer, token)], &mut logits).unwrap();
    logits
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    u32::try_from(best.0).unwrap()
}

/// An answer that is made greedily, as `generate` without options would.
struct Greedy {
    answer: HypothesisId,
    ids: Vec<u32>,
}

impl Greedy {
    fn begin(
        model: &dyn Seq2SeqModel,
        decoder: &mut dyn Decoder,
        source: SourceId,
        most: usize,
    ) -> Self {
        let answer = decoder.begin(source, most + 1).unwrap();
        Self { answer, ids: vec![model.defaults().decoder_start] }
    }

    fn last(&self) -> (HypothesisId, u32) {
        (self.answer, *self.ids.last().unwrap())
    }

    /// Takes the next token; answers whether it was the last.
    fn take(&mut self, model: &dyn Seq2SeqModel, logits: &[f32], most: usize) -> bool {
        let defaults = model.defaults();
        let forced = match self.ids.len() {
            1 if defaults.forced_bos.is_some() => defaults.forced_bos,
            len if len == most => defaults.forced_eos,
            _ => None,
        };
        let token = forced.unwrap_or_else(|| best(logits));
        self.ids.push(token);
        defaults.eos.contains(&token) || self.ids.len() > most
    }
}

fn greedy(
    model: &Arc<dyn Seq2SeqModel>,
    decoder: &mut dyn Decoder,
    input: &Sequence,
    most: usize,
) -> Vec<u32> {
    let source = admit(decoder, input);
    let mut greedy = Greedy::begin(&**model, decoder, source, most);
    loop {
        let (answer, token) = greedy.last();
        let logits = step(decoder, answer, token);
        if greedy.take(&**model, &logits, most) {
            break;
        }
    }
    decoder.end(greedy.answer);
    decoder.forget(source);
    greedy.ids
}

#[test]
fn texts_are_read_as_the_reference_reads_them() {
    for name in MODELS {
        let model = load(name);
        for case in cases(&*model, name) {
            assert_eq!(case.input.ids, ids(&case.row["input_ids"]), "{name} {}", case.row["id"]);
        }
    }
}

#[test]
fn answers_are_those_of_the_reference_wherever_it_is_sure() {
    for name in MODELS {
        let model = load(name);
        let mut decoder = Arc::clone(&model).decoder(2).unwrap();
        let mut sure = 0;
        for case in cases(&*model, name) {
            let want = &case.row["greedy"];
            if want["min_top1_top2_margin"].as_f64().unwrap() < 1e-3 {
                continue;
            }
            sure += 1;
            let got = greedy(&model, &mut *decoder, &case.input, 20);
            assert_eq!(got, ids(&want["ids"]), "{name} {}", case.row["id"]);
            assert_eq!(model.decode(&got).unwrap(), want["text"].as_str().unwrap(), "{name}");
        }
        assert!(sure >= 19, "{name}: {sure}");
    }
}

#[test]
fn logits_are_those_of_the_reference() {
    for name in MODELS {
        let model = load(name);
        let cases = cases(&*model, name);
        for threads in [1, 2, 3] {
            let mut decoder = Arc::clone(&model).decoder(threads).unwrap();
            for i in [1, 5] {
                let want = expected(name, &format!("greedy_logits.{i}"));
                let source = admit(&mut *decoder, &cases[i].input);
                let answer = decoder.begin(source, 21).unwrap();
                let scale = want.iter().flatten().fold(1.0, |most: f32, x| most.max(x.abs()));
                for (want, token) in want.iter().zip(ids(&cases[i].row["greedy"]["ids"])) {
                    let got = step(&mut *decoder, answer, token);
                    crate::support::assert_close(&[got], &[want.clone()], 1e-5 * scale);
                }
            }
        }
    }
}
