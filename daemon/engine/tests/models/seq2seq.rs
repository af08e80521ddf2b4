use std::sync::Arc;

use emberd_engine::Sequence;
use emberd_engine::{Decoder, EncoderOutputId, HypothesisId, Seq2SeqModel};
use emberd_engine::{
    builtin_verbalizer_t5, builtin_verbalizer_t5_need, holds_seq2seq, load_seq2seq, seq2seq_need,
};
use serde_json::Value;

use crate::support::{data, expected, json, texts};

const MODELS: [&str; 5] = ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"];

/// Tokens of a text in the reference data.
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

/// An input of a model, and the output of the reference.
struct Case {
    input: Sequence,
    row: Value,
}

fn cases(model: &dyn Seq2SeqModel, name: &str) -> Vec<Case> {
    let expected = json(&format!("expected/{name}.json"));
    let prefix = expected["prefix"].as_str().unwrap();
    let rows = expected["rows"].as_array().unwrap().iter();
    let case = |(text, row): (String, &Value)| {
        let input = model.tokenize(&format!("{prefix}{text}"), INPUT_TOKENS).unwrap();
        Case { input, row: row.clone() }
    };
    texts().into_iter().zip(rows).map(case).collect()
}

fn admit(decoder: &mut dyn Decoder, input: &Sequence) -> EncoderOutputId {
    decoder.admit(&[input]).unwrap()[0]
}

/// The logits of one step of one output.
fn step(decoder: &mut dyn Decoder, answer: HypothesisId, token: u32) -> Vec<f32> {
    let mut logits = Vec::new();
    decoder.step(&[(answer, token)], &mut logits).unwrap();
    logits
}

fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    u32::try_from(best.0).unwrap()
}

/// An output that is generated greedily, as by `generate` without options.
struct Greedy {
    answer: HypothesisId,
    ids: Vec<u32>,
}

impl Greedy {
    fn begin(
        model: &dyn Seq2SeqModel,
        decoder: &mut dyn Decoder,
        source: EncoderOutputId,
        most: usize,
    ) -> Self {
        let answer = decoder.begin(source, most + 1).unwrap();
        Self { answer, ids: vec![model.defaults().decoder_start] }
    }

    fn last(&self) -> (HypothesisId, u32) {
        (self.answer, *self.ids.last().unwrap())
    }

    /// Appends the next token. Returns whether it was the last one.
    fn take(&mut self, model: &dyn Seq2SeqModel, logits: &[f32], most: usize) -> bool {
        let defaults = model.defaults();
        let forced = match self.ids.len() {
            1 => defaults.forced_bos.first().copied(),
            len if len == most => defaults.forced_eos.first().copied(),
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
            assert_eq!(model.detokenize(&got).unwrap(), want["text"].as_str().unwrap(), "{name}");
        }
        assert!(sure >= 19, "{name}: {sure}");
    }
}

/// The weights are large, so that rounding errors grow: the recorded logits differ by 7.4e-5 from a
/// computation in 64 bits, and by 9.5e-5 from another version of torch.
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
                let scale = want.iter().flatten().fold(10.0, |most: f32, x| most.max(x.abs()));
                for (want, token) in want.iter().zip(ids(&cases[i].row["greedy"]["ids"])) {
                    let got = step(&mut *decoder, answer, token);
                    crate::support::assert_close(&[got], std::slice::from_ref(want), 2e-5 * scale);
                }
            }
        }
    }
}

/// transformers 5 writes for every T5 that it is tied, and separately whether the output is scaled.
#[test]
fn a_t5_that_a_newer_library_saved_answers_the_same() {
    let (unscaled, scaled) = (false.into(), true.into());
    for (name, is_scaled) in
        [("flan-t5-gated-untied", unscaled), ("t5-relu-tied", scaled), ("mt5", Value::Null)]
    {
        let folder = crate::support::copy_of(name);
        let mut config = json(&format!("{name}/config.json"));
        config["tie_word_embeddings"] = true.into();
        config["scale_decoder_outputs"] = is_scaled;
        config["transformers_version"] = "5.23.0".into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let saved = load_seq2seq(folder.path()).unwrap();
        let [first, again] = [load(name), saved].map(|model| {
            let cases = cases(&*model, name);
            let mut decoder = Arc::clone(&model).decoder(1).unwrap();
            let source = admit(&mut *decoder, &cases[1].input);
            let answer = decoder.begin(source, 4).unwrap();
            step(&mut *decoder, answer, 0)
        });
        assert_eq!(first, again, "{name}");
    }
}

