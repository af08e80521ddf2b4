//! Models on candle: loading, layers, architectures.
//!
//! [`load_folder`] and [`builtin_static_minilm`] make an [`EmbeddingModel`](model::EmbeddingModel);
//! each worker takes its own [`Computer`](model::Computer) over the shared weights.
//!
//! Invariants:
//! - A batch is *packed*: activations are `[total tokens, width]` and no token is padding.
//! - A computer is one thread. It starts no other, and uses no global pool.
//! - After the largest batch has been seen, computing allocates no activation memory.
//! - Weights are read, never mapped: a file cut short later cannot crash the daemon.

mod architecture;
mod builtin;
mod device_memory;
mod encoder;
mod fingerprint;
mod folder;
mod head;
mod layers;
mod load;
mod load_error;
mod masked;
pub mod model;
mod modules;
mod network;
mod pooling;
mod rank;
mod sentence;
mod sentencepiece;
mod seq2seq;
mod static_table;
mod tail;
mod team;
mod text_limits;
pub mod text_model;
mod token_table;
mod transformer;
mod weights;
mod workspace;

pub use builtin::{
    static_minilm as builtin_static_minilm, static_minilm_need as builtin_static_minilm_need,
};
pub use device_memory::{DeviceMemory, is_out_of_memory};
pub use fingerprint::ModelFingerprint;
pub use load::{folder_need, holds_model, load_folder, load_folder_on, load_folder_with_ranker};
pub use load_error::{HeaderFault, LoadError, TorchFault};
pub use masked::{holds_masked_head, load_masked};
pub(crate) use pooling::normalize;
pub use rank::{holds_rank_head, load_ranker, load_ranker_as};
pub use seq2seq::{
    holds_seq2seq, load_seq2seq, seq2seq_need, verbalizer_t5 as builtin_verbalizer_t5,
    verbalizer_t5_need as builtin_verbalizer_t5_need,
};
