//! Shared memory in messages.

use crate::bounded;
use crate::id::SegmentId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Slots begin at multiples of this many bytes.
pub const SLOT_ALIGNMENT: u64 = 64;

/// The type of one value of a row. The small types are those of sentence-transformers'
/// `quantize_embeddings`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    /// 32-bit float, little-endian.
    #[default]
    F32,
    /// 16-bit float, little-endian.
    F16,
    /// A byte from -128 to 127, linear in the range of its column.
    I8,
    /// A byte from 0 to 255, linear in the range of its column.
    U8,
    /// One bit for each value, set if the value is above 0. Eight in a byte, the first one highest,
    /// and 128 is subtracted from the byte (`binary`).
    Binary,
    /// As [`ElementType::Binary`], without the subtraction (`ubinary`).
    Ubinary,
}

impl ElementType {
    /// Bytes of a row of `dimension` values, rounded up to whole bytes.
    #[must_use]
    pub const fn row_bytes(self, dimension: u32) -> u64 {
        let values = dimension as u64;
        match self {
            Self::F32 => 4 * values,
            Self::F16 => 2 * values,
            Self::I8 | Self::U8 => values,
            Self::Binary | Self::Ubinary => values.div_ceil(8),
        }
    }
}

/// Bytes of `rows` rows, or `None` if they exceed `u64`.
#[must_use]
pub fn rows_len_bytes(rows: u32, dimension: u32, element: ElementType) -> Option<u64> {
    u64::from(rows).checked_mul(element.row_bytes(dimension))
}

/// The ranges of quantised rows: in column `i` the smallest number means `starts[i]`, and each further
/// number `steps[i]` more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationRanges {
    /// One for each column.
    #[serde(deserialize_with = "bounded::list")]
    pub starts: Vec<f32>,
    /// One for each column.
    #[serde(deserialize_with = "bounded::list")]
    pub steps: Vec<f32>,
}

/// How segments are made and opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentBackend {
    /// A sealed memfd; its descriptor rides on the announcement.
    Memfd,
    /// A POSIX named segment; its name is in the announcement. Clients copy out of it.
    Posix,
}

impl fmt::Display for SegmentBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memfd => "memfd",
            Self::Posix => "posix",
        })
    }
}

/// A segment of this connection; announced once, before the first slot in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentAnnounce {
    /// Its number from now on.
    pub segment: SegmentId,
    /// Its size.
    pub len_bytes: u64,
    /// How to open it.
    pub handle: SegmentHandle,
}

/// How to open a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentHandle {
    /// The one descriptor that rides on this frame.
    Descriptor,
    /// A POSIX name.
    Name(#[serde(deserialize_with = "bounded::string")] String),
}

/// A segment without used slots that the daemon gives up. The client unmaps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRetire {
    /// The segment. Its number is not used again on this connection.
    pub segment: SegmentId,
}

/// Where the rows of a result are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Behind the message.
    Inline,
    /// In shared memory, until freed.
    Slot(SlotRef),
}

/// A part of a segment that belongs to one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SlotRef {
    /// The segment.
    pub segment: SegmentId,
    /// Its first byte in the segment: a multiple of [`SLOT_ALIGNMENT`].
    pub offset: u64,
    /// Bytes of the result in it.
    pub len_bytes: u64,
    /// Distinguishes this use of the range from earlier and later ones, so that a late or repeated
    /// [`Free`] frees nothing.
    pub generation: u64,
}

/// Slots that the client no longer reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// As they came in results.
    #[serde(deserialize_with = "bounded::list")]
    pub slots: Vec<SlotRef>,
}
