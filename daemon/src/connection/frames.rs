//! Frames over a connected socket, and descriptors beside them.
//!
//! The stream itself is `interprocess`'s; what it does not offer (descriptors, several pieces in
//! one write) is done on the same descriptor with nix.

use emberd_protocol::{CodecError, Decoder, Frame, FrameError, FrameKind};
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

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConnectionError {
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer sent descriptors, which no client does.
    #[error("the peer sent descriptors")]
    Descriptors,
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
    /// The peer sent a message that cannot be read and that has no answer.
    #[error("a message cannot be read")]
    Codec(#[from] CodecError),
    /// The peer sent a frame that has no place there.
    #[error("a frame of kind {0:?} has no place here")]
    OutOfPlace(FrameKind),
    /// The peer used an id for two requests at once.
    #[error("request id {0} is already in flight")]
    IdInUse(u64),
    /// The daemon broke its own stream.
    #[error("an answer was cut by a panic")]
    Defect,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Arc<Stream>,
    decoder: Decoder,
}

/// The writing end, shared by all who have something to say. Frames go out whole.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: Arc<Stream>,
    turn: Mutex<()>,
}

/// The right to write, until dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    stream: &'a UnixStream,
    _guard: MutexGuard<'a, ()>,
}

/// Both ends of a stream.
#[must_use]
pub(crate) fn split(stream: Stream) -> (Reader, Writer) {
    let stream = Arc::new(stream);
    let reader = Reader { stream: Arc::clone(&stream), decoder: Decoder::default() };
    (reader, Writer { stream, turn: Mutex::new(()) })
}

fn inner(stream: &Stream) -> &UnixStream {
    match stream {
        Stream::UdSocket(stream) => stream.inner(),
    }
}

impl Reader {
    /// The next frame; `None` where the peer has ended the stream between frames.
    ///
    /// May be dropped while it waits, and called again: nothing that arrived is lost.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ConnectionError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            let stream = inner(&self.stream);
            let decoder = &mut self.decoder;
            match stream.async_io(Interest::READABLE, || receive(stream, decoder)).await? {
                Read::Bytes => {}
                Read::End if self.decoder.is_mid_frame() => return Err(ConnectionError::Cut),
                Read::End => return Ok(None),
                Read::Descriptors => return Err(ConnectionError::Descriptors),
            }
        }
    }
}

impl Reader {
    /// Whether the peer has closed its end, whatever of its bytes is still unread.
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut polled = [PollFd::new(inner(&self.stream).as_fd(), PollFlags::empty())];
        // Hanging up is told without being asked for.
        let told = poll(&mut polled, PollTimeout::ZERO);
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        told.is_ok() && events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
    }
}

enum Read {
    Bytes,
    End,
    Descriptors,
}

/// What a read needs, one for each thread: a silent connection holds none of it.
struct Scratch {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

/// The most descriptors that Linux puts into one message (`SCM_MAX_FD`). With room for all of
/// them none is ever cut off, which would leave it open in this process without an owner.
const MAX_DESCRIPTORS: usize = 253;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        bytes: vec![0; READ_BYTES],
        control: nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]),
    });
}

/// Reads what is there; descriptors are seen (and closed) rather than ignored.
fn receive(stream: &UnixStream, decoder: &mut Decoder) -> io::Result<Read> {
    SCRATCH.with_borrow_mut(|Scratch { bytes, control }| {
        let mut pieces = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut pieces, Some(control), flags)?;
        let mut descriptors = 0;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = control {
                for descriptor in received {
                    descriptors += 1;
                    // SAFETY: the kernel has just made this descriptor for this process, and
                    // nobody else has been told its number.
                    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        let len = message.bytes;
        if descriptors > 0 {
            return Ok(Read::Descriptors);
        }
        decoder.feed(&bytes[..len]);
        Ok(if len == 0 { Read::End } else { Read::Bytes })
    })
}

impl Writer {
    /// Waits for the right to write.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let _guard = self.turn.lock().await;
        Turn { stream: inner(&self.stream), _guard }
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) async fn write(&self, frame: &Frame) -> Result<(), ConnectionError> {
        self.turn().await.write(frame, None).await
    }

    /// Ends the connection for both sides, whoever is waiting on it.
    pub(crate) fn shutdown(&self) {
        // A peer that is gone already needs no ending.
        let _ = shutdown(inner(&self.stream).as_raw_fd(), Shutdown::Both);
    }
}

impl Turn<'_> {
    /// Writes one frame; the descriptor rides on its first byte.
    ///
    /// Not to be dropped half-way: the peer would read the next frame's header in the middle of
    /// this one. Who may be cancelled shuts the connection down instead.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) async fn write(
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

/// Sends what is left behind the first `skip` bytes of the pieces.
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
