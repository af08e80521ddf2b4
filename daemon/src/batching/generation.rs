//! Texts from texts.
//!
//! ```text
//! GenerateOptions ─▶ GenerationConfig ─▶ TextQueue ─▶ TextWorker: one changing batch over a Decoder
//!                                                        └▶ Making: rules → greedy, drawn or beams
//! ```
//! The algorithms are those of transformers 4.57: the same tokens, as far as the logits are the
//! same. They are pure; only `batch` knows the engine.

pub(crate) mod batch;
pub(crate) mod beam;
pub(crate) mod config;
pub(crate) mod making;
pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod rules;
pub(crate) mod running;
pub(crate) mod sampler;

pub use crate::batching::generation::batch::{TextWork, TextWorker};
pub use crate::batching::generation::config::{GenerationConfig, GenerationLimits, OptionError};
pub use crate::batching::generation::queue::{PieceSink, TextJob, TextQueue, TextWaiting};
pub use crate::batching::queue::QueueError;
pub use crate::batching::text_job::TextError;
