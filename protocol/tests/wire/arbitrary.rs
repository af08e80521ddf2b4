//! Any message of any kind, for property tests.

use crate::arbitrary_models::{filled, generate, generated, info, kind, rerank};
use crate::arbitrary_status::status;
use crate::message::Message;
use emberd_protocol::{
    CacheCleared, Decision, Delivery, ElementType, EmbedOptions, EmbedRequest, Embedded, ErrorCode,
    Event, Failure, FillMaskRequest, Free, Freed, Hello, LeaseId, Leased, Limits, ModelId,
    ModelState, ModelSummary, Place, Preloaded, Prompt, QuantizationRanges, Reason, Refusal,
    RefusalReason, Reloaded, Request, Reranked, Response, SegmentAnnounce, SegmentBackend,
    SegmentHandle, SegmentId, SegmentRetire, SettingChange, SlotRef, Target, Verdict, Welcome,
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

/// A number that is equal to itself, so that messages can be compared.
pub(crate) fn float() -> impl Strategy<Value = f32> {
    proptest::num::f32::ANY.prop_filter("equal to itself", |value| !value.is_nan())
}

pub(crate) fn target() -> impl Strategy<Value = Target> {
    prop_oneof![lease().prop_map(Target::Lease), model_id().prop_map(Target::Model)]
}

fn ranges() -> impl Strategy<Value = QuantizationRanges> {
    (vec(float(), 0..9), vec(float(), 0..9))
        .prop_map(|(starts, steps)| QuantizationRanges { starts, steps })
}

fn element() -> impl Strategy<Value = ElementType> {
    use ElementType::{Binary, F16, F32, I8, U8, Ubinary};
    select(vec![F32, F16, I8, U8, Binary, Ubinary])
}

fn embed_options() -> impl Strategy<Value = EmbedOptions> {
    let prompt = prop_oneof![
        Just(Prompt::Default),
        text().prop_map(Prompt::Named),
        text().prop_map(Prompt::Text),
    ];
    let maybe = (option::of(any::<bool>()), option::of(any::<u32>()), option::of(ranges()));
    (prompt, maybe, element()).prop_map(|(prompt, (normalize, dimension, ranges), element)| {
        EmbedOptions { prompt, normalize, dimension, element, ranges }
    })
}

fn request() -> impl Strategy<Value = Request> {
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
        (target(), any::<u32>(), delivery, embed_options()).prop_map(
            |(target, texts, delivery, options)| {
                Request::Embed(EmbedRequest { target, texts, delivery, options })
            }
        ),
        rerank().prop_map(Request::Rerank),
        generate().prop_map(Request::Generate),
        (target(), any::<(u32, u32)>()).prop_map(|(target, (texts, top_k))| {
            Request::FillMask(FillMaskRequest { target, texts, top_k })
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
        (any::<(u32, u64)>(), vec(text(), 0..4), vec(any::<u32>(), 0..9)).prop_map(
            |((pairs, tokens), labels, truncated)| {
                Response::Reranked(Reranked { pairs, labels, tokens, truncated })
            }
        ),
        generated().prop_map(Response::Generated),
        filled().prop_map(Response::MasksFilled),
    ]
}

fn embedded() -> impl Strategy<Value = Embedded> {
    let place = prop_oneof![Just(Place::Inline), slot().prop_map(Place::Slot)];
    let truncated = vec(any::<u32>(), 0..99);
    (any::<(u32, u32, u64)>(), element(), place, truncated, option::of(ranges())).prop_map(
        |((rows, dimension, tokens), element, place, truncated, ranges)| Embedded {
            rows,
            dimension,
            element,
            place,
            tokens,
            truncated,
            ranges,
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
        (any::<(u32, u32)>(), text()).prop_map(|((text, tokens), piece)| Event::Piece {
            text,
            piece,
            tokens
        }),
    ]
}
