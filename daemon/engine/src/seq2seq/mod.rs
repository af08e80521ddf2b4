//! Encoder-decoders: T5, BART and Marian, with what their folders say about generating.
//!
//! [`t5`] and [`bart`] know the configurations and the names of the weights; [`network`] is what
//! they have in common. A [`Decoder`](crate::api::generation::Decoder) computes with a team of threads:
//! [`encode`] and [`step`] are what each of them does. Everything that is kept lies in [`cache`].
//!
//! Nothing here is a candle tensor: a step of one token is bound by how fast weights come from
//! memory, and slices are what is cut most freely between threads.

pub(crate) mod attend;
pub(crate) mod bart;
pub(crate) mod codec;
pub(crate) mod decoder;
pub(crate) mod defaults;
pub(crate) mod encode;
pub(crate) mod exchange;
pub(crate) mod feed;
pub(crate) mod files;
pub(crate) mod kv_cache;
pub(crate) mod loader;
pub(crate) mod matrix;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod norm;
pub(crate) mod step;
pub(crate) mod t5;

use std::path::Path;
use std::sync::Arc;

use crate::seq2seq::files::Files;
use crate::seq2seq::model::{Family, load};

use crate::api::generation::Seq2SeqModel;
use crate::checkpoint::load_error::LoadError;
use crate::need::Need;

/// Loads an encoder-decoder from a transformers folder.
///
/// Blocks while it reads; the tokenizer and the weights are read side by side.
///
/// # Errors
/// See [`LoadError`]; each names the file at fault.
pub fn load_seq2seq(path: &Path) -> Result<Arc<dyn Seq2SeqModel>, LoadError> {
    Ok(Arc::new(load(&Files::open(path)?)?))
}

/// `builtin:verbalizer-t5`, a little T5 inside the program that turns number words into digits and
/// back, and dates into their ISO form.
///
/// # Errors
/// None that is not a mistake in this program: the files are part of it.
pub fn verbalizer_t5() -> Result<Arc<dyn Seq2SeqModel>, LoadError> {
    Ok(Arc::new(load(&Files::verbalizer_t5()?)?))
}

/// Whether a folder says that it holds an encoder-decoder of a kind that can be loaded.
#[must_use]
pub fn holds_seq2seq(path: &Path) -> bool {
    Family::of_folder(path).is_ok()
}

/// What the encoder-decoder of a folder takes in memory with so many threads: its weights as they
/// will lie there, its tokenizer, and what is kept for eight inputs of 512 tokens and eight answers
/// of 128. Reads headers and settings alone.
///
/// # Errors
/// As [`load_seq2seq`], where the folder itself is at fault.
pub fn seq2seq_need(path: &Path, threads: usize) -> Result<Need, LoadError> {
    model::need(&Files::open(path)?, threads)
}

/// What [`verbalizer_t5`] takes in memory, as [`seq2seq_need`] counts it.
///
/// # Errors
/// None that is not a mistake in this program: the files are part of it.
pub fn verbalizer_t5_need(threads: usize) -> Result<Need, LoadError> {
    model::need(&Files::verbalizer_t5()?, threads)
}
