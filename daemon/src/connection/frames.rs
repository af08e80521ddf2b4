//! Frames over a connected socket, and the descriptors that travel with them.
//!
//! `interprocess` owns the stream. What it does not offer (descriptors, several buffers in one write)
//! is done on the same descriptor with nix.

use crate::connection::error::ConnectionError;
use emberd_protocol::{Decoder, Frame};
use interprocess::local_socket::tokio::Stream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// The reading end.
#[derive(Debug)]
pub(super) struct FrameReader {
    stream: Arc<Stream>,
    decoder: Decoder,
}

/// The writing end, shared by the tasks of a connection. Frames go out whole.
#[derive(Debug)]
pub(super) struct FrameWriter {
    stream: Arc<Stream>,
    turn: Mutex<()>,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(super) struct WriteTurn<'a> {
    stream: &'a UnixStream,
    _guard: MutexGuard<'a, ()>,
}

/// Both ends of a stream.
#[must_use]
pub(super) fn split(stream: Stream) -> (FrameReader, FrameWriter) {
    let stream = Arc::new(stream);
    let reader = FrameReader { stream: Arc::clone(&stream), decoder: Decoder::default() };
    (reader, FrameWriter { stream, turn: Mutex::new(()) })
}

impl FrameReader {
    /// The next frame; `None` if the peer has ended the stream between frames.
    ///
    /// May be dropped while it waits and called again: nothing that arrived is lost.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ConnectionError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            let stream = inner(&self.stream);
            let decoder = &mut self.decoder;
            match stream.async_io(Interest::READABLE, || receive(stream, decoder)).await? {
                Received::Bytes => {}
                Received::End if self.decoder.is_mid_frame() => return Err(ConnectionError::Cut),
                Received::End => return Ok(None),
                Received::Descriptors => return Err(ConnectionError::Descriptors),
            }
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<ReadBuffers> = RefCell::new(ReadBuffers {
        bytes: vec![0; READ_BYTES],
        control: nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]),
    });
}

impl FrameWriter {
    /// Waits for the right to write.
    pub(super) async fn turn(&self) -> WriteTurn<'_> {
        let _guard = self.turn.lock().await;
        WriteTurn { stream: inner(&self.stream), _guard }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(super) async fn write(&self, frame: &Frame) -> Result<(), ConnectionError> {
        self.turn().await.write(frame, None).await
    }

    /// Ends the connection for both sides, and wakes all that wait on it.
    pub(super) fn shutdown(&self) {
        // It fails if the peer has gone already.
        let _ = shutdown(inner(&self.stream).as_raw_fd(), Shutdown::Both);
    }

    /// Waits until the peer has closed both directions of the stream, however many of its bytes are
    /// unread.
    pub(super) async fn hung_up(&self) {
        // Of all interests, only this one is not woken by unread bytes. It is also woken by a peer that
        // only ends its sending. Such a peer still waits for answers, so the connection continues.
        let closed = inner(&self.stream).ready(Interest::PRIORITY).await;
        if closed.is_ok() && !self.is_hung_up() {
            std::future::pending::<()>().await;
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(inner(&self.stream).as_fd(), PollFlags::empty())];
        // The kernel reports a hang-up whatever the requested events are.
        let polling = poll(&mut polled, PollTimeout::ZERO);
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        polling.is_ok() && events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
    }
}

impl WriteTurn<'_> {
    /// Writes one frame; the descriptor goes with its first byte.
    ///
    /// Must not be dropped before it ends, or the peer would find the next frame within this one. A
    /// caller that stops early shuts the connection down.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(super) async fn write(
        &self,
        frame: &Frame,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ConnectionError> {
        let header = frame.header()?;
        let pieces: [&[u8]; 3] = [&header, &frame.body, &frame.tail];
        let total = frame.len_bytes();
        let mut written = 0;
        while written < total {
            written += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let descriptor = descriptor.filter(|_| written == 0);
                    send(self.stream, &pieces, written, descriptor)
                })
                .await?;
        }
        Ok(())
    }
}

fn inner(stream: &Stream) -> &UnixStream {
    match stream {
        Stream::UdSocket(stream) => stream.inner(),
    }
}

/// What one read found.
enum Received {
    Bytes,
    End,
    Descriptors,
}

/// Buffers for reading, one pair for each thread, so that a silent connection holds none.
struct ReadBuffers {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

/// The most descriptors that Linux puts into one message (`SCM_MAX_FD`). With room for all of
/// them the kernel never truncates the list, so none stays open in this process without an owner.
const MAX_DESCRIPTORS: usize = 253;

/// Reads what has arrived. Descriptors are closed, and reported rather than ignored.
fn receive(stream: &UnixStream, decoder: &mut Decoder) -> io::Result<Received> {
    BUFFERS.with_borrow_mut(|ReadBuffers { bytes, control }| {
        let mut pieces = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut pieces, Some(control), flags)?;
        let mut descriptors = 0;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                for descriptor in received {
                    descriptors += 1;
                    // SAFETY: the kernel has just made this descriptor for this process, and
                    // nobody else knows its number.
                    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        let len = message.bytes;
        if descriptors > 0 {
            return Ok(Received::Descriptors);
        }
        decoder.feed(&bytes[..len]);
        Ok(if len == 0 { Received::End } else { Received::Bytes })
    })
}

/// Sends what follows the first `skip` bytes of the pieces.
fn send(
    stream: &UnixStream,
    pieces: &[&[u8]; 3],
    mut skip: usize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let left = pieces.map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        IoSlice::new(&piece[skipped..])
    });
    let raw = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let control = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
    let control = control.as_ref().map_or(&[][..], |control| &control[..]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(stream.as_raw_fd(), &left, control, flags, None) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(len) => Ok(len),
        Err(Errno::EINTR) => Err(io::ErrorKind::Interrupted.into()),
        Err(error) => Err(error.into()),
    }
}
