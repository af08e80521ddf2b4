//! Bytes and descriptors over a Unix socket.
//!
//! The stream is `interprocess`'s. It has no connect that waits for a full listener and no
//! descriptors: nix does these.

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::{Stream as _, StreamCommon};
use interprocess::os::unix::uds_local_socket::Stream as UnixStream;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect,
    recv, recvmsg, sendmsg, shutdown, socket,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The most descriptors that Linux puts into one message (`SCM_MAX_FD`). A buffer for all of them
/// keeps the kernel from truncating the list, which would leak the rest.
const MAX_DESCRIPTORS: usize = 253;

/// A connected stream.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
}

/// The buffer for the descriptors of a read.
#[derive(Debug)]
pub(crate) struct ControlBuffer(Vec<u8>);

impl ControlBuffer {
    pub(super) fn new() -> Self {
        Self(nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]))
    }
}

impl Socket {
    /// Connects. While the listener's queue is full the kernel waits, until the deadline, and then
    /// fails with `WouldBlock`.
    pub(crate) fn connect(path: &Path, deadline: Instant) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let stream = UnixStream::from(descriptor);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // Linux bounds a connect by the timeout for sending.
            stream.set_send_timeout(Some(left))?;
            match connect(stream.as_fd().as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        }
        stream.set_send_timeout(None)?;
        Ok(Self { stream: Stream::UdSocket(stream) })
    }

    /// The user who opened the listening socket.
    pub(crate) fn peer_uid(&self) -> Option<u32> {
        self.stream.peer_creds().ok()?.euid()
    }

    /// Another descriptor of the same stream, to poll it for readiness.
    #[cfg(feature = "tokio")]
    pub(crate) fn readiness_descriptor(&self) -> io::Result<OwnedFd> {
        match &self.stream {
            Stream::UdSocket(stream) => stream.as_fd().try_clone_to_owned(),
        }
    }

    /// From now on a read that would have to wait fails with `WouldBlock`.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking(true)
    }

    /// Bounds how long a read waits; `None` is no bound.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_recv_timeout(timeout)
    }

    /// Writes all parts (at most four), waiting until the socket takes them.
    pub(crate) fn write_all(&self, parts: &[&[u8]]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut written = 0;
        while written < total {
            written += self.write_some(parts, written, MsgFlags::empty())?;
        }
        Ok(())
    }

    /// Writes what the socket takes without waiting, and returns how many bytes that was.
    pub(super) fn write_now(&self, parts: &[&[u8]]) -> io::Result<usize> {
        match self.write_some(parts, 0, MsgFlags::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Reads what is there, at least a byte, or 0 at the end; descriptors go to `descriptors`.
    pub(super) fn read(
        &self,
        buffer: &mut [u8],
        control: &mut ControlBuffer,
        descriptors: &mut impl Extend<OwnedFd>,
    ) -> io::Result<usize> {
        loop {
            let mut parts = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.raw(), &mut parts, Some(&mut control.0), flags) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    // SAFETY: the kernel has just made these descriptors for this process, and
                    // this is the only code that has seen their numbers.
                    descriptors
                        .extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            return Ok(message.bytes);
        }
    }

    /// Whether the other side has hung up, and nothing is left to read.
    pub(super) fn has_ended(&self) -> bool {
        recv(self.raw(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Ok(0)
    }

    /// Ends the connection in both directions, which wakes every thread that waits on it.
    pub(super) fn shutdown(&self) {
        // Fails if the other side has ended it already.
        let _ = shutdown(self.raw(), Shutdown::Both);
    }

    fn write_some(&self, parts: &[&[u8]], mut skip: usize, flags: MsgFlags) -> io::Result<usize> {
        let mut left = [IoSlice::new(&[]); 4];
        for (slice, part) in left.iter_mut().zip(parts) {
            let skipped = skip.min(part.len());
            skip -= skipped;
            *slice = IoSlice::new(&part[skipped..]);
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

    fn raw(&self) -> RawFd {
        match &self.stream {
            Stream::UdSocket(stream) => stream.as_fd().as_raw_fd(),
        }
    }
}
