//! The task of a connection: reads for all, and writes what did not go at once.

use crate::connection::Connection;
use crate::error::TransportError;
use crate::incoming::Progress;
use crate::outbox::Flushed;
use crate::table::Death;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Gives a new connection its task, on the present runtime.
pub(super) fn drive(connection: &Arc<Connection>) -> io::Result<()> {
    connection.socket.never_wait()?;
    let watched = UnixStream::from_std(connection.socket.to_be_watched()?.into())?;
    tokio::spawn(Driver { connection: Arc::downgrade(connection), watched });
    Ok(())
}

/// Ends with its connection: whoever drops the last handle shuts the socket down, which wakes it.
struct Driver {
    connection: Weak<Connection>,
    /// A descriptor of its own, for readiness only.
    watched: UnixStream,
}

impl Driver {
    /// Does what can be done now; ready with the end of the connection.
    fn step(
        &self,
        connection: &Arc<Connection>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Infallible, Death>> {
        // Known before anything is left unsent, so that nobody leaves it unseen.
        connection.is_driven_by(context.waker());
        let lost = |error: io::Error| connection.lost(&error);
        while connection.flush() == Flushed::Full {
            match self.watched.poll_write_ready(context) {
                Poll::Ready(ready) => ready.map_err(lost)?,
                Poll::Pending => break,
            }
            let flush = || match connection.flush() {
                Flushed::All => Ok(()),
                Flushed::Full => Err(io::ErrorKind::WouldBlock.into()),
            };
            // What would block is waited for again.
            let _ = self.watched.try_io(Interest::WRITABLE, flush);
        }
        loop {
            ready!(self.watched.poll_read_ready(context)).map_err(lost)?;
            let mut death = None;
            let read = || match connection.read_some() {
                Ok(Progress::Some) => Ok(()),
                Ok(Progress::None) => Err(io::ErrorKind::WouldBlock.into()),
                Err(reason) => {
                    death = Some(reason);
                    Ok(())
                }
            };
            let _: io::Result<()> = self.watched.try_io(Interest::READABLE, read);
            if let Some(death) = death {
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
        // Its runtime ends, or it has: nobody reads any more, so nobody may wait.
        if let Some(connection) = self.connection.upgrade() {
            let path = connection.path.clone();
            connection.die(&Death::Transport(TransportError::Disconnected { path }));
        }
    }
}
