use crate::support::{Daemon, code_of, texts, tiny_model};
use emberd_client::{
    Client, ElementType, EmbedOptions, EmbeddingModel, Embeddings, Prompt, QuantizationRanges,
};
use emberd_protocol::ErrorCode;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data").join(name)
}

/// A daemon with one of the tiny models, by its folder's name.
fn daemon_with(name: &str) -> Daemon {
    let folder = data(name);
    Daemon::with_args(&["--model", &format!("tiny={}", folder.display())])
}

fn of_elements(element: ElementType) -> EmbedOptions {
    EmbedOptions { element, ..EmbedOptions::default() }
}

fn of_prompt(prompt: Prompt) -> EmbedOptions {
    EmbedOptions { prompt, ..EmbedOptions::default() }
}

fn bits(rows: &Embeddings) -> Vec<u32> {
    rows.as_slice().iter().map(|value| value.to_bits()).collect()
}

/// `quantize_embeddings(rows, "int8")`, written as plainly as possible.
fn int8(rows: &[Vec<f32>]) -> (Vec<i8>, QuantizationRanges) {
    let column = |c: usize| rows.iter().map(move |row| row[c]);
    let columns = rows[0].len();
    let starts: Vec<f32> = (0..columns).map(|c| column(c).fold(f32::INFINITY, f32::min)).collect();
    let ends: Vec<f32> =
        (0..columns).map(|c| column(c).fold(f32::NEG_INFINITY, f32::max)).collect();
    let steps: Vec<f32> = starts.iter().zip(&ends).map(|(min, max)| (max - min) / 255.0).collect();
    #[expect(clippy::cast_possible_truncation, reason = "numpy cuts the fraction off, too")]
    let byte = |(c, value): (usize, &f32)| ((value - starts[c]) / steps[c] - 128.0) as i8;
    let bytes = rows.iter().flat_map(|row| row.iter().enumerate().map(byte)).collect();
    (bytes, QuantizationRanges { starts, steps })
}

fn rows_of(embeddings: &Embeddings) -> Vec<Vec<f32>> {
    embeddings.rows().map(<[f32]>::to_vec).collect()
}

#[test]
fn weights_are_held_as_the_settings_say() {
    let folder = data("cross-encoder");
    let settings: String = [("wide", "f32"), ("narrow", "bf16")]
        .map(|(id, dtype)| {
            let path = folder.display();
            format!("models.{id} = {{ type = \"embedding\", local_path = \"{path}\", dtype = \"{dtype}\" }}\n")
        })
        .concat();
    let daemon = Daemon::with_settings(&settings);
    let [wide, narrow] = ["wide", "narrow"].map(|id| daemon.model(id));
    let bytes = |model: &EmbeddingModel| model.info().weight_bytes;
    assert!(bytes(&narrow) * 100 < bytes(&wide) * 60, "{} {}", bytes(&narrow), bytes(&wide));
    let text = "The soup is warm.";
    let [one, other] = [&wide, &narrow].map(|model| model.embed_one(text).unwrap().to_vec());
    let difference = one.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Weights have a precision of 8 bits; sums are as exact as always.
    assert!(difference > 0.0 && difference < 0.1, "{difference}");
    let scores = |id: &str| {
        let model = daemon.client().rerank_model(id).unwrap();
        model.rerank("soup", &[text]).unwrap()[0].score
    };
    assert!((scores("wide") - scores("narrow")).abs() < 0.1);
}

/// Checks a result that is returned inline, and one in shared memory.
#[test]
fn every_element_type_is_what_sentence_transformers_makes_of_the_same_rows() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    for (count, is_shared) in [(20, false), (3000, true)] {
        let texts = texts(count);
        let plain = model.embed(&texts).unwrap();
        let rows = rows_of(&plain);
        let embed = |element| model.embed_with(&texts, &of_elements(element)).unwrap();

        let got = embed(ElementType::I8);
        let (want, ranges) = int8(&rows);
        assert_eq!((got.element(), got.is_shared()), (ElementType::I8, is_shared));
        assert_eq!(got.as_i8().unwrap(), want);
        assert_eq!(got.ranges(), Some(&ranges));
        let unsigned = embed(ElementType::U8);
        let shifted: Vec<u8> =
            want.iter().map(|byte| byte.wrapping_add(-128).cast_unsigned()).collect();
        // Casts round towards 0, so a value below 0 is at most one higher.
        let off = unsigned.as_bytes().iter().zip(&shifted).map(|(a, b)| b.abs_diff(*a)).max();
        assert!(off <= Some(1), "{off:?}");
        for (at, row) in rows.iter().enumerate().step_by(7) {
            for (c, (value, decoded)) in row.iter().zip(got.row(at)).enumerate() {
                let step = ranges.steps[c];
                assert!((value - decoded).abs() <= 1.001 * step, "row {at}, column {c}");
            }
        }

        let binary: Vec<u8> = rows
            .iter()
            .flat_map(|row| row.chunks(8))
            .map(|eight| eight.iter().fold(0, |byte, value| byte << 1 | u8::from(*value > 0.0)))
            .collect();
        assert_eq!(embed(ElementType::Ubinary).as_bytes(), binary);
        let less: Vec<i8> =
            binary.iter().map(|byte| i8::try_from(i16::from(*byte) - 128).unwrap()).collect();
        let got = embed(ElementType::Binary);
        assert_eq!(got.as_i8().unwrap(), less);
        assert_eq!(got.row_bytes(1).unwrap().len(), 16);
        assert_eq!((got.row_bytes(count), got.ranges()), (None, None));
        for (value, sign) in plain.as_slice().iter().zip(got.as_slice()) {
            assert_eq!(*value > 0.0, *sign > 0.0);
        }

        let half = embed(ElementType::F16);
        assert_eq!(half.as_bytes().len(), 2 * plain.as_slice().len());
        for (value, half) in plain.as_slice().iter().zip(half.as_slice()) {
            assert!((value - half).abs() <= value.abs() / 2048.0 + 3e-8, "{value} {half}");
        }
        assert_eq!(embed(ElementType::F32).as_slice(), plain.as_slice());
    }
}

