//! Messages of what models can do: rows of other kinds, scores, texts, masks.

use crate::samples::{Sample, event, leased, model, request, response, rows, texts, with_tail};
use emberd_protocol::{
    Delivery, EarlyStopping, ElementType, EmbedOptions, EmbedRequest, Embedded, Event,
    FillMaskRequest, FilledMask, FilledText, FinishReason, GenerateOptions, GenerateRequest,
    Generated, GeneratedSequence, GeneratedText, LeaseId, MaskCandidate, MasksFilled, Method,
    ModelInfo, ModelKind, Pairing, Place, Prompt, QuantizationRanges, Request, RerankRequest,
    Reranked, Response, ScoreActivation, Target,
};

const LEASE: Target = Target::Lease(LeaseId(7));

pub(crate) fn all() -> Vec<Sample> {
    let parts = [embedding(), ranking(), generation(), masks(), models()];
    parts.into_iter().flatten().collect()
}

/// Rows that are not as the model makes them: each kind of prompt, each type of value.
fn embedding() -> Vec<Sample> {
    let embed = |prompt, element, ranges| {
        let options =
            EmbedOptions { prompt, normalize: Some(false), dimension: Some(2), element, ranges };
        let embed = EmbedRequest { target: LEASE, texts: 1, delivery: Delivery::Auto, options };
        Request::Embed(embed)
    };
    let named = || Prompt::Named("query".into());
    let text = || Prompt::Text("query: ".into());
    let hi = || texts(&["hi"]);
    let ranges =
        || Some(QuantizationRanges { starts: vec![-1.0, -0.5], steps: vec![0.007_812_5, 0.25] });
    let int8 = Response::Embedded(Embedded {
        rows: 1,
        dimension: 2,
        element: ElementType::I8,
        place: Place::Inline,
        tokens: 3,
        truncated: vec![],
        ranges: ranges(),
    });
    let request = |name, embed| with_tail(request(name, 21, embed), hi());
    vec![
        request("request-embed-f16", embed(named(), ElementType::F16, None)),
        request("request-embed-int8", embed(text(), ElementType::I8, ranges())),
        request("request-embed-uint8", embed(Prompt::Default, ElementType::U8, None)),
        request("request-embed-binary", embed(named(), ElementType::Binary, None)),
        request("request-embed-ubinary", embed(text(), ElementType::Ubinary, None)),
        with_tail(response("response-embedded-int8", 21, int8), vec![0x80, 0x7F]),
    ]
}

fn ranking() -> Vec<Sample> {
    let rerank = |texts, pairs, activation| {
        Request::Rerank(RerankRequest { target: LEASE, texts, pairs, activation })
    };
    let request =
        |name, rerank, behind: &[&str]| with_tail(request(name, 22, rerank), texts(behind));
    let reranked = Response::Reranked(Reranked {
        pairs: 2,
        labels: vec!["LABEL_0".into()],
        tokens: 13,
        truncated: vec![1],
    });
    vec![
        request(
            "request-rerank",
            rerank(3, Pairing::QueryFirst, ScoreActivation::Model),
            &["what glows?", "an ember", "a stone"],
        ),
        request(
            "request-rerank-logits",
            rerank(2, Pairing::Adjacent, ScoreActivation::Identity),
            &["a", "b"],
        ),
        request(
            "request-rerank-sigmoid",
            rerank(2, Pairing::Adjacent, ScoreActivation::Sigmoid),
            &["a", "b"],
        ),
        request(
            "request-rerank-softmax",
            rerank(2, Pairing::Adjacent, ScoreActivation::Softmax),
            &["a", "b"],
        ),
        with_tail(response("response-reranked", 22, reranked), rows(&[0.75, 0.25])),
    ]
}

fn generation() -> Vec<Sample> {
    let generate = |options, stream| {
        Request::Generate(GenerateRequest { target: LEASE, texts: 1, options, stream })
    };
    let beams = |early_stopping| GenerateOptions {
        num_beams: Some(4),
        early_stopping: Some(early_stopping),
        ..GenerateOptions::default()
    };
    let every_option = GenerateOptions {
        max_new_tokens: Some(101),
        min_new_tokens: Some(102),
        num_beams: Some(103),
        num_return_sequences: Some(104),
        length_penalty: Some(1.5),
        early_stopping: Some(EarlyStopping::Yes),
        do_sample: Some(true),
        temperature: Some(0.75),
        top_k: Some(105),
        top_p: Some(0.5),
        seed: Some(106),
        repetition_penalty: Some(1.25),
        no_repeat_ngram_size: Some(107),
        stop: vec!["\n".into()],
    };
    let request = |name, generate| with_tail(request(name, 23, generate), texts(&["number: two"]));
    vec![
        request("request-generate", generate(GenerateOptions::default(), true)),
        request("request-generate-every-option", generate(every_option, false)),
        request("request-generate-beams", generate(beams(EarlyStopping::No), false)),
        request("request-generate-beams-never", generate(beams(EarlyStopping::Never), false)),
        event("event-piece", 23, Event::Piece { text: 0, piece: "2".into(), tokens: 1 }),
        response("response-generated", 23, Response::Generated(generated())),
    ]
}

/// Three sequences, so that the file holds each reason for an end.
fn generated() -> Generated {
    let sequence = |text: &str, ids: &[u32], score, finish| GeneratedSequence {
        text: text.into(),
        ids: ids.into(),
        score,
        finish,
    };
    let sequences = vec![
        sequence("2", &[20, 1], None, FinishReason::End),
        sequence("22", &[20, 20], Some(-0.5), FinishReason::Length),
        sequence("", &[21], None, FinishReason::Stop),
    ];
    Generated { texts: vec![GeneratedText { sequences, input_tokens: 5, truncated: true }] }
}

fn masks() -> Vec<Sample> {
    let fill = Request::FillMask(FillMaskRequest { target: LEASE, texts: 1, top_k: 2 });
    let candidate = |id, text: &str, score| MaskCandidate { id, text: text.into(), score };
    let mask = FilledMask {
        position: 4,
        candidates: vec![candidate(31, "glows", 0.75), candidate(32, "burns", 0.125)],
    };
    let filled =
        MasksFilled { texts: vec![FilledText { masks: vec![mask], truncated: false }], tokens: 6 };
    vec![
        with_tail(request("request-fill-mask", 24, fill), texts(&["an ember [MASK]."])),
        response("response-masks-filled", 24, Response::MasksFilled(filled)),
    ]
}

/// Models of each kind, so that the file holds each kind and each method.
fn models() -> Vec<Sample> {
    let acquire =
        Request::Acquire { model: model("ranker"), kind: Some(ModelKind::Rerank), events: false };
    let mut text = leased("t5", ModelKind::Text2Text);
    text.model = ModelInfo {
        methods: vec![Method::Generate, Method::FillMask],
        architecture: "t5".into(),
        dimension: 0,
        max_output_tokens: 64,
        similarity: None,
        ..text.model
    };
    let mut ranker = leased("ranker", ModelKind::Rerank);
    ranker.model = ModelInfo {
        methods: vec![Method::Embed, Method::Rerank],
        prompts: vec!["query".into(), "passage".into()],
        default_prompt: Some("query".into()),
        labels: vec!["LABEL_0".into()],
        ..ranker.model
    };
    vec![
        request("request-acquire-rerank", 25, acquire),
        response("response-leased-text2text", 3, Response::Leased(text)),
        response("response-leased-rerank", 25, Response::Leased(ranker)),
    ]
}
