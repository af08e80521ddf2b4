//! One frame of every message, with values that can be told apart in the bytes.

use crate::message::Message;
use crate::model_samples;
use crate::status_sample::status;
use emberd_protocol::{
    CacheCleared, Decision, Delivery, ElementType, EmbedOptions, EmbedRequest, Embedded, ErrorCode,
    Event, Failure, Frame, Free, Freed, Hello, LeaseId, Leased, Limits, Method, ModelId, ModelInfo,
    ModelKind, ModelState, ModelSummary, Place, Preloaded, Reason, Refusal, RefusalReason,
    Reloaded, Request, Response, SegmentAnnounce, SegmentBackend, SegmentHandle, SegmentId,
    SegmentRetire, SettingChange, SlotRef, Target, TextBuilder, Verdict, Welcome,
};

/// A message in the frame in which it travels.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Its name in `golden.txt`.
    pub(crate) name: &'static str,
    pub(crate) message: Message,
    pub(crate) frame: Frame,
}

fn sample(name: &'static str, id: u64, message: Message) -> Sample {
    let mut frame = message.frame(id);
    let has_descriptor = matches!(
        message,
        Message::Segment(SegmentAnnounce { handle: SegmentHandle::Descriptor, .. })
    );
    frame.descriptors = u16::from(has_descriptor);
    Sample { name, message, frame }
}

pub(crate) fn with_tail(mut sample: Sample, tail: Vec<u8>) -> Sample {
    sample.frame.tail = tail;
    sample
}

pub(crate) fn request(name: &'static str, id: u64, request: Request) -> Sample {
    sample(name, id, Message::Request(request))
}

pub(crate) fn response(name: &'static str, id: u64, response: Response) -> Sample {
    sample(name, id, Message::Response(response))
}

pub(crate) fn event(name: &'static str, id: u64, event: Event) -> Sample {
    sample(name, id, Message::Event(event))
}

fn refusal(name: &'static str, reason: RefusalReason, message: &str) -> Sample {
    sample(name, 0, Message::Refusal(Refusal { reason, message: message.into() }))
}

