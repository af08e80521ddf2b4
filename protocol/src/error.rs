//! Failures: a code for programs, and a message for people.

use crate::bounded;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong, in a form that a program can act on. The numbers are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The model's id is unknown to this daemon.
    ModelNotConfigured = 1,
    /// The model cannot be loaded: a missing, damaged or unsupported file.
    ModelLoadError = 2,
    /// The device failed: it does not exist, or has no memory left.
    DeviceError = 3,
    /// An operation of the embedding cache failed.
    CacheError = 4,
    /// The lease does not belong to this connection, or has ended.
    ReferenceError = 5,
    /// The request contradicts itself or a rule of the protocol.
    InvalidRequest = 6,
    /// The model has another kind than the request needs.
    WrongModelType = 7,
    /// The peer lacks the permission.
    PermissionDenied = 8,
    /// The request, or what the client holds already, exceeds a limit.
    LimitExceeded = 9,
    /// The queue of the daemon is full.
    Overloaded = 10,
    /// The request was cancelled by its client.
    Cancelled = 11,
    /// The daemon is stopping and takes no new work.
    ShuttingDown = 12,
    /// A defect of the daemon; its log has details.
    Internal = 13,
}

impl ErrorCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::ModelNotConfigured,
        Self::ModelLoadError,
        Self::DeviceError,
        Self::CacheError,
        Self::ReferenceError,
        Self::InvalidRequest,
        Self::WrongModelType,
        Self::PermissionDenied,
        Self::LimitExceeded,
        Self::Overloaded,
        Self::Cancelled,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The spelling that documents, logs and JSON use, such as `MODEL_LOAD_ERROR`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelNotConfigured => "MODEL_NOT_CONFIGURED",
            Self::ModelLoadError => "MODEL_LOAD_ERROR",
            Self::DeviceError => "DEVICE_ERROR",
            Self::CacheError => "CACHE_ERROR",
            Self::ReferenceError => "REFERENCE_ERROR",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::WrongModelType => "WRONG_MODEL_TYPE",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::Overloaded => "OVERLOADED",
            Self::Cancelled => "CANCELLED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format_args!("no error code {number}")))
    }
}

/// A request's failure: `Display` shows the message, then the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: ErrorCode,
    /// For people: names what failed, and a remedy.
    #[serde(deserialize_with = "bounded::string")]
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl Failure {
    /// A failure that will recur if the request is repeated.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false }
    }

    /// A failure that may be temporary.
    pub fn retryable(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: true }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spellings_are_those_of_the_mission() {
        let table: Vec<_> = ErrorCode::ALL.iter().map(|c| (c.number(), c.as_str())).collect();
        assert_eq!(
            table,
            [
                (1, "MODEL_NOT_CONFIGURED"),
                (2, "MODEL_LOAD_ERROR"),
                (3, "DEVICE_ERROR"),
                (4, "CACHE_ERROR"),
                (5, "REFERENCE_ERROR"),
                (6, "INVALID_REQUEST"),
                (7, "WRONG_MODEL_TYPE"),
                (8, "PERMISSION_DENIED"),
                (9, "LIMIT_EXCEEDED"),
                (10, "OVERLOADED"),
                (11, "CANCELLED"),
                (12, "SHUTTING_DOWN"),
                (13, "INTERNAL"),
            ]
        );
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(14), None);
    }
}
