//! Encoder-decoders: T5, BART and Marian, with the defaults that their folders set for generating.
//!
//! [`t5`] and [`bart`] know the names of the tensors; [`network`] is what the families have in common.
//! A [`Decoder`](crate::api::generation::Decoder) computes with a team of threads: [`encode`] and
//! [`step`] are what each member does, and [`kv_cache`] is what it keeps from one step to the next.
//!
//! Weights and activations are slices, not candle tensors: a step of one token is bound by memory
//! bandwidth, and slices can be split between threads anywhere.

mod attend;
mod bart;
mod bart_config;
mod codec;
mod decoder;
mod defaults;
mod encode;
mod exchange;
mod family;
mod feed_forward;
mod files;
mod kv_cache;
mod matrix;
mod matrix_reader;
mod model;
mod network;
mod network_config;
mod norm;
mod sizes;
mod step;
mod t5;

use std::path::Path;
use std::sync::Arc;

use crate::api::generation::Seq2SeqModel;
use crate::api::need::Need;
use crate::checkpoint::load_error::LoadError;
use crate::seq2seq::family::Family;
use crate::seq2seq::files::ModelFiles;
use crate::seq2seq::model::EncoderDecoder;

/// Loads an encoder-decoder from a transformers folder.
///
/// Blocks while it reads; the tokenizer and the weights are read at the same time.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_seq2seq(path: &Path) -> Result<Arc<dyn Seq2SeqModel>, LoadError> {
    Ok(Arc::new(EncoderDecoder::load(&ModelFiles::open(path)?)?))
}

/// `builtin:verbalizer-t5`, a small T5 inside the program that turns number words into digits and
/// back, and dates into their ISO form.
///
/// # Errors
/// Only by a mistake in this program: the files are part of it.
pub fn verbalizer_t5() -> Result<Arc<dyn Seq2SeqModel>, LoadError> {
    Ok(Arc::new(EncoderDecoder::load(&ModelFiles::verbalizer_t5()?)?))
}

/// Whether a folder's configuration is that of an encoder-decoder that can be loaded.
#[must_use]
pub fn holds_seq2seq(path: &Path) -> bool {
    Family::of_folder(path).is_ok()
}

/// How much memory the encoder-decoder of a folder takes with a team of `threads`: its weights, its
/// tokenizer, and the state of eight inputs of 512 tokens, each with one hypothesis of 128 tokens.
/// Only configurations and headers are read.
///
/// # Errors
/// As [`load_seq2seq`], if the folder itself is at fault.
pub fn seq2seq_need(path: &Path, threads: usize) -> Result<Need, LoadError> {
    model::need(&ModelFiles::open(path)?, threads)
}

/// How much memory [`verbalizer_t5`] takes, counted as by [`seq2seq_need`].
///
/// # Errors
/// Only by a mistake in this program: the files are part of it.
pub fn verbalizer_t5_need(threads: usize) -> Result<Need, LoadError> {
    model::need(&ModelFiles::verbalizer_t5()?, threads)
}
