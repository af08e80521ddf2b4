//! The daemon's reply to the hello.

use crate::error::{ConnectError, ProtocolError};
use crate::options::ClientOptions;
use crate::wire::reader::Reader;
use crate::wire::socket::Socket;
use emberd_protocol::{Frame, FrameError, FrameKind, Hello, Refusal, RefusalReason, Welcome};
use std::io;
use std::path::Path;
use std::time::Instant;

/// A handshake with the daemon at a path.
pub(super) struct Handshake<'a> {
    pub(super) path: &'a Path,
    pub(super) options: &'a ClientOptions,
    /// When the welcome must be complete.
    pub(super) deadline: Instant,
}

impl Handshake<'_> {
    /// Says hello, and waits for the welcome.
    pub(super) fn run(
        &self,
        socket: &Socket,
        reader: &mut Reader,
        hello: &Hello,
    ) -> Result<Welcome, ConnectError> {
        let hello = Frame::message(FrameKind::Hello, 0, hello).map_err(|error| {
            self.failed(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
        })?;
        match socket.write_all(&[&hello.to_bytes()]) {
            // The daemon hung up before the hello, and may have sent its reason.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            result => result.map_err(|error| self.failed(error))?,
        }
        let welcome = self.welcome(&self.first_frame(socket, reader)?)?;
        socket.set_read_timeout(None).map_err(|error| self.failed(error))?;
        Ok(welcome)
    }

    /// The error for a failed system call.
    pub(super) fn failed(&self, source: io::Error) -> ConnectError {
        match source.kind() {
            io::ErrorKind::WouldBlock => {
                let after = self.options.handshake_timeout;
                ConnectError::Timeout { path: self.path.to_owned(), after }
            }
            _ => ConnectError::from_io(self.path, source),
        }
    }

    fn first_frame(&self, socket: &Socket, reader: &mut Reader) -> Result<Frame, ConnectError> {
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error @ FrameError::WrongVersion { .. }) => {
                    return Err(ConnectError::Version { message: error.to_string() });
                }
                Err(error) => return Err(self.not_emberd(error.into())),
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed(io::ErrorKind::WouldBlock.into()));
            }
            socket.set_read_timeout(Some(left)).map_err(|error| self.failed(error))?;
            if reader.fill(socket).map_err(|error| self.failed(error))? == 0 {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn welcome(&self, frame: &Frame) -> Result<Welcome, ConnectError> {
        match frame.kind {
            FrameKind::Welcome => frame.decode().map_err(|error| self.not_emberd(error.into())),
            FrameKind::Refusal => {
                let refusal: Refusal =
                    frame.decode().map_err(|error| self.not_emberd(error.into()))?;
                Err(match refusal.reason {
                    RefusalReason::Version => ConnectError::Version { message: refusal.message },
                    RefusalReason::NotPermitted
                    | RefusalReason::TooManyConnections
                    | RefusalReason::ShuttingDown
                    | RefusalReason::NoHello => ConnectError::Refused(refusal),
                })
            }
            _ => Err(self.not_emberd(ProtocolError::OutOfPlace("something other than a welcome"))),
        }
    }

    fn not_emberd(&self, source: ProtocolError) -> ConnectError {
        ConnectError::NotEmberd { path: self.path.to_owned(), source }
    }
}