#[test]
fn ranges_of_one_request_serve_the_next() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    let first = model.embed_with(&texts(200), &of_elements(ElementType::U8)).unwrap();
    let ranges = first.ranges().cloned();
    let options = EmbedOptions { ranges: ranges.clone(), ..of_elements(ElementType::U8) };
    let one = model.embed_with(&texts(1), &options).unwrap();
    assert_eq!(one.ranges(), ranges.as_ref());
    assert_eq!(one.row_bytes(0), first.row_bytes(0));
    let nothing = model.embed_with::<&str>(&[], &of_elements(ElementType::I8)).unwrap();
    assert!(nothing.is_empty() && nothing.as_slice().is_empty());
}

#[test]
fn one_entry_of_the_cache_serves_every_dimension_and_element() {
    let daemon = daemon_with("bert-mean-norm");
    let model = daemon.model("tiny");
    let texts = texts(50);
    let plain = model.embed(&texts).unwrap();
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    for options in [
        EmbedOptions { dimension: Some(8), ..EmbedOptions::default() },
        EmbedOptions { dimension: Some(8), normalize: Some(false), ..EmbedOptions::default() },
        EmbedOptions { dimension: Some(16), ..of_elements(ElementType::Ubinary) },
        EmbedOptions { normalize: Some(true), ..of_elements(ElementType::I8) },
    ] {
        let rows = model.embed_with(&texts, &options).unwrap();
        assert_eq!(rows.tokens(), 0, "{options:?}: nothing was computed");
        assert_eq!(rows.dimension(), options.dimension.unwrap_or(32) as usize);
        if options.element != ElementType::F32 {
            continue;
        }
        for (row, whole) in rows.rows().zip(plain.rows()) {
            let cut = &whole[..8];
            let scale = if options.normalize == Some(false) { 1.0 } else { length(cut) };
            for (value, of_whole) in row.iter().zip(cut) {
                assert!((value * scale - of_whole).abs() < 1e-6, "{options:?}");
            }
        }
    }
    let status = daemon.status();
    assert_eq!((status.cache.entries, status.cache.misses), (50, 50));
    assert_eq!(bits(&model.embed(&texts).unwrap()), bits(&plain));
}

#[test]
fn rows_that_the_folder_cuts_are_normalised_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let [cut, whole] = ["cut", "whole"].map(|name| tiny_model(&folder.path().join(name)));
    let settings = r#"{"truncate_dim": 8}"#;
    std::fs::write(cut.join("config_sentence_transformers.json"), settings).unwrap();
    let model = |id: &str, folder: &Path, dimension: &str| {
        format!("[models.{id}]\ntype = \"embedding\"\nlocal_path = {folder:?}\n{dimension}\n")
    };
    let settings =
        [model("cut", &cut, ""), model("whole", &whole, ""), model("set", &cut, "dimension = 8")];
    let daemon = Daemon::with_settings(&settings.concat());
    for (model, is_long) in [("cut", false), ("whole", true), ("set", true)] {
        assert_eq!(daemon.model(model).info().normalized, is_long, "{model}");
    }
    let texts = texts(10);
    let whole = daemon.model("whole").embed(&texts).unwrap();
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let of_8 = EmbedOptions { dimension: Some(8), ..EmbedOptions::default() };
    let of_length_1 = EmbedOptions { normalize: Some(true), ..EmbedOptions::default() };
    let as_made = EmbedOptions { normalize: Some(false), ..EmbedOptions::default() };
    for (model, options, is_long) in [
        ("cut", EmbedOptions::default(), false),
        ("cut", as_made, false),
        ("cut", of_8, true),
        ("cut", of_length_1, true),
        ("set", EmbedOptions::default(), true),
    ] {
        let rows = daemon.model(model).embed_with(&texts, &options).unwrap();
        assert_eq!(rows.dimension(), 8);
        for (row, whole) in rows.rows().zip(whole.rows()) {
            if is_long {
                assert!((length(row) - 1.0).abs() < 1e-6, "{model} {options:?}: {row:?}");
            } else {
                assert_eq!(row, &whole[..8], "{model} {options:?}");
                assert!(length(row) < 0.95, "{row:?}");
            }
        }
    }
}

