//! The only module that uses bincode.
//!
//! bincode 2.0.1 is the last release (3.0.0 is empty, and the project is no longer maintained),
//! so it is hidden behind these two functions: another codec changes only this file and
//! [`crate::PROTOCOL_VERSION`]. Integers are little-endian and of fixed width, enum
//! positions are `u32`, lengths `u64`.

use crate::limits::MAX_BODY_BYTES;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A message that cannot be encoded, or bytes that are not a message.
#[derive(Debug)]
#[non_exhaustive]
pub enum CodecError {
    /// The message is larger than [`MAX_BODY_BYTES`].
    TooLarge {
        /// Its encoded size.
        len_bytes: usize,
    },
    /// The bytes are not a message of the expected kind.
    Malformed(Box<dyn std::error::Error + Send + Sync>),
    /// The message ended before its bytes did.
    TrailingBytes {
        /// How many are left.
        len_bytes: usize,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { len_bytes } => {
                write!(f, "a message of {len_bytes} bytes is over the limit of {MAX_BODY_BYTES}")
            }
            Self::Malformed(_) => f.write_str("the bytes are not the expected message"),
            Self::TrailingBytes { len_bytes } => {
                write!(f, "{len_bytes} bytes follow the end of the message")
            }
        }
    }
}

impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(cause) => Some(cause.as_ref()),
            Self::TooLarge { .. } | Self::TrailingBytes { .. } => None,
        }
    }
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(message, config())
        .map_err(|cause| CodecError::Malformed(cause.into()))?;
    if bytes.len() > MAX_BODY_BYTES {
        return Err(CodecError::TooLarge { len_bytes: bytes.len() });
    }
    Ok(bytes)
}

pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(CodecError::TooLarge { len_bytes: bytes.len() });
    }
    let (message, used) = bincode::serde::borrow_decode_from_slice(bytes, config())
        .map_err(|cause| CodecError::Malformed(cause.into()))?;
    if used != bytes.len() {
        return Err(CodecError::TrailingBytes { len_bytes: bytes.len() - used });
    }
    Ok(message)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_BODY_BYTES>()
}
