//! Texts from texts.
//!
//! ```text
//! GenerateOptions ─▶ GenerationConfig ─▶ TextQueue ─▶ TextWorker: one changing batch over a Decoder
//!                                                        └▶ Making: rules → greedy, drawn or beams
//! ```
//! The algorithms are those of transformers 4.57: the same tokens, as far as the logits are the
//! same. They are pure; only `batch` knows the engine.

mod batch;
mod beam;
mod config;
mod making;
mod queue;
mod reading;
mod rules;
mod running;
mod sampler;

pub use crate::queue::QueueError;
pub use crate::text_job::TextError;
pub use batch::{TextWork, TextWorker};
pub use config::{GenerationConfig, GenerationLimits, OptionError};
pub use queue::{PieceSink, TextJob, TextQueue, TextWaiting};
