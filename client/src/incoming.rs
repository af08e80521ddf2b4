//! What the daemon sends, checked: answers with their rows, events, segments.

use crate::answer::Answer;
use crate::connection::Connection;
use crate::error::{ProtocolError, TransportError};
use crate::lock;
use crate::reader::Reader;
use crate::rerank::Scores;
use crate::segment::Rows;
use crate::table::Death;
use crate::view::{Embeddings, Values};
use emberd_protocol::{
    ElementType, Embedded, Event, Frame, FrameKind, Place, Response, SegmentId, SegmentRetire,
    SlotRef, rows_len_bytes,
};
use std::io;
use std::sync::Arc;

/// How a read went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Bytes came, and every frame that is whole was handed out.
    Some,
    /// Nothing is there. Only where reads never wait.
    None,
}

impl Connection {
    /// Reads once, and hands out every frame that is whole.
    pub(crate) fn read_some(self: &Arc<Self>) -> Result<Progress, Death> {
        let mut reader = lock(&self.reader);
        match reader.fill(&self.socket) {
            Ok(0) => {
                let path = self.path.clone();
                return Err(Death::Transport(TransportError::Disconnected { path }));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::None),
            Err(error) => return Err(self.lost(&error)),
        }
        while let Some(frame) = reader.decoder.next().map_err(ProtocolError::from)? {
            self.take_in(&mut reader, frame)?;
        }
        // Descriptors come with the first byte of their frame: all of them have found theirs, but
        // for the one that a frame may have of which the rest is yet to come.
        if reader.descriptors.len() > usize::from(reader.decoder.is_mid_frame()) {
            return Err(ProtocolError::Descriptors.into());
        }
        Ok(Progress::Some)
    }

    fn take_in(self: &Arc<Self>, reader: &mut Reader, frame: Frame) -> Result<(), ProtocolError> {
        match frame.kind {
            FrameKind::Response => {
                let id = frame.id;
                let answer = self.answer(reader, frame)?;
                self.deliver(id, answer);
            }
            FrameKind::Event => {
                let event: Event = frame.decode()?;
                let wake = lock(&self.table).happened(frame.id, event)?;
                wake.now();
            }
            // Memory of a user who is not trusted could change while it is read.
            FrameKind::Segment if !self.accepts_segments => {
                return Err(ProtocolError::OutOfPlace("a segment"));
            }
            FrameKind::Segment => reader.announce(&frame)?,
            FrameKind::Retire => {
                let SegmentRetire { segment } = frame.decode()?;
                if self.is_live(segment) {
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

    fn answer(
        self: &Arc<Self>,
        reader: &Reader,
        mut frame: Frame,
    ) -> Result<Answer, ProtocolError> {
        let tail = std::mem::take(&mut frame.tail);
        let response: Response = frame.decode()?;
        if let Response::Reranked(reranked) = response {
            return Ok(Answer::Scores(Scores::new(reranked, &tail)?));
        }
        let Response::Embedded(embedded) = response else {
            if !tail.is_empty() {
                return Err(ProtocolError::OutOfPlace("bytes behind an answer"));
            }
            return Ok(Answer::Other(response));
        };
        check_ranges(&embedded)?;
        let values = self.values(reader, &embedded, tail)?;
        Ok(Answer::Rows(Embeddings::new(embedded, values)))
    }

    fn values(
        self: &Arc<Self>,
        reader: &Reader,
        embedded: &Embedded,
        tail: Vec<u8>,
    ) -> Result<Values, ProtocolError> {
        let wanted = rows_len_bytes(embedded.rows, embedded.dimension, embedded.element);
        let slot = match embedded.place {
            Place::Inline => {
                if wanted != Some(tail.len() as u64) {
                    return Err(ProtocolError::Slot("the values are not as many as the rows need"));
                }
                return Ok(inline(embedded.element, tail));
            }
            Place::Slot(slot) => slot,
        };
        if wanted != Some(slot.len_bytes) || !tail.is_empty() {
            return Err(ProtocolError::Slot("the slot's length is not that of the rows"));
        }
        let segment = reader.segment(slot.segment)?;
        match segment.rows(&slot)? {
            Rows::Mapped(rows) => {
                self.claim(&slot)?;
                Ok(Values::shared(rows, slot, self))
            }
            Rows::Copied(bytes) => {
                self.free(slot);
                Ok(inline(embedded.element, bytes))
            }
        }
    }

    /// Notes that a view shows a slot, unless another view shows a part of it.
    fn claim(&self, slot: &SlotRef) -> Result<(), ProtocolError> {
        let mut live = lock(&self.live);
        let end = slot.offset + slot.len_bytes; // checked against the segment's end before
        let overlapping = live
            .range((slot.segment, 0)..(slot.segment, end))
            .next_back()
            .is_some_and(|(_, other_end)| *other_end > slot.offset);
        if overlapping {
            return Err(ProtocolError::Slot("the slot is shown by a living view"));
        }
        live.insert((slot.segment, slot.offset), end);
        Ok(())
    }

    /// Whether a view shows a part of a segment.
    fn is_live(&self, segment: SegmentId) -> bool {
        lock(&self.live).range((segment, 0)..=(segment, u64::MAX)).next().is_some()
    }
}

/// Rows that are a copy of the client's own. Floats are put where floats may lie.
fn inline(element: ElementType, bytes: Vec<u8>) -> Values {
    match element {
        ElementType::F32 => Values::Inline(
            bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        ),
        _ => Values::InlineBytes(bytes),
    }
}

/// Quantised rows tell what each of their columns stands for, and others do not.
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
    Err(ProtocolError::OutOfPlace("rows and ranges that do not belong together"))
}
