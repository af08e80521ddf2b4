//! Any message of any kind, for property tests.

use crate::arbitrary_status::status;
use crate::message::Message;
use emberd_protocol::{
    CacheCleared, Decision, Delivery, ElementType, EmbedRequest, Embedded, ErrorCode, Event,
    Failure, Free, Freed, Hello, LeaseId, Leased, Limits, ModelId, ModelInfo, ModelKind,
    ModelState, ModelSummary, Place, Preloaded, Reason, Refusal, RefusalReason, Reloaded, Request,
    Response, SegmentAnnounce, SegmentBackend, SegmentHandle, SegmentId, SegmentRetire,
    SettingChange, SlotRef, Target, Verdict, Welcome,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

/// Any message, each kind as likely as the others.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (text(), any::<bool>()).prop_map(|(name, accepts_segments)| {
            Message::Hello(Hello { name, accepts_segments })
        }),
        request().prop_map(Message::Request),
        Just(Message::Cancel),
        vec(slot(), 0..20).prop_map(|slots| Message::Free(Free { slots })),
        welcome().prop_map(Message::Welcome),
        refusal().prop_map(Message::Refusal),
        response().prop_map(Message::Response),
        announce().prop_map(Message::Segment),
        any::<u32>()
            .prop_map(|segment| Message::Retire(SegmentRetire { segment: SegmentId(segment) })),
        event().prop_map(Message::Event),
    ]
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

pub(crate) fn model_id() -> impl Strategy<Value = ModelId> {
    "[A-Za-z0-9._-]{1,128}".prop_map(|id| ModelId::new(id).unwrap())
}

fn kind() -> impl Strategy<Value = ModelKind> {
    select(vec![ModelKind::Embedding, ModelKind::Text2Text])
}

pub(crate) fn state() -> impl Strategy<Value = ModelState> {
    use ModelState::{Configured, Draining, Failed, Idle, Loading, Ready, Unloading};
    select(vec![Configured, Loading, Ready, Idle, Draining, Unloading, Failed])
}

pub(crate) fn backend() -> impl Strategy<Value = SegmentBackend> {
    select(vec![SegmentBackend::Memfd, SegmentBackend::Posix])
}

pub(crate) fn lease() -> impl Strategy<Value = LeaseId> {
    any::<u64>().prop_map(LeaseId)
}

