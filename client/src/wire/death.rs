use crate::error::{Error, ProtocolError, TransportError};

/// How a connection ended: the error of every call that it interrupted.
#[derive(Debug, Clone)]
pub(crate) enum Death {
    Transport(TransportError),
    Protocol(ProtocolError),
}

impl From<Death> for Error {
    fn from(death: Death) -> Self {
        match death {
            Death::Transport(error) => error.into(),
            Death::Protocol(error) => error.into(),
        }
    }
}

impl From<ProtocolError> for Death {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}
