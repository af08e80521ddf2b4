//! Any message of any kind, for property tests.

use crate::message::Message;
use emberd_protocol::{
    ConnectionStatus, DaemonStatus, Delivery, ElementType, EmbedRequest, Embedded, ErrorCode,
    Failure, Free, Hello, LeaseId, LeaseStatus, Leased, Limits, ModelId, ModelInfo, ModelKind,
    ModelState, ModelStatus, ModelSummary, Place, Refusal, RefusalReason, Request, Response,
    SegmentAnnounce, SegmentBackend, SegmentHandle, SegmentId, SegmentRetire, SegmentStatus,
    SlotRef, Status, Target, Welcome,
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
    ]
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn model_id() -> impl Strategy<Value = ModelId> {
    "[A-Za-z0-9._-]{1,128}".prop_map(|id| ModelId::new(id).unwrap())
}

fn kind() -> impl Strategy<Value = ModelKind> {
    select(vec![ModelKind::Embedding, ModelKind::Text2Text])
}

fn state() -> impl Strategy<Value = ModelState> {
    use ModelState::{Configured, Draining, Failed, Idle, Loading, Ready, Unloading};
    select(vec![Configured, Loading, Ready, Idle, Draining, Unloading, Failed])
}

fn backend() -> impl Strategy<Value = SegmentBackend> {
    select(vec![SegmentBackend::Memfd, SegmentBackend::Posix])
}

fn lease() -> impl Strategy<Value = LeaseId> {
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
        select(vec![Request::Ping, Request::AvailableModels, Request::Status]),
        (model_id(), option::of(kind())).prop_map(|(model, kind)| Request::Acquire { model, kind }),
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
    ]
}

fn info() -> impl Strategy<Value = ModelInfo> {
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

fn status() -> impl Strategy<Value = Status> {
    let daemon =
        (text(), any::<(u32, u64, u64, u64)>()).prop_map(|(version, numbers)| DaemonStatus {
            version,
            pid: numbers.0,
            uptime_ms: numbers.1,
            resident_bytes: numbers.2,
            requests: numbers.3,
        });
    let lease = (lease(), model_id(), any::<(u32, u32, u64)>(), text()).prop_map(
        |(lease, model, (pid, uid, age_ms), client)| LeaseStatus {
            lease,
            model,
            pid,
            uid,
            client,
            age_ms,
        },
    );
    let segments =
        (backend(), any::<(u32, u64, u64)>()).prop_map(|(backend, numbers)| SegmentStatus {
            backend,
            segments: numbers.0,
            segment_bytes: numbers.1,
            total_credit_bytes: numbers.2,
        });
    let lists = (vec(model_status(), 0..3), vec(lease, 0..3), vec(connection_status(), 0..3));
    (daemon, lists, segments).prop_map(|(daemon, (models, leases, connections), segments)| Status {
        daemon,
        models,
        leases,
        connections,
        segments,
    })
}

fn model_status() -> impl Strategy<Value = ModelStatus> {
    let words = (text(), text(), option::of(text()));
    let numbers = (any::<[u64; 9]>(), any::<[u32; 2]>(), any::<Option<u64>>());
    (model_id(), words, state(), option::of(info()), numbers).prop_map(
        |(id, (model_type, source, failure), state, info, (long, short, idle_ms))| ModelStatus {
            id,
            model_type,
            source,
            state,
            info,
            failure,
            loads: long[0],
            load_ms: long[1],
            workers: short[0],
            leases: short[1],
            requests: long[2],
            texts: long[3],
            tokens: long[4],
            batches: long[5],
            rows_inline: long[6],
            rows_shared: long[7],
            queued_texts: long[8],
            idle_ms,
        },
    )
}

fn connection_status() -> impl Strategy<Value = ConnectionStatus> {
    (text(), any::<[u64; 4]>(), any::<[u32; 4]>()).prop_map(|(client, long, short)| {
        ConnectionStatus {
            connection: long[0],
            pid: short[0],
            uid: short[1],
            client,
            age_ms: long[1],
            requests_in_flight: short[2],
            segments: short[3],
            segment_bytes: long[2],
            held_bytes: long[3],
        }
    })
}
