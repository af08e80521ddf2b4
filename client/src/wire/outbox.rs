//! The writing half of a connection.
//!
//! Calls wait until the socket takes their frame. Drops must never block: their frames are deferred
//! when the socket is full or another thread is writing.

use super::socket::Socket;
use crate::sync::lock;
use emberd_protocol::Frame;
use std::io;
use std::sync::{Mutex, TryLockError};

/// The largest buffer that is kept for the next frames.
const MAX_KEPT_BYTES: usize = 1 << 20;

/// Bytes on their way into a socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Its holder writes.
    writer: Mutex<Unsent>,
    /// Frames whose senders could not wait for the writer.
    deferred: Mutex<Vec<u8>>,
}

/// The result of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is sent, or another thread is about to send it.
    All,
    /// The socket takes no more for now.
    Full,
}

impl Outbox {
    /// Sends a frame, waiting until the socket takes it.
    pub(crate) fn send(&self, socket: &Socket, frame: &Frame) -> io::Result<()> {
        let header = frame.header().map_err(io::Error::other)?;
        let mut unsent = lock(&self.writer);
        unsent.push(&mut lock(&self.deferred));
        socket.write_all(&[unsent.left(), &header, &frame.body, &frame.tail])?;
        unsent.clear();
        drop(unsent);
        self.flush(socket);
        Ok(())
    }

    /// Sends what the socket takes without waiting; the rest goes with the next flush or frame.
    pub(crate) fn send_later(&self, socket: &Socket, frame: &Frame) -> Flushed {
        lock(&self.deferred).extend_from_slice(&frame.to_bytes());
        self.flush(socket)
    }

    /// Sends what is deferred, unless another thread has the writer: that thread looks for deferred
    /// frames once more after it has released the writer, so that none waits for a call that may
    /// never come.
    pub(crate) fn flush(&self, socket: &Socket) -> Flushed {
        loop {
            let mut unsent = match self.writer.try_lock() {
                Ok(unsent) => unsent,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Flushed::All,
            };
            unsent.push(&mut lock(&self.deferred));
            while !unsent.left().is_empty() {
                match socket.write_now(&[unsent.left()]) {
                    Ok(0) => return Flushed::Full,
                    Ok(written) => unsent.sent += written,
                    // The connection is dead, and the daemon has freed everything that belonged to it.
                    Err(_) => unsent.clear(),
                }
            }
            drop(unsent);
            if lock(&self.deferred).is_empty() {
                return Flushed::All;
            }
        }
    }
}

/// For futures.
#[cfg(feature = "tokio")]
impl Outbox {
    /// As [`Outbox::send_later`], for large frames: the bytes that the socket takes at once are not
    /// copied.
    pub(crate) fn send_soon(&self, socket: &Socket, frame: &Frame) -> io::Result<Flushed> {
        let header = frame.header().map_err(io::Error::other)?;
        let mut unsent = lock(&self.writer);
        unsent.push(&mut lock(&self.deferred));
        if unsent.left().is_empty() {
            unsent.clear();
            let mut sent = socket.write_now(&[&header, &frame.body, &frame.tail])?;
            unsent.bytes.reserve_exact(
                emberd_protocol::HEADER_BYTES + frame.body.len() + frame.tail.len() - sent,
            );
            for part in [&header[..], &frame.body, &frame.tail] {
                let skipped = sent.min(part.len());
                sent -= skipped;
                unsent.bytes.extend_from_slice(&part[skipped..]);
            }
        } else {
            for part in [&header[..], &frame.body, &frame.tail] {
                unsent.bytes.extend_from_slice(part);
            }
        }
        drop(unsent);
        Ok(self.flush(socket))
    }
}

/// Bytes to send before the next frame.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
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
        // The memory of a large request is not kept.
        if self.bytes.capacity() > MAX_KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.sent = 0;
    }
}
