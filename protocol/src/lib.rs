//! The contract between emberd's daemon and its clients.
//!
//! Message types, ids, error codes, framing as pure functions over bytes. This package opens no
//! socket, maps no memory, and knows no model. `docs/protocol.md` says the same for somebody who
//! writes a client in another language.
//!
//! # A conversation
//! The client connects to a stream Unix socket and sends [`Hello`]; the daemon answers [`Welcome`]
//! (with its limits) or [`Refusal`]. From then on the client sends [`Request`]s, each with an id
//! of its own choosing, many at a time if it likes, and the daemon answers each with one
//! [`Response`] that carries that id, in any order, and before it with [`Event`]s where the client
//! asked for them.
//!
//! # Rows
//! A small result rides behind its response ([`Place::Inline`]). A large one lies in shared memory
//! ([`Place::Slot`]): the daemon announces a segment once, with its descriptor
//! ([`SegmentAnnounce`]); responses then point into it; the client says when it is done with a
//! slot ([`Free`]).
//!
//! # Invariants
//! - Nothing is believed: a length is compared with a limit before it is used, and no memory is
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
mod error;
mod event;
mod frame;
mod generation;
mod handshake;
mod id;
mod model;
mod request;
mod response;
mod segment;
mod socket;
mod status;
mod text;

pub use admin::{CacheCleared, Freed, Preloaded, Reloaded, SettingChange};
pub use codec::{CodecError, MAX_BODY_BYTES};
pub use decision::{Decision, Reason, Verdict};
pub use error::{ErrorCode, Failure};
pub use event::Event;
pub use frame::{Decoder, Frame, FrameError, FrameKind, HEADER_BYTES, MAGIC, MAX_FRAME_BYTES};
pub use generation::{
    EarlyStopping, FilledMask, FilledText, FinishReason, GenerateOptions, GenerateRequest,
    Generated, GeneratedSequence, GeneratedText, MaskCandidate, MasksFilled,
};
pub use handshake::{Hello, Limits, PROTOCOL_VERSION, Refusal, RefusalReason, Welcome};
pub use id::{InvalidModelId, LeaseId, MAX_MODEL_ID_BYTES, ModelId, SegmentId};
pub use model::{Method, ModelInfo, ModelKind, ModelState, ModelSummary};
pub use request::{
    Delivery, EmbedOptions, EmbedRequest, FillMaskRequest, Pairing, Prompt, Request, RerankRequest,
    ScoreActivation, Target,
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
pub use text::{MAX_TEXTS, TextBlock, TextBlockError, TextBuilder};
