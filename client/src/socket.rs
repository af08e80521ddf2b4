//! Bytes and descriptors over the socket.
//!
//! The stream is `interprocess`'s; descriptors, and writes of several pieces, are done on it with
//! nix.

use interprocess::ConnectWaitMode;
use interprocess::local_socket::traits::{Stream as _, StreamCommon};
use interprocess::local_socket::{ConnectOptions, GenericFilePath, Stream, ToFsName};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, Shutdown, recv, recvmsg, sendmsg, shutdown};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// The most descriptors that Linux puts into one message (`SCM_MAX_FD`): with room for all, none
/// is cut off and left open without an owner.
const MAX_DESCRIPTORS: usize = 253;

/// A connected stream.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
}

/// Room for what a read needs beside its bytes.
#[derive(Debug)]
pub(crate) struct ControlBuffer(Vec<u8>);

impl ControlBuffer {
    pub(crate) fn new() -> Self {
        Self(nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]))
    }
}

impl Socket {
    /// Connects without waiting. When the listener's queue is full, the stream is not connected,
    /// which its first write tells.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let name = path.to_fs_name::<GenericFilePath>()?;
        let options = ConnectOptions::new().name(name).wait_mode(ConnectWaitMode::Deferred);
        Ok(Self { stream: options.connect_sync()? })
    }

    /// The user at the other end: whoever opened the listening socket.
    pub(crate) fn peer_uid(&self) -> Option<u32> {
        self.stream.peer_creds().ok()?.euid()
    }

    /// Another descriptor of the same stream, to ask whether it can be read or written.
    #[cfg(feature = "tokio")]
    pub(crate) fn to_be_watched(&self) -> io::Result<OwnedFd> {
        match &self.stream {
            Stream::UdSocket(stream) => stream.as_fd().try_clone_to_owned(),
        }
    }

    /// From now on a read that would have to wait fails with `WouldBlock`.
    #[cfg(feature = "tokio")]
    pub(crate) fn never_wait(&self) -> io::Result<()> {
        self.stream.set_nonblocking(true)
    }

    /// Bounds how long a read waits; `None` waits for ever.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_recv_timeout(timeout)
    }

    /// Writes all pieces, waiting for room.
    pub(crate) fn write_all(&self, pieces: &[&[u8]]) -> io::Result<()> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut written = 0;
        while written < total {
            written += self.write_some(pieces, written, MsgFlags::empty())?;
        }
        Ok(())
    }

    /// Writes what the socket takes at once, and tells how much that was.
    pub(crate) fn write_now(&self, pieces: &[&[u8]]) -> io::Result<usize> {
        match self.write_some(pieces, 0, MsgFlags::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn write_some(&self, pieces: &[&[u8]], mut skip: usize, flags: MsgFlags) -> io::Result<usize> {
        let mut left = [IoSlice::new(&[]); 4];
        for (slice, piece) in left.iter_mut().zip(pieces) {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            *slice = IoSlice::new(&piece[skipped..]);
        }
        loop {
            let flags = flags | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.raw(), &left, &[], flags, None) {
                Err(Errno::EINTR) => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                result => return Ok(result?),
            }
        }
    }

    /// Reads what is there, at least a byte, or 0 at the end; descriptors go to `descriptors`.
    pub(crate) fn read(
        &self,
        buffer: &mut [u8],
        control: &mut ControlBuffer,
        descriptors: &mut impl Extend<OwnedFd>,
    ) -> io::Result<usize> {
        loop {
            let mut pieces = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.raw(), &mut pieces, Some(&mut control.0), flags)
            {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    // SAFETY: the kernel has just made these descriptors for this process, and
                    // nobody else has been told their numbers.
                    descriptors
                        .extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            return Ok(message.bytes);
        }
    }

    /// Whether the other side has hung up, and nothing is left to be read.
    pub(crate) fn has_ended(&self) -> bool {
        recv(self.raw(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Ok(0)
    }

    /// Ends the connection for both sides, whoever is waiting on it.
    pub(crate) fn shutdown(&self) {
        // A peer that is gone already needs no ending.
        let _ = shutdown(self.raw(), Shutdown::Both);
    }

    fn raw(&self) -> RawFd {
        match &self.stream {
            Stream::UdSocket(stream) => stream.as_fd().as_raw_fd(),
        }
    }
}
