//! Events of a request before its answer.

use crate::bounded;
use serde::{Deserialize, Serialize};

/// Progress of a request. Sent only if the request asks for events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A model's files are being fetched from the hub.
    Fetching {
        /// The file that is being fetched.
        #[serde(deserialize_with = "bounded::string")]
        file: String,
        /// Bytes of all files that have arrived.
        done_bytes: u64,
        /// Bytes of all files.
        total_bytes: u64,
    },
    /// The model waits for memory: others are being unloaded, or finish their work first.
    WaitingForRoom,
    /// Its weights are read into memory.
    Reading {
        /// Memory that they will take, according to their headers; 0 if unknown.
        need_bytes: u64,
    },
    /// The next piece of a text that is being generated: whole characters, in order. All pieces
    /// together are the text of the answer.
    Piece {
        /// The position of the text in the request.
        text: u32,
        /// The piece.
        #[serde(deserialize_with = "bounded::string")]
        piece: String,
        /// Tokens generated for this text so far.
        tokens: u32,
    },
}
