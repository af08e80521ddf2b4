//! The task of a connection: it reads for all futures, and writes what the socket did not take at
//! once.

use crate::error::TransportError;
use crate::wire::connection::{Connection, Progress};
use crate::wire::death::Death;
use crate::wire::outbox::Flushed;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Starts the task of a new connection on the current runtime.
pub(super) fn drive(connection: &Arc<Connection>) -> io::Result<()> {
    connection.socket().set_nonblocking()?;
    let readiness = UnixStream::from_std(connection.socket().readiness_descriptor()?.into())?;
    tokio::spawn(Driver { connection: Arc::downgrade(connection), readiness });
    Ok(())
}

/// Ends with its connection: dropping the last handle shuts the socket down, which wakes the task.
struct Driver {
    connection: Weak<Connection>,
    /// Another descriptor of the socket, to wait for readiness only.
    readiness: UnixStream,
}

impl Driver {
    /// Writes and reads without waiting; ready when the connection has died.
    fn step(
        &self,
        connection: &Arc<Connection>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Infallible, Death>> {
        // Before the flush: a sender that finds the socket full from now on wakes this task.
        connection.set_driver(context.waker());
        let death = |error: io::Error| connection.death_by(&error);
        while connection.flush() == Flushed::Full {
            match self.readiness.poll_write_ready(context) {
                Poll::Ready(ready) => ready.map_err(death)?,
                Poll::Pending => break,
            }
            let flush = || match connection.flush() {
                Flushed::All => Ok(()),
                Flushed::Full => Err(io::ErrorKind::WouldBlock.into()),
            };
            // If it still would block, the loop waits again.
            let _ = self.readiness.try_io(Interest::WRITABLE, flush);
        }
        loop {
            ready!(self.readiness.poll_read_ready(context)).map_err(death)?;
            let mut end = None;
            let read = || match connection.read_some() {
                Ok(Progress::Some) => Ok(()),
                Ok(Progress::None) => Err(io::ErrorKind::WouldBlock.into()),
                Err(reason) => {
                    end = Some(reason);
                    Ok(())
                }
            };
            let _: io::Result<()> = self.readiness.try_io(Interest::READABLE, read);
            if let Some(death) = end {
                return Poll::Ready(Err(death));
            }
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = self.connection.upgrade() else { return Poll::Ready(()) };
        let Err(death) = ready!(self.step(&connection, context));
        connection.die(&death);
        Poll::Ready(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The connection or the runtime has ended. Nobody reads any more, so nobody may wait.
        if let Some(connection) = self.connection.upgrade() {
            let path = connection.path().to_owned();
            connection.die(&Death::Transport(TransportError::Disconnected { path }));
        }
    }
}
