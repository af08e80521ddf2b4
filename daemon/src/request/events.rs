//! What a client is told of a request before its answer.

use crate::batching::generation::PieceSink;
use crate::connection::session::Connection;
use crate::models::registry::Events;
use emberd_protocol::{Event, Frame, FrameKind};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The way to the client for news of one request.
pub(crate) struct News<'a> {
    /// What writes them.
    pub(crate) writers: &'a mut JoinSet<()>,
    /// Whose request it is.
    pub(crate) connection: &'a Arc<Connection>,
    /// Which, by the client.
    pub(crate) id: u64,
    /// Which of all that had this id.
    pub(crate) serial: u64,
}

/// Where the pieces of a request's texts go; written in their order, all of them. What a slow reader
/// has not taken waits in memory: no more than the answer is going to have, which is bounded.
#[derive(Debug)]
pub(crate) struct Pieces(mpsc::UnboundedSender<Told>);

#[derive(Debug)]
enum Told {
    Piece(Event),
    /// All before it was written.
    Mark(oneshot::Sender<()>),
}

impl News<'_> {
    /// For news of a load. Those that its answer overtakes are left out.
    pub(crate) fn events(self) -> Events {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (connection, id, serial) = (Arc::clone(self.connection), self.id, self.serial);
        self.spawn(async move {
            while let Some(event) = receiver.recv().await {
                if !write(&connection, id, serial, &event).await {
                    break;
                }
            }
        });
        sender
    }

    /// For pieces of texts.
    pub(crate) fn pieces(self) -> Pieces {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (connection, id, serial) = (Arc::clone(self.connection), self.id, self.serial);
        self.spawn(async move {
            while let Some(told) = receiver.recv().await {
                match told {
                    Told::Piece(event) if write(&connection, id, serial, &event).await => {}
                    Told::Piece(_) => break,
                    // Whoever waits for it may have been cancelled.
                    Told::Mark(all) => drop(all.send(())),
                }
            }
        });
        Pieces(sender)
    }

    fn spawn(self, writer: impl Future<Output = ()> + Send + 'static) {
        while self.writers.try_join_next().is_some() {}
        self.writers.spawn(writer);
    }
}

/// Writes an event, unless its request is over: behind an answer there are no news.
async fn write(connection: &Connection, id: u64, serial: u64, event: &Event) -> bool {
    // One that fits no frame is no event that the daemon makes.
    let Ok(frame) = Frame::message(FrameKind::Event, id, event) else { return false };
    let turn = connection.writer.turn().await;
    // Looked at when the turn has come.
    connection.is_in_flight(id, serial) && turn.write(&frame, None).await.is_ok()
}

impl Pieces {
    /// What a worker calls with each piece. It never waits.
    pub(crate) fn sink(&self) -> PieceSink {
        let sender = self.0.clone();
        Box::new(move |piece| {
            // Nobody writes any more where the client has gone.
            let _ = sender.send(Told::Piece(piece));
        })
    }

    /// Waits until every piece that came before was written, or never can be.
    pub(crate) async fn written(self) {
        let (sender, all) = oneshot::channel();
        if self.0.send(Told::Mark(sender)).is_ok() {
            // Dropped unsent, there is nobody left to write to.
            let _ = all.await;
        }
    }
}
