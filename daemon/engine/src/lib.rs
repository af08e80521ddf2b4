//! Models on candle: loading, layers, architectures.
//!
//! [`load_folder`] and [`builtin_static_minilm`] make an [`EmbeddingModel`](model::EmbeddingModel);
//! each worker takes its own [`ComputeContext`](model::ComputeContext) over the shared weights.
//!
//! Invariants:
//! - A batch is *packed*: activations are `[total tokens, width]` and no token is padding.
//! - A computer is one thread. It starts no other, and uses no global pool.
//! - After the largest batch has been seen, computing allocates no activation memory.
//! - Weights are read, never mapped: a file cut short later cannot crash the daemon.

pub(crate) mod api;
pub(crate) mod builtin;
pub(crate) mod checkpoint;
pub(crate) mod device_memory;
pub(crate) mod encoder;
pub(crate) mod heads;
pub(crate) mod kernels;
pub(crate) mod layers;
pub(crate) mod load;
pub(crate) mod memory_need;
pub(crate) mod need;
pub(crate) mod seq2seq;
pub(crate) mod side_by_side;
pub(crate) mod tokenizer;

pub use crate::api::embedding::*;
pub use crate::api::generation::*;
pub use crate::builtin::{
    static_minilm as builtin_static_minilm, static_minilm_need as builtin_static_minilm_need,
};
pub use crate::checkpoint::fingerprint::ModelFingerprint;
pub use crate::checkpoint::load_error::{HeaderFault, LoadError, TorchFault};
pub use crate::device_memory::{DeviceMemory, is_out_of_memory};
pub use crate::heads::classifier::{holds_rank_head, load_ranker, load_ranker_as};
pub use crate::heads::masked_lm::{holds_masked_head, load_masked};
pub use crate::heads::pooling::normalize;
pub use crate::load::{holds_model, load_folder, load_folder_on, load_folder_with_ranker};
pub use crate::memory_need::folder_need;
pub use crate::need::Need;
pub use crate::seq2seq::{
    holds_seq2seq, load_seq2seq, seq2seq_need, verbalizer_t5 as builtin_verbalizer_t5,
    verbalizer_t5_need as builtin_verbalizer_t5_need,
};
