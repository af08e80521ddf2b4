//! Machine learning models on candle: loads them from folders and computes with them.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! let model = emberd_engine::load_folder(Path::new("all-MiniLM-L6-v2"))?;
//! let mut context = Arc::clone(&model).compute_context();
//!
//! let sequence = model.tokenize("One row of numbers for this text.")?;
//! let mut row = vec![0.0; model.spec().dimension];
//! context.compute(&[&sequence], &mut [&mut row])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! There are four kinds of models: [`EmbeddingModel`] computes rows for texts, [`RankHead`] scores pairs
//! of texts, [`Seq2SeqModel`] generates texts, and [`MaskedModel`] finds tokens for masks.
//!
//! The engine knows no runtime, socket, lease or setting: batches come from its caller, which also
//! decides which models to load, from [`Need`] and [`DeviceMemory`].
//!
//! Invariants:
//! - A batch is *packed*: activations are `[total tokens, width]`, and no token is padding.
//! - A [`ComputeContext`] computes on the calling thread. It starts no thread, and uses no global pool.
//! - Once the largest batch has been seen, computing allocates no memory for activations.
//! - Weights are read, never mapped: a file that is truncated later cannot crash the process.

mod api;
mod builtin;
mod checkpoint;
mod device_memory;
mod encoder;
mod heads;
mod kernels;
mod layers;
mod load;
mod memory_need;
mod seq2seq;
mod side_by_side;
mod tokenizer;

pub use crate::api::embedding::{ComputeContext, EmbeddingModel};
pub use crate::api::error::ComputeError;
pub use crate::api::generation::{Decoder, EncoderOutputId, HypothesisId, Seq2SeqModel};
pub use crate::api::generation_defaults::{GenerationDefaults, LogitsSettings, SamplingLimits};
pub use crate::api::masks::{MaskContext, MaskScores, MaskedModel};
pub use crate::api::need::Need;
pub use crate::api::parts::ModelParts;
pub use crate::api::rank::RankHead;
pub use crate::api::sequence::Sequence;
pub use crate::api::spec::ModelSpec;
pub use crate::api::weight_type::WeightType;
pub use crate::builtin::{
    static_minilm as builtin_static_minilm, static_minilm_need as builtin_static_minilm_need,
};
pub use crate::checkpoint::fingerprint::ModelFingerprint;
pub use crate::checkpoint::head_kind::{holds_masked_head, holds_rank_head};
pub use crate::checkpoint::load_error::{HeaderFault, LoadError, TorchFault};
pub use crate::device_memory::{DeviceMemory, is_out_of_memory};
pub use crate::heads::masked_lm::load_masked;
pub use crate::heads::pooling::normalize;
pub use crate::heads::ranker::{load_ranker, load_ranker_as};
pub use crate::load::{holds_model, load_folder, load_folder_on, load_folder_with_ranker};
pub use crate::memory_need::folder_need;
pub use crate::seq2seq::{
    holds_seq2seq, load_seq2seq, seq2seq_need, verbalizer_t5 as builtin_verbalizer_t5,
    verbalizer_t5_need as builtin_verbalizer_t5_need,
};
