//! The engine against what the reference implementations answer, and against damaged files.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "in a test, and in what tests share, a panic is the report"
)]

/// The folder of tiny models.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Rows and token ids equal those of transformers, sentence-transformers and numpy.
mod parity;

/// A row does not depend on the company, the worker or the memory that it is computed in.
mod company;

/// Scores of pairs equal those of transformers.
mod rank;

/// What stands at masks equals what transformers says.
mod masks;

/// An architecture without reference data, against its definition.
mod nomic;

/// What each architecture understands of its settings and its names, and what it refuses.
mod architectures;

/// What the files of a model may say, and how they are understood.
mod folders;

/// Tables of token rows: what stands beside the table, and how their texts are cut.
mod static_tables;

/// Folders as newer versions of the libraries write them.
mod newer_library;

/// Damaged and foreign files are typed errors that name the file.
mod load_errors;

/// Encoder-decoders: what they read, compute and keep between steps.
mod seq2seq;

/// Damaged and foreign files of encoder-decoders are typed errors that name the file.
mod seq2seq_errors;

/// Tokenizers that are models of sentencepiece.
mod sentencepiece;

/// Weights in several files, and as torch writes them.
mod weights;

mod support;
mod test_data;
mod torch;
