//! What the daemon sends, checked: responses with their rows, events, segments.

use super::Connection;
use crate::error::{ProtocolError, TransportError};
use crate::results::embeddings::{SlotGuard, SlotOwner, Values};
use crate::results::{Embeddings, Scores};
use crate::segment::Rows;
use crate::sync::lock;
use crate::wire::death::Death;
use crate::wire::reader::Reader;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{
    ElementType, Embedded, Event, Frame, FrameKind, Place, Response, SegmentRetire, rows_len_bytes,
};
use std::io;
use std::sync::{Arc, Weak};

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes came, and every complete frame was handled.
    Some,
    /// Nothing was there. Only on a non-blocking socket.
    None,
}

impl Connection {
    /// Reads once, and handles every complete frame.
    pub(crate) fn read_some(self: &Arc<Self>) -> Result<Progress, Death> {
        let mut reader = lock(&self.reader);
        match reader.fill(&self.socket) {
            Ok(0) => {
                let path = self.path.clone();
                return Err(Death::Transport(TransportError::Disconnected { path }));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::None),
            Err(error) => return Err(self.death_by(&error)),
        }
        while let Some(frame) = reader.next_frame().map_err(ProtocolError::from)? {
            self.handle_frame(&mut reader, frame)?;
        }
        reader.check_descriptors()?;
        Ok(Progress::Some)
    }

    fn handle_frame(
        self: &Arc<Self>,
        reader: &mut Reader,
        frame: Frame,
    ) -> Result<(), ProtocolError> {
        match frame.kind {
            FrameKind::Response => {
                let id = frame.id;
                let response = self.response(reader, frame)?;
                self.deliver(id, response);
            }
            FrameKind::Event => {
                let event: Event = frame.decode()?;
                let wakeups = lock(&self.in_flight).event_arrived(frame.id, event)?;
                wakeups.wake();
            }
            // The memory of an untrusted user could change while it is read.
            FrameKind::Segment if !self.accepts_segments => {
                return Err(ProtocolError::OutOfPlace("a segment"));
            }
            FrameKind::Segment => reader.announce(&frame)?,
            FrameKind::Retire => {
                let SegmentRetire { segment } = frame.decode()?;
                if lock(&self.live_slots).has_any_in(segment) {
                    let why = "it is retired while its rows are held";
                    return Err(ProtocolError::Segment { segment, why });
                }
                reader.retire(segment)?;
            }
            FrameKind::Hello
            | FrameKind::Request
            | FrameKind::Cancel
            | FrameKind::Free
            | FrameKind::Welcome
            | FrameKind::Refusal => {
                return Err(ProtocolError::OutOfPlace("a frame of another kind"));
            }
        }
        Ok(())
    }

    fn response(
        self: &Arc<Self>,
        reader: &Reader,
        mut frame: Frame,
    ) -> Result<ReceivedResponse, ProtocolError> {
        let tail = std::mem::take(&mut frame.tail);
        match frame.decode()? {
            Response::Embedded(embedded) => {
                check_ranges(&embedded)?;
                let values = self.values(reader, &embedded, tail)?;
                Ok(ReceivedResponse::Rows(Embeddings::new(embedded, values)))
            }
            Response::Reranked(reranked) => {
                Ok(ReceivedResponse::Scores(Scores::new(reranked, &tail)?))
            }
            response if tail.is_empty() => Ok(ReceivedResponse::Other(response)),
            _ => Err(ProtocolError::OutOfPlace("bytes behind a response")),
        }
    }

    fn values(
        self: &Arc<Self>,
        reader: &Reader,
        embedded: &Embedded,
        tail: Vec<u8>,
    ) -> Result<Values, ProtocolError> {
        let required = rows_len_bytes(embedded.rows, embedded.dimension, embedded.element);
        let slot = match embedded.place {
            Place::Inline => {
                if required != Some(tail.len() as u64) {
                    return Err(ProtocolError::Slot("the values do not have the size of the rows"));
                }
                return Ok(Values::copied(embedded.element, tail));
            }
            Place::Slot(slot) => slot,
        };
        if required != Some(slot.len_bytes) || !tail.is_empty() {
            return Err(ProtocolError::Slot("the slot does not have the size of the rows"));
        }
        match reader.segment(slot.segment)?.rows(&slot)? {
            Rows::Mapped(rows) => {
                lock(&self.live_slots).insert(&slot)?;
                let owner: Weak<dyn SlotOwner> = Arc::<Self>::downgrade(self);
                Ok(Values::Shared { rows, slot: SlotGuard::new(slot, owner) })
            }
            Rows::Copied(bytes) => {
                self.free(slot);
                Ok(Values::copied(embedded.element, bytes))
            }
        }
    }
}

/// Quantised rows have a range for each of their columns, and other rows have none.
fn check_ranges(embedded: &Embedded) -> Result<(), ProtocolError> {
    let is_quantized = matches!(embedded.element, ElementType::I8 | ElementType::U8);
    let columns = embedded.dimension as usize;
    let fits = match &embedded.ranges {
        Some(ranges) => {
            is_quantized && ranges.starts.len() == columns && ranges.steps.len() == columns
        }
        None => !is_quantized || embedded.rows == 0,
    };
    if fits {
        return Ok(());
    }
    Err(ProtocolError::OutOfPlace("ranges that do not match the rows"))
}
