//! The writing half: frames that wait for their answer, and frames of droppers, which do not wait.

use crate::lock;
use crate::socket::Socket;
use emberd_protocol::Frame;
use std::io;
use std::sync::{Mutex, TryLockError};

/// Room that stays reserved for the next frames.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Bytes on their way into a socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Whoever holds it writes.
    writer: Mutex<Rest>,
    /// Frames of those who could not get the writer.
    deferred: Mutex<Vec<u8>>,
}

/// Bytes that must go before the next frame.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
}

impl Rest {
    fn left(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn push(&mut self, bytes: &mut Vec<u8>) {
        if self.sent == self.bytes.len() {
            self.clear();
        }
        self.bytes.append(bytes);
    }

    fn clear(&mut self) {
        // A large request does not keep its memory.
        if self.bytes.capacity() > MAX_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.sent = 0;
    }
}

/// How far a flush came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All is sent, or another thread is about to send it.
    All,
    /// The socket takes no more now.
    Full,
}

impl Outbox {
    /// Sends a frame, waiting for room.
    pub(crate) fn send(&self, socket: &Socket, frame: &Frame) -> io::Result<()> {
        let header = frame.header().map_err(io::Error::other)?;
        let mut rest = lock(&self.writer);
        rest.push(&mut lock(&self.deferred));
        socket.write_all(&[rest.left(), &header, &frame.body, &frame.tail])?;
        rest.clear();
        drop(rest);
        self.flush(socket);
        Ok(())
    }

    /// Sends at once what can be sent at once; the rest goes with the next flush or frame.
    pub(crate) fn send_later(&self, socket: &Socket, frame: &Frame) -> Flushed {
        lock(&self.deferred).extend_from_slice(&frame.to_bytes());
        self.flush(socket)
    }

    /// Sends what waits, unless another thread has the writer: that one looks here after it has
    /// given the writer back, so that nothing is left for a call that may never come.
    pub(crate) fn flush(&self, socket: &Socket) -> Flushed {
        loop {
            let mut rest = match self.writer.try_lock() {
                Ok(rest) => rest,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Flushed::All,
            };
            rest.push(&mut lock(&self.deferred));
            while !rest.left().is_empty() {
                match socket.write_now(&[rest.left()]) {
                    Ok(0) => return Flushed::Full,
                    Ok(written) => rest.sent += written,
                    // A dead connection holds nothing that could be freed.
                    Err(_) => rest.clear(),
                }
            }
            drop(rest);
            if lock(&self.deferred).is_empty() {
                return Flushed::All;
            }
        }
    }
}

/// For futures.
#[cfg(feature = "tokio")]
impl Outbox {
    /// As [`Outbox::send_later`], for large frames: what the socket takes at once is not copied.
    pub(crate) fn send_soon(&self, socket: &Socket, frame: &Frame) -> io::Result<Flushed> {
        let header = frame.header().map_err(io::Error::other)?;
        let mut rest = lock(&self.writer);
        rest.push(&mut lock(&self.deferred));
        if rest.left().is_empty() {
            rest.clear();
            let mut sent = socket.write_now(&[&header, &frame.body, &frame.tail])?;
            rest.bytes.reserve_exact(
                emberd_protocol::HEADER_BYTES + frame.body.len() + frame.tail.len() - sent,
            );
            for piece in [&header[..], &frame.body, &frame.tail] {
                let skipped = sent.min(piece.len());
                sent -= skipped;
                rest.bytes.extend_from_slice(&piece[skipped..]);
            }
        } else {
            for piece in [&header[..], &frame.body, &frame.tail] {
                rest.bytes.extend_from_slice(piece);
            }
        }
        drop(rest);
        Ok(self.flush(socket))
    }
}
