//! The contract between emberd's daemon and its clients.
//!
//! Message types, ids, error codes, and framing as pure functions over bytes. This package opens no
//! socket, maps no memory, and knows no model. `docs/protocol.md` describes the same for authors of
//! clients in other languages.
//!
//! # A conversation
//! The client connects to a stream Unix socket and sends [`Hello`]; the daemon answers [`Welcome`]
//! (with its limits) or [`Refusal`]. From then on the client sends [`Request`]s, each with an id
//! of its own choosing, and may send many at a time. The daemon answers each with one [`Response`]
//! that carries that id, in any order. If the client asked for them, [`Event`]s come before it.
//!
//! # Rows
//! A small result follows its response ([`Place::Inline`]). A large one lies in shared memory
//! ([`Place::Slot`]): the daemon announces a segment once, with its descriptor
//! ([`SegmentAnnounce`]); responses then point into it; the client says when it is done with a
//! slot ([`Free`]).
//!
//! # Invariants
//! - Nothing is trusted: a length is compared with a limit before it is used, and no memory is
//!   reserved for bytes that have not arrived.
//! - A frame that breaks a rule ends the connection; a request that breaks a rule ends with a
//!   [`Failure`].
//! - Enums are encoded by position. A change of any message is a change of [`PROTOCOL_VERSION`];
//!   the golden bytes in `tests/golden.txt` make it a deliberate act.
//!
//! ```
//! use emberd_protocol::{Decoder, Frame, FrameKind, ModelId, Request};
//!
//! let request = Request::ModelConfig { model: ModelId::new("embedding")? };
//! let frame = Frame::message(FrameKind::Request, 7, &request)?;
//!
//! let mut decoder = Decoder::default();
//! decoder.feed(&frame.to_bytes());
//! let arrived = decoder.next()?.expect("a whole frame was fed");
//! assert_eq!(arrived.id, 7);
//! assert_eq!(arrived.decode::<Request>()?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod admin;
mod bounded;
mod codec;
mod decision;
mod decoder;
mod error;
mod event;
mod frame;
mod frame_error;
mod frame_kind;
mod generation;
mod handshake;
mod header;
mod id;
mod limits;
mod model;
mod request;
mod response;
mod segment;
mod socket;
mod status;
mod target;
mod text;

pub use admin::{CacheCleared, Freed, Preloaded, Reloaded, SettingChange};
pub use codec::CodecError;
pub use decision::{Decision, Reason, Verdict};
pub use decoder::Decoder;
pub use error::{ErrorCode, Failure};
pub use event::Event;
pub use frame::Frame;
pub use frame_error::FrameError;
pub use frame_kind::FrameKind;
pub use generation::{
    EarlyStopping, FilledMask, FilledText, FinishReason, GenerateOptions, GenerateRequest,
    Generated, GeneratedSequence, GeneratedText, MaskCandidate, MasksFilled,
};
pub use handshake::{Hello, Limits, PROTOCOL_VERSION, Refusal, RefusalReason, Welcome};
pub use header::{HEADER_BYTES, MAGIC};
pub use id::{InvalidModelId, LeaseId, MAX_MODEL_ID_BYTES, ModelId, SegmentId};
pub use limits::{MAX_BODY_BYTES, MAX_FRAME_BYTES};
pub use model::{Method, ModelInfo, ModelKind, ModelState, ModelSummary};
pub use request::{
    Delivery, EmbedOptions, EmbedRequest, FillMaskRequest, Pairing, Prompt, Request, RerankRequest,
    ScoreActivation,
};
pub use response::{Embedded, Leased, Reranked, Response};
pub use segment::{
    ElementType, Free, Place, QuantizationRanges, SLOT_ALIGNMENT, SegmentAnnounce, SegmentBackend,
    SegmentHandle, SegmentRetire, SlotRef, rows_len_bytes,
};
pub use socket::{SocketPaths, default_socket_paths};
pub use status::{
    CacheStatus, ConnectionStatus, DaemonStatus, DeviceStatus, LatencyStatus, LeaseStatus,
    ModelStatus, SegmentStatus, Status,
};
pub use target::Target;
pub use text::{MAX_TEXTS, TextBlock, TextBlockError, TextBuilder};