#[test]
fn rows_are_normalised_on_request() {
    let daemon = daemon_with("bert-max-nonorm");
    let model = daemon.model("tiny");
    assert_eq!(model.info().similarity.as_deref(), Some("dot"));
    assert!(!model.info().normalized);
    let lengths = |normalize| -> Vec<f32> {
        let options = EmbedOptions { normalize, ..EmbedOptions::default() };
        let rows = model.embed_with(&texts(5), &options).unwrap();
        rows.rows().map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
    };
    assert!(lengths(Some(true)).iter().all(|length| (length - 1.0).abs() < 1e-6));
    assert_eq!(lengths(None), lengths(Some(false)));
    assert!(lengths(None).iter().all(|length| (length - 1.0).abs() > 0.1));
}

#[test]
fn a_prompt_is_found_by_its_name_and_cached_by_its_text() {
    let daemon = daemon_with("bert-cls-prompts");
    let model = daemon.model("tiny");
    let prompt = "Represent this sentence for searching relevant passages: ";
    let info = model.info();
    assert_eq!(info.prompts, ["document", "passage", "query"]);
    assert_eq!(info.default_prompt, None);
    let texts = texts(10);
    let prompted: Vec<String> = texts.iter().map(|text| format!("{prompt}{text}")).collect();
    let named = model.embed_with(&texts, &of_prompt(Prompt::Named("query".into()))).unwrap();
    assert_eq!(bits(&named), bits(&model.embed(&prompted).unwrap()));
    // The same prompt by name and as text; and no prompt option means the model's default.
    let same = model.embed_with(&texts, &of_prompt(Prompt::Text(prompt.into()))).unwrap();
    assert_eq!((same.tokens(), bits(&same)), (0, bits(&named)));
    let plain = model.embed(&texts).unwrap();
    assert!(plain.tokens() > 0);
    assert_ne!(bits(&plain), bits(&named));
    let empty = model.embed_with(&texts, &of_prompt(Prompt::Named("passage".into()))).unwrap();
    assert_eq!((empty.tokens(), bits(&empty)), (0, bits(&plain)));
}

/// The first text has a prompt that this model reads but does not pool.
#[test]
fn a_prompt_that_is_not_pooled_is_not_a_part_of_the_text() {
    let daemon = daemon_with("bert-mean-dense-tanh");
    let client = daemon.client();
    let embed = |text: &str, options: &EmbedOptions| {
        client.generate_embeddings_with(&[text], "tiny", options).unwrap().to_vec()
    };
    let joined = embed("query: a text", &EmbedOptions::default());
    let prompted = embed("a text", &of_prompt(Prompt::Text("query: ".into())));
    assert_ne!(joined, prompted);
    assert_eq!(prompted, embed("a text", &of_prompt(Prompt::Named("query".into()))));
}

#[track_caller]
fn refused(model: &EmbeddingModel, options: &EmbedOptions, because: &str) {
    let result = model.embed_with(&["a text"], options);
    let message = result.as_ref().unwrap_err().to_string();
    assert_eq!(code_of(result), ErrorCode::InvalidRequest);
    assert!(message.contains(because), "{message}");
}

#[test]
fn unsupported_options_are_refused_with_the_supported_ones() {
    let daemon = daemon_with("bert-cls-prompts");
    let model = daemon.model("tiny");
    refused(&model, &of_prompt(Prompt::Named("question".into())), "\"passage\", \"query\"");
    let of_dimension =
        |dimension, element| EmbedOptions { dimension: Some(dimension), ..of_elements(element) };
    for dimension in [0, 37, u32::MAX] {
        refused(&model, &of_dimension(dimension, ElementType::F32), "1 to 36");
    }
    refused(&model, &of_elements(ElementType::Binary), "multiple of 8");
    refused(&model, &of_dimension(20, ElementType::Ubinary), "multiple of 8");
    let ranges = |columns, step| {
        Some(QuantizationRanges { starts: vec![0.0; columns], steps: vec![step; columns] })
    };
    for (element, ranges, because) in [
        (ElementType::F16, ranges(36, 0.1), "only to int8 and uint8"),
        (ElementType::I8, ranges(32, 0.1), "36 columns"),
        (ElementType::U8, ranges(36, f32::NAN), "not finite"),
    ] {
        refused(&model, &EmbedOptions { ranges, ..of_elements(element) }, because);
    }
    assert_eq!(model.embed(&["a text"]).unwrap().dimension(), 36, "the connection lives");
    let inline = Client::builder().inline_only().connect_to(daemon.socket()).unwrap();
    let bytes = of_dimension(32, ElementType::Ubinary);
    let rows = inline.generate_embeddings_with(&texts(3000), "tiny", &bytes).unwrap();
    assert_eq!((rows.is_shared(), rows.as_bytes().len()), (false, 3000 * 4));
}