#[test]
fn the_little_t5_inside_the_program_answers_as_it_was_measured() {
    let model = builtin_verbalizer_t5().unwrap();
    assert_eq!(model.spec().architecture, "t5");
    assert_eq!((model.defaults().max_new_tokens, model.max_output_tokens()), (Some(64), None));
    let mut decoder = Arc::clone(&model).decoder(2).unwrap();
    let expected = json("verbalizer-t5/expected.json");
    for row in expected["rows"].as_array().unwrap() {
        let input = model.tokenize(row["input"].as_str().unwrap(), 512).unwrap();
        assert_eq!(input.ids, ids(&row["input_ids"]));
        let got = greedy(&model, &mut *decoder, &input, 64);
        if row["min_top1_top2_margin"].as_f64().unwrap() > 1e-3 {
            assert_eq!(got, ids(&row["greedy_ids"]), "{}", row["input"]);
            assert_eq!(model.detokenize(&got).unwrap(), row["greedy_text"].as_str().unwrap());
        }
    }
}

#[test]
fn a_text_that_is_too_long_loses_its_end_and_says_so() {
    for name in MODELS {
        let model = load(name);
        let text = "One two three four five six seven eight nine ten.";
        let whole = model.tokenize(text, 1000).unwrap();
        assert!(!whole.truncated);
        let cut = model.tokenize(text, 6).unwrap();
        assert!(cut.truncated && cut.ids.len() == 6, "{name}");
        assert_eq!(cut.ids[..5], whole.ids[..5], "{name}");
        assert_eq!(cut.ids[5], *whole.ids.last().unwrap(), "{name}: the end of the text is marked");
        assert_eq!(model.tokenize(text, whole.ids.len()).unwrap(), whole);
    }
}

#[test]
fn nothing_depends_on_the_number_of_threads() {
    for name in ["mt5", "bart"] {
        let model = load(name);
        let cases = cases(&*model, name);
        let inputs: Vec<&Sequence> = cases.iter().map(|case| &case.input).take(7).collect();
        let all_logits = |threads| {
            let mut decoder = Arc::clone(&model).decoder(threads).unwrap();
            let sources = decoder.admit(&inputs).unwrap();
            let answers: Vec<HypothesisId> =
                sources.iter().map(|&source| decoder.begin(source, 50).unwrap()).collect();
            let mut all = Vec::new();
            let mut logits = Vec::new();
            for step in 0..40 {
                let next: Vec<_> = answers.iter().map(|&answer| (answer, step * 7 + 3)).collect();
                decoder.step(&next, &mut logits).unwrap();
                all.extend_from_slice(&logits);
            }
            all
        };
        let alone = all_logits(1);
        for threads in [2, 3, 5, 9] {
            assert!(all_logits(threads) == alone, "{name}: {threads} threads");
        }
    }
}

/// An input has the same output alone and in a batch that others join and leave.
#[test]
fn answers_do_not_depend_on_the_batch() {
    for name in MODELS {
        let model = load(name);
        let cases = cases(&*model, name);
        let mut decoder = Arc::clone(&model).decoder(2).unwrap();
        let alone: Vec<Vec<u32>> =
            cases.iter().map(|case| greedy(&model, &mut *decoder, &case.input, 20)).collect();

        let mut waiting: Vec<usize> = (0..cases.len()).rev().collect();
        let mut running: Vec<(usize, EncoderOutputId, Greedy)> = Vec::new();
        let mut made = vec![Vec::new(); cases.len()];
        for round in 0.. {
            // Two at first, then some in each round, and sometimes several at once.
            for _ in 0..[2, 0, 1, 3, 0][round % 5] {
                let Some(case) = waiting.pop() else { break };
                let source = admit(&mut *decoder, &cases[case].input);
                running.push((case, source, Greedy::begin(&*model, &mut *decoder, source, 20)));
            }
            if running.is_empty() && waiting.is_empty() {
                break;
            }
            // In another order each time: the row in the batch does not matter.
            let turn = usize::from(running.len() > 1);
            running.rotate_left(turn);
            let next: Vec<_> = running.iter().map(|(_, _, greedy)| greedy.last()).collect();
            let mut logits = Vec::new();
            decoder.step(&next, &mut logits).unwrap();
            let rows = logits.chunks(model.vocabulary());
            let mut still = Vec::new();
            for ((case, source, mut greedy), logits) in running.into_iter().zip(rows) {
                if greedy.take(&*model, logits, 20) {
                    decoder.end(greedy.answer);
                    decoder.forget(source);
                    made[case] = greedy.ids;
                } else {
                    still.push((case, source, greedy));
                }
            }
            running = still;
        }
        assert_eq!(made, alone, "{name}");
    }
}

