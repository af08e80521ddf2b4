//! The engine against the results of reference implementations, and against damaged files.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "in a test, and in what tests share, a panic is the report"
)]

/// The folder of tiny models.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Rows and token ids equal those of transformers, sentence-transformers and numpy.
mod parity;

/// A row does not depend on its batch, its worker, or the memory that it is computed in.
mod company;

/// Scores of pairs equal those of transformers.
mod rank;

/// The candidates for masks equal those of transformers.
mod masks;

/// An architecture without reference data, against its definition.
mod nomic;

/// The settings and tensor names that each architecture supports, and those that it refuses.
mod architectures;

/// The settings in the files of a folder.
mod folders;

/// Static models: the tensors beside the table, and how texts are truncated.
mod static_tables;

/// Folders in the form of newer versions of the libraries.
mod newer_library;

/// Damaged and foreign files are typed errors that name the file.
mod load_errors;

/// Encoder-decoders: their files, their logits, and their state between steps.
mod seq2seq;

/// Damaged and foreign files of encoder-decoders are typed errors that name the file.
mod seq2seq_errors;

/// Tokenizers from sentencepiece models.
mod sentencepiece;

/// Weights in several files, and in torch's format.
mod weights;

mod support;
mod test_data;
mod torch;
