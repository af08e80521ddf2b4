//! Events: what a client gets of a request before its answer.

use crate::batching::generation::PieceSink;
use crate::models::registry::Events;
use crate::request::in_flight::RequestKey;
use emberd_protocol::Event;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Writes events to a client. The connection implements it.
pub(crate) trait EventSink: Send + Sync {
    /// Writes an event of a request, unless the request was answered: no event comes after an answer.
    /// `false` if no further event of the request can be written.
    fn write_event<'a>(
        &'a self,
        request: RequestKey,
        event: &'a Event,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;
}

/// The way to the client for events of one request. Costs nothing until a handler opens it.
pub(crate) struct EventWriter<'a> {
    /// Tasks of the connection that write events.
    pub(crate) tasks: &'a mut JoinSet<()>,
    pub(crate) sink: &'a Arc<dyn EventSink>,
    pub(crate) request: RequestKey,
}

/// Writes the pieces of a request's texts. All of them are written, in order. Pieces that a slow
/// client has not read wait in memory; they take no more than the answer will, which is bounded.
#[derive(Debug)]
pub(crate) struct PieceWriter(mpsc::UnboundedSender<Message>);

impl EventWriter<'_> {
    /// Opens the way for events of a load. Those that the answer overtakes are left out.
    pub(crate) fn load_events(self) -> Events {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (sink, request) = (Arc::clone(self.sink), self.request);
        self.spawn(async move {
            while let Some(event) = receiver.recv().await {
                if !sink.write_event(request, &event).await {
                    break;
                }
            }
        });
        sender
    }

    /// Opens the way for pieces of texts.
    pub(crate) fn pieces(self) -> PieceWriter {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let (sink, request) = (Arc::clone(self.sink), self.request);
        self.spawn(async move {
            while let Some(message) = receiver.recv().await {
                match message {
                    Message::Piece(event) => {
                        if !sink.write_event(request, &event).await {
                            break;
                        }
                    }
                    // The request may have been cancelled in the meantime.
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        });
        PieceWriter(sender)
    }

    fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        // Forgets tasks that have ended.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }
}

impl PieceWriter {
    /// The function that a worker calls with each piece. It never waits.
    pub(crate) fn sink(&self) -> PieceSink {
        let sender = self.0.clone();
        Box::new(move |piece| {
            // Without a receiver the client has gone.
            let _ = sender.send(Message::Piece(piece));
        })
    }

    /// Waits until every piece so far was written, or never can be.
    pub(crate) async fn flush(self) {
        let (sender, done) = oneshot::channel();
        if self.0.send(Message::Flush(sender)).is_ok() {
            // An error means that the client has gone.
            let _ = done.await;
        }
    }
}

#[derive(Debug)]
enum Message {
    Piece(Event),
    /// Answered once everything before it was written.
    Flush(oneshot::Sender<()>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::sync::lock;
    use std::sync::Mutex;

    /// Accepts this many events, then refuses.
    #[derive(Debug)]
    struct Recorder {
        room: usize,
        written: Mutex<Vec<Event>>,
    }

    impl EventSink for Recorder {
        fn write_event<'a>(
            &'a self,
            _request: RequestKey,
            event: &'a Event,
        ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                let mut written = lock(&self.written);
                let has_room = written.len() < self.room;
                if has_room {
                    written.push(event.clone());
                }
                has_room
            })
        }
    }

    #[tokio::test]
    async fn a_flush_waits_for_every_piece_and_not_for_a_client_that_has_gone() {
        for (room, written) in [(9, 3), (1, 1)] {
            let recorder = Arc::new(Recorder { room, written: Mutex::default() });
            let sink: Arc<dyn EventSink> = Arc::clone(&recorder) as Arc<dyn EventSink>;
            let mut tasks = JoinSet::new();
            let request = RequestKey { id: 1, serial: 1 };
            let pieces = EventWriter { tasks: &mut tasks, sink: &sink, request }.pieces();
            let send = pieces.sink();
            (0..3).for_each(|need_bytes| send(Event::Reading { need_bytes }));
            pieces.flush().await;
            assert_eq!(lock(&recorder.written).len(), written);
        }
    }
}
