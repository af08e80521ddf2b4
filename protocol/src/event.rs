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
}