/// Long enough for several blocks, and branching within one: shared blocks must not be overwritten.
#[test]
fn reordered_answers_go_on_from_what_they_took_over() {
    for name in ["t5-relu-tied", "marian"] {
        let model = load(name);
        let mut decoder = Arc::clone(&model).decoder(2).unwrap();
        let input = model.tokenize("a text to answer", INPUT_TOKENS).unwrap();
        let source = admit(&mut *decoder, &input);
        let token = |beam: usize, step: usize| u32::try_from(5 + beam * 100 + step * 3).unwrap();
        let beams: Vec<HypothesisId> = (0..3).map(|_| decoder.begin(source, 60).unwrap()).collect();
        let mut fed: Vec<Vec<u32>> = vec![Vec::new(); 3];
        let mut logits = Vec::new();
        for step in 0..50 {
            let next: Vec<_> =
                beams.iter().enumerate().map(|(b, &beam)| (beam, token(b, step))).collect();
            decoder.step(&next, &mut logits).unwrap();
            fed.iter_mut().zip(&next).for_each(|(fed, (_, token))| fed.push(*token));
            let from = match step {
                10 => [1, 2, 0],
                31 | 33 => [0, 0, 2],
                40 => [2, 1, 1],
                45 => [1, 1, 1],
                _ => continue,
            };
            decoder.reorder(&beams, &from).unwrap();
            fed = from.iter().map(|&from| fed[from].clone()).collect();
        }
        for (beam, tokens) in fed.iter().enumerate() {
            let straight = decoder.begin(source, 60).unwrap();
            let mut last = Vec::new();
            for &token in tokens {
                last = step(&mut *decoder, straight, token);
            }
            // The last step of all came after the last reordering.
            let row = &logits[beam * model.vocabulary()..][..model.vocabulary()];
            assert!(row == last, "{name}: beam {beam}");
        }
    }
}

#[test]
fn an_invalid_call_is_an_error_and_changes_nothing() {
    let model = load("bart");
    let mut decoder = Arc::clone(&model).decoder(2).unwrap();
    let input = model.tokenize("a text", INPUT_TOKENS).unwrap();
    let source = admit(&mut *decoder, &input);
    let (first, second) = (decoder.begin(source, 3).unwrap(), decoder.begin(source, 3).unwrap());
    let logits = step(&mut *decoder, first, 2);

    let unknown = HypothesisId(u32::MAX);
    let mut rest = Vec::new();
    for next in [
        &[(unknown, 2)][..],
        &[(first, 2), (unknown, 2)],
        &[(first, 2), (first, 2)],
        &[(first, 1000)],
        &[(first, u32::MAX)],
    ] {
        decoder.step(next, &mut rest).unwrap_err();
    }
    decoder.begin(EncoderOutputId(u32::MAX), 3).unwrap_err();
    decoder.reorder(&[first, unknown], &[0, 1]).unwrap_err();
    decoder.reorder(&[first, second], &[0]).unwrap_err();
    decoder.reorder(&[first, second], &[0, 2]).unwrap_err();
    let long = Sequence { ids: vec![5; 69], ..Sequence::default() };
    let foreign = Sequence { ids: vec![0, 1000, 2], ..Sequence::default() };
    for input in [&Sequence::default(), &long, &foreign] {
        decoder.admit(&[input]).unwrap_err();
    }
    decoder.end(unknown);
    decoder.forget(EncoderOutputId(u32::MAX));

    // The failed calls added no token to the first hypothesis, and the second one has its memory.
    assert_eq!(step(&mut *decoder, second, 2), logits);
    step(&mut *decoder, first, 5);
    step(&mut *decoder, first, 6);
    decoder.step(&[(first, 7)], &mut rest).unwrap_err();
    decoder.forget(source);
    decoder.step(&[(second, 7)], &mut rest).unwrap_err();
    decoder.end(second);
    decoder.step(&[(second, 7)], &mut rest).unwrap_err();
}

/// BART's positions limit the tokens of a hypothesis, even if it was begun for more.
#[test]
fn an_answer_ends_where_the_positions_do() {
    let model = load("bart");
    assert_eq!((model.max_output_tokens(), model.spec().max_tokens), (Some(68), 64));
    let mut decoder = Arc::clone(&model).decoder(1).unwrap();
    let source = admit(&mut *decoder, &model.tokenize("a text", INPUT_TOKENS).unwrap());
    let answer = decoder.begin(source, 1000).unwrap();
    for _ in 0..68 {
        step(&mut *decoder, answer, 5);
    }
    decoder.step(&[(answer, 5)], &mut Vec::new()).unwrap_err();
}

#[test]
fn folders_say_what_they_hold_and_need() {
    for name in MODELS {
        assert!(holds_seq2seq(&data(name)), "{name}");
        let file = std::fs::metadata(data(name).join("model.safetensors")).unwrap().len();
        let (one, two) =
            (seq2seq_need(&data(name), 1).unwrap(), seq2seq_need(&data(name), 2).unwrap());
        assert!(file < one.cpu_bytes && one.cpu_bytes < two.cpu_bytes, "{name}: {one:?} {two:?}");
    }
    for name in ["bert-mean-norm", "sentence-t5/none", "expected"] {
        assert!(!holds_seq2seq(&data(name)), "{name}");
    }
    // 16 bits in the program, 32 in memory.
    let need = builtin_verbalizer_t5_need(2).unwrap();
    assert!(need.cpu_bytes > 2 * 4_166_336 - 100_000, "{need:?}");
}