pub(crate) fn model(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

pub(crate) fn texts(texts: &[&str]) -> Vec<u8> {
    let mut builder = TextBuilder::default();
    for text in texts {
        builder.push(text).unwrap();
    }
    builder.into_bytes()
}

pub(crate) fn rows(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// All of them, in the order of the golden file.
pub(crate) fn all() -> Vec<Sample> {
    let parts = [
        handshake(),
        requests(),
        care_requests(),
        segments(),
        responses(),
        care_responses(),
        events(),
        model_samples::all(),
    ];
    parts.into_iter().flatten().collect()
}

fn handshake() -> Vec<Sample> {
    let hello = |name: &str, accepts_segments| {
        Message::Hello(Hello { name: name.into(), accepts_segments })
    };
    let welcome = |backend| {
        Message::Welcome(Welcome {
            daemon_version: "0.1.0".into(),
            daemon_pid: 4711,
            backend,
            limits: Limits {
                max_texts: 131_072,
                max_frame_bytes: 33_554_432,
                max_requests_in_flight: 64,
                max_leases: 1024,
                inline_bytes: 32_768,
                credit_bytes: 268_435_456,
            },
        })
    };
    vec![
        sample("hello", 0, hello("demo", true)),
        sample("hello-inline-only", 0, hello("", false)),
        sample("welcome", 0, welcome(SegmentBackend::Memfd)),
        sample("welcome-posix", 0, welcome(SegmentBackend::Posix)),
        refusal("refusal-version", RefusalReason::Version, "speak version 3"),
        refusal("refusal-not-permitted", RefusalReason::NotPermitted, "not you"),
        refusal("refusal-too-many-connections", RefusalReason::TooManyConnections, "full"),
        refusal("refusal-shutting-down", RefusalReason::ShuttingDown, "stopping"),
        refusal("refusal-no-hello", RefusalReason::NoHello, "say Hello first"),
    ]
}

fn requests() -> Vec<Sample> {
    let acquire = |model_id, kind, events| {
        let model = model(model_id);
        Request::Acquire { model, kind, events }
    };
    let embed = |target, texts, delivery| {
        let options = EmbedOptions::default();
        Request::Embed(EmbedRequest { target, texts, delivery, options })
    };
    let by_lease = embed(Target::Lease(LeaseId(7)), 2, Delivery::Auto);
    let by_model = embed(Target::Model(model("builtin")), 1, Delivery::Inline);
    vec![
        request("request-ping", 1, Request::Ping),
        request("request-acquire", 2, acquire("builtin", Some(ModelKind::Embedding), false)),
        request("request-acquire-text2text", 3, acquire("t5", Some(ModelKind::Text2Text), false)),
        request("request-acquire-any", 4, acquire("m", None, true)),
        request("request-release", 5, Request::Release { lease: LeaseId(7) }),
        with_tail(request("request-embed", 6, by_lease), texts(&["ember", "glüht"])),
        with_tail(request("request-embed-by-model", 7, by_model), texts(&["hi"])),
        request("request-available-models", 8, Request::AvailableModels),
        request("request-model-config", 9, Request::ModelConfig { model: model("embedding") }),
        request("request-status", 10, Request::Status),
        sample("cancel", 6, Message::Cancel),
    ]
}

/// What those ask who look after the daemon.
fn care_requests() -> Vec<Sample> {
    let preload = |events| Request::Preload { model: model("embedding"), events };
    vec![
        request("request-preload", 11, preload(false)),
        request("request-preload-with-events", 12, preload(true)),
        request("request-unload", 13, Request::Unload { model: model("embedding") }),
        request("request-cleanup-unused-models", 14, Request::CleanupUnusedModels),
        request("request-clear-embedding-cache", 15, Request::ClearEmbeddingCache),
        request("request-reload", 16, Request::Reload),
        request("request-why", 17, Request::Why { model: model("embedding") }),
        request("request-plan", 18, Request::Plan { model: model("embedding") }),
    ]
}

const SLOT: SlotRef =
    SlotRef { segment: SegmentId(1), offset: 128, len_bytes: 1_536_000, generation: 9 };

fn segments() -> Vec<Sample> {
    let announce = |segment, handle| {
        let len_bytes = 4 << 20;
        Message::Segment(SegmentAnnounce { segment: SegmentId(segment), len_bytes, handle })
    };
    let name = SegmentHandle::Name("/emberd-4711-1".into());
    vec![
        sample("segment", 0, announce(1, SegmentHandle::Descriptor)),
        sample("segment-posix", 0, announce(2, name)),
        sample("free", 0, Message::Free(Free { slots: vec![SLOT] })),
        sample("retire", 0, Message::Retire(SegmentRetire { segment: SegmentId(1) })),
    ]
}

fn responses() -> Vec<Sample> {
    let failure =
        Failure::retryable(ErrorCode::Overloaded, "4096 texts are queued: try again later");
    let embedded = |rows, dimension, place, truncated: &[u32]| {
        Response::Embedded(Embedded {
            rows,
            dimension,
            element: ElementType::F32,
            place,
            tokens: 11,
            truncated: truncated.into(),
            ranges: None,
        })
    };
    let two_models =
        summaries().into_iter().filter(|model| ["c", "g"].contains(&model.id.as_str())).collect();
    let inline = embedded(2, 2, Place::Inline, &[]);
    let pairs =
        [("device", "\"cpu\""), ("type", "\"embedding\"")].map(|(k, v)| (k.into(), v.into()));
    vec![
        response("response-failed", 6, Response::Failed(failure)),
        response("response-pong", 1, Response::Pong),
        response("response-leased", 2, Response::Leased(leased("builtin", ModelKind::Embedding))),
        response("response-released", 5, Response::Released),
        with_tail(response("response-embedded", 6, inline), rows(&[1.0, 0.0, 0.6, -0.8])),
        response("response-embedded-slot", 6, embedded(1000, 384, Place::Slot(SLOT), &[3])),
        response("response-available-models", 8, Response::AvailableModels(two_models)),
        response("response-model-states", 8, Response::AvailableModels(summaries())),
        response("response-model-config", 9, Response::ModelConfig(pairs.into())),
        response("response-status", 10, Response::Status(Box::new(status()))),
    ]
}

/// What they are answered.
fn care_responses() -> Vec<Sample> {
    let preloaded = Preloaded { was_loaded: false, load_ms: 4_200 };
    let freed = |models: &[&str], bytes| {
        Response::Freed(Freed { models: models.iter().map(|id| model(id)).collect(), bytes })
    };
    let cleared = CacheCleared { entries: 6_001, bytes: 6_002 };
    let change = |key: &str, value: &str, effect: &str| SettingChange {
        key: key.into(),
        value: value.into(),
        effect: effect.into(),
    };
    let reloaded = Reloaded {
        changed: vec![change("models.embedding.idle_seconds", "60", "now")],
        unchanged: vec![change("segments.backend", "", "with the next start")],
    };
    vec![
        response("response-preloaded", 11, Response::Preloaded(preloaded)),
        response("response-freed", 13, freed(&["embedding"], 90_000_000)),
        response("response-freed-nothing", 14, freed(&[], 0)),
        response("response-cache-cleared", 15, Response::CacheCleared(cleared)),
        response("response-reloaded", 16, Response::Reloaded(reloaded)),
        response("response-decisions", 17, Response::Decisions(decisions())),
    ]
}

/// A decision of each kind, so that the file holds the position of each.
fn decisions() -> Vec<Decision> {
    let evicts = |verdict| if verdict == Verdict::Load { vec![model("old")] } else { vec![] };
    let verdicts = [
        (Verdict::Load, 7_001),
        (Verdict::Wait, 7_002),
        (Verdict::Refuse, 7_003),
        (Verdict::Evict, 7_004),
        (Verdict::Unload, 7_005),
        (Verdict::Fail, 7_006),
        (Verdict::Stay, 0),
    ];
    let decision = |(verdict, age_ms)| Decision {
        model: model("embedding"),
        verdict,
        device: "cuda:0".into(),
        need_bytes: 90_000_000,
        evicts: evicts(verdict),
        reasons: vec![Reason("100 MB are free".into())],
        age_ms,
    };
    verdicts.map(decision).into()
}

fn events() -> Vec<Sample> {
    let fetching =
        Event::Fetching { file: "model.safetensors".into(), done_bytes: 8_001, total_bytes: 8_002 };
    vec![
        event("event-fetching", 12, fetching),
        event("event-waiting-for-room", 12, Event::WaitingForRoom),
        event("event-reading", 12, Event::Reading { need_bytes: 8_003 }),
    ]
}

pub(crate) fn leased(id: &str, kind: ModelKind) -> Leased {
    Leased {
        lease: LeaseId(7),
        model: ModelInfo {
            id: model(id),
            kind,
            methods: vec![Method::Embed],
            architecture: "static".into(),
            device: "cpu".into(),
            dimension: 256,
            max_tokens: 512,
            normalized: true,
            max_output_tokens: 0,
            prompts: vec![],
            default_prompt: None,
            similarity: Some("cosine".into()),
            labels: vec![],
            weight_bytes: 4_600_000,
        },
    }
}

/// A model in each state, so that the file holds the position of each.
fn summaries() -> Vec<ModelSummary> {
    let states = [
        ("a", ModelState::Configured),
        ("b", ModelState::Loading),
        ("c", ModelState::Ready),
        ("d", ModelState::Idle),
        ("e", ModelState::Draining),
        ("f", ModelState::Unloading),
        ("g", ModelState::Failed),
    ];
    let summary = |(id, state)| ModelSummary {
        id: model(id),
        model_type: "embedding".into(),
        source: format!("/m/{id}"),
        state,
        failure: (state == ModelState::Failed).then(|| "no file".into()),
    };
    states.map(summary).into()
}
