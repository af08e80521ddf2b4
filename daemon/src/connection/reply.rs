//! What the daemon writes to a client that was let in: answers, events, and which segments come and
//! go.

use crate::connection::error::ConnectionError;
use crate::connection::frames::{FrameWriter, WriteTurn};
use crate::request::answer::{Answer, Promise};
use crate::request::caller::Caller;
use crate::request::events::EventSink;
use crate::request::in_flight::RequestKey;
use emberd_protocol::{
    ErrorCode, Event, Failure, Frame, FrameKind, Response, SegmentId, SegmentRetire,
};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Writes to one client.
#[derive(Debug)]
pub(super) struct ReplyWriter {
    caller: Arc<Caller>,
    frames: FrameWriter,
}

impl ReplyWriter {
    pub(super) fn new(caller: Arc<Caller>, frames: FrameWriter) -> Self {
        Self { caller, frames }
    }

    /// Writes the answer to a request. The segment that it is the first to point into is announced
    /// before. What the answer promises is the client's once it is written, and goes back otherwise.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn answer(&self, id: u64, answer: Answer) -> Result<(), ConnectionError> {
        let Answer { response, tail, promise } = answer;
        let (frame, promise) = match Frame::message(FrameKind::Response, id, &response) {
            Ok(frame) => (Frame { tail, ..frame }, promise),
            Err(error) => {
                let message = format!("the answer does not fit a frame: {error}");
                let failure = Failure::new(ErrorCode::LimitExceeded, message);
                let response = Response::Failed(failure);
                (Frame::message(FrameKind::Response, id, &response)?, Promise::Nothing)
            }
        };
        let turn = self.frames.turn().await;
        if let Some(slot) = promise.slot() {
            self.announce(slot.segment, &turn).await?;
        }
        turn.write(&frame, None).await?;
        promise.fulfilled();
        Ok(())
    }

    /// Gives up segments that nobody has used for `idle`, and tells the client.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn retire_idle(&self, idle: Duration) -> Result<(), ConnectionError> {
        let Some(pool) = &self.caller.pool else { return Ok(()) };
        // The turn comes first: no answer may point into a segment after its retirement.
        let turn = self.frames.turn().await;
        for segment in pool.retire_idle(idle, Instant::now()) {
            let frame = Frame::message(FrameKind::Retire, 0, &SegmentRetire { segment })?;
            turn.write(&frame, None).await?;
        }
        Ok(())
    }

    /// Waits until the client has closed the connection, even if some of what it sent is unread.
    pub(super) async fn hung_up(&self) {
        self.frames.hung_up().await;
    }

    /// Ends the connection.
    pub(super) fn shutdown(&self) {
        self.frames.shutdown();
    }

    /// Tells the client of a segment, the first time that an answer points into it.
    async fn announce(
        &self,
        segment: SegmentId,
        turn: &WriteTurn<'_>,
    ) -> Result<(), ConnectionError> {
        let pool = self.caller.pool.as_ref();
        let Some(announcement) = pool.and_then(|pool| pool.announce_once(segment)) else {
            return Ok(());
        };
        let descriptor = announcement.descriptor();
        let mut frame = Frame::message(FrameKind::Segment, 0, &announcement.message)?;
        frame.descriptors = u16::from(descriptor.is_some());
        turn.write(&frame, descriptor).await
    }
}

impl EventSink for ReplyWriter {
    fn write_event<'a>(
        &'a self,
        request: RequestKey,
        event: &'a Event,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            // The daemon makes no event that does not fit a frame.
            let Ok(frame) = Frame::message(FrameKind::Event, request.id, event) else {
                return false;
            };
            let turn = self.frames.turn().await;
            // Asked once the turn has come, so that no answer comes in between.
            self.caller.in_flight.contains(request) && turn.write(&frame, None).await.is_ok()
        })
    }
}