fn slot() -> impl Strategy<Value = SlotRef> {
    any::<(u32, u64, u64, u64)>().prop_map(|(segment, offset, len_bytes, generation)| SlotRef {
        segment: SegmentId(segment),
        offset,
        len_bytes,
        generation,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let target = prop_oneof![lease().prop_map(Target::Lease), model_id().prop_map(Target::Model)];
    let delivery = select(vec![Delivery::Auto, Delivery::Inline]);
    prop_oneof![
        select(vec![
            Request::Ping,
            Request::AvailableModels,
            Request::Status,
            Request::CleanupUnusedModels,
            Request::ClearEmbeddingCache,
            Request::Reload,
        ]),
        (model_id(), option::of(kind()), any::<bool>())
            .prop_map(|(model, kind, events)| Request::Acquire { model, kind, events }),
        (model_id(), any::<bool>()).prop_map(|(model, events)| Request::Preload { model, events }),
        model_id().prop_map(|model| Request::Unload { model }),
        model_id().prop_map(|model| Request::Why { model }),
        model_id().prop_map(|model| Request::Plan { model }),
        lease().prop_map(|lease| Request::Release { lease }),
        model_id().prop_map(|model| Request::ModelConfig { model }),
        (target, any::<u32>(), delivery).prop_map(|(target, texts, delivery)| {
            Request::Embed(EmbedRequest { target, texts, delivery })
        }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let limits = any::<(u32, u32, u32, u32, u32, u64)>().prop_map(|limits| Limits {
        max_texts: limits.0,
        max_frame_bytes: limits.1,
        max_requests_in_flight: limits.2,
        max_leases: limits.3,
        inline_bytes: limits.4,
        credit_bytes: limits.5,
    });
    (text(), any::<u32>(), backend(), limits).prop_map(
        |(daemon_version, daemon_pid, backend, limits)| Welcome {
            daemon_version,
            daemon_pid,
            backend,
            limits,
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    use RefusalReason::{NoHello, NotPermitted, ShuttingDown, TooManyConnections, Version};
    let reason = select(vec![Version, NotPermitted, TooManyConnections, ShuttingDown, NoHello]);
    (reason, text()).prop_map(|(reason, message)| Refusal { reason, message })
}

fn announce() -> impl Strategy<Value = SegmentAnnounce> {
    let handle = prop_oneof![Just(SegmentHandle::Descriptor), text().prop_map(SegmentHandle::Name)];
    (any::<(u32, u64)>(), handle).prop_map(|((segment, len_bytes), handle)| SegmentAnnounce {
        segment: SegmentId(segment),
        len_bytes,
        handle,
    })
}

fn response() -> impl Strategy<Value = Response> {
    let failure = (select(ErrorCode::ALL.to_vec()), text(), any::<bool>())
        .prop_map(|(code, message, retryable)| Failure { code, message, retryable });
    prop_oneof![
        failure.prop_map(Response::Failed),
        select(vec![Response::Pong, Response::Released]),
        (lease(), info()).prop_map(|(lease, model)| Response::Leased(Leased { lease, model })),
        embedded().prop_map(Response::Embedded),
        vec(summary(), 0..5).prop_map(Response::AvailableModels),
        vec((text(), text()), 0..9).prop_map(Response::ModelConfig),
        status().prop_map(|status| Response::Status(Box::new(status))),
        any::<(bool, u64)>().prop_map(|(was_loaded, load_ms)| {
            Response::Preloaded(Preloaded { was_loaded, load_ms })
        }),
        (vec(model_id(), 0..5), any::<u64>())
            .prop_map(|(models, bytes)| Response::Freed(Freed { models, bytes })),
        any::<(u64, u64)>().prop_map(|(entries, bytes)| {
            Response::CacheCleared(CacheCleared { entries, bytes })
        }),
        (vec(change(), 0..5), vec(change(), 0..5)).prop_map(|(changed, unchanged)| {
            Response::Reloaded(Reloaded { changed, unchanged })
        }),
        vec(decision(), 0..5).prop_map(Response::Decisions),
    ]
}

pub(crate) fn info() -> impl Strategy<Value = ModelInfo> {
    (model_id(), kind(), text(), text(), any::<(u32, u32, bool, u64)>()).prop_map(
        |(id, kind, architecture, device, numbers)| ModelInfo {
            id,
            kind,
            architecture,
            device,
            dimension: numbers.0,
            max_tokens: numbers.1,
            normalized: numbers.2,
            weight_bytes: numbers.3,
        },
    )
}

fn embedded() -> impl Strategy<Value = Embedded> {
    let place = prop_oneof![Just(Place::Inline), slot().prop_map(Place::Slot)];
    (any::<(u32, u32, u64)>(), place, vec(any::<u32>(), 0..99)).prop_map(
        |((rows, dimension, tokens), place, truncated)| Embedded {
            rows,
            dimension,
            element: ElementType::F32,
            place,
            tokens,
            truncated,
        },
    )
}

fn summary() -> impl Strategy<Value = ModelSummary> {
    (model_id(), text(), text(), state(), option::of(text())).prop_map(
        |(id, model_type, source, state, failure)| ModelSummary {
            id,
            model_type,
            source,
            state,
            failure,
        },
    )
}

fn change() -> impl Strategy<Value = SettingChange> {
    (text(), text(), text()).prop_map(|(key, value, effect)| SettingChange { key, value, effect })
}

fn decision() -> impl Strategy<Value = Decision> {
    use Verdict::{Evict, Fail, Load, Refuse, Stay, Unload, Wait};
    let verdict = select(vec![Load, Wait, Refuse, Evict, Unload, Fail, Stay]);
    let lists = (vec(model_id(), 0..4), vec(text().prop_map(Reason), 0..4));
    (model_id(), verdict, text(), any::<(u64, u64)>(), lists).prop_map(
        |(model, verdict, device, (need_bytes, age_ms), (evicts, reasons))| Decision {
            model,
            verdict,
            device,
            need_bytes,
            evicts,
            reasons,
            age_ms,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (text(), any::<(u64, u64)>()).prop_map(|(file, (done_bytes, total_bytes))| {
            Event::Fetching { file, done_bytes, total_bytes }
        }),
        Just(Event::WaitingForRoom),
        any::<u64>().prop_map(|need_bytes| Event::Reading { need_bytes }),
    ]
}
