//! Generating texts from texts.
//!
//! ```text
//! GenerateOptions ─▶ GenerationConfig ─▶ TextQueue ─▶ TextWorker: a continuous batch over a Decoder
//!                                                        └▶ TextState: LogitsProcessors, then
//!                                                           greedy, sampled or beam search
//! ```
//! The algorithms are those of transformers 4.57 and choose the same tokens for the same logits.
//! They are pure; only `batch` and `running` know the engine.

mod batch;
mod beam;
mod config;
mod detokenizer;
mod logits_processors;
mod option_checks;
mod option_error;
mod queue;
mod running;
mod sampler;
mod text_state;
mod text_work;
mod text_worker;

pub use crate::batching::generation::config::{GenerationConfig, GenerationLimits};
pub use crate::batching::generation::option_error::OptionError;
pub use crate::batching::generation::queue::{PieceSink, TextHandle, TextJob, TextQueue};
pub use crate::batching::generation::text_work::TextWork;
pub use crate::batching::generation::text_worker::TextWorker;
pub use crate::batching::queue::QueueError;
pub use crate::batching::text_job::TextError;
