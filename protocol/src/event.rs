//! What happens to a request before its answer.

use crate::bounded;
use serde::{Deserialize, Serialize};

/// News of a request that takes long, for those who asked for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A model's files are being fetched from the hub.
    Fetching {
        /// The file that arrives.
        #[serde(deserialize_with = "bounded::string")]
        file: String,
        /// Bytes of all files that are here.
        done_bytes: u64,
        /// Bytes of all files.
        total_bytes: u64,
    },
    /// The model waits for room: others are on their way out, or have work to end.
    WaitingForRoom,
    /// Its weights are read into memory.
    Reading {
        /// What they will take there, by their headers; 0 where that is not known.
        need_bytes: u64,
    },
    /// The next piece of a text that is being made: whole characters, in order. Together the pieces
    /// are the text of the answer. None is left out.
    Piece {
        /// The text of the request, by position.
        text: u32,
        /// What comes next.
        #[serde(deserialize_with = "bounded::string")]
        piece: String,
        /// Tokens that were made for this text so far.
        tokens: u32,
    },
}
