//! Where a result goes, reserved before anything is computed: a result never waits for memory.

use crate::connection::session::Connection;
use crate::daemon::Shared;
use crate::request::embed::wanted::Wanted;
use crate::request::failure::RequestError;
use crate::segment::{Finished, InlineShare, Output, Slot};
use emberd_protocol::{
    Delivery, ElementType, MAX_BODY_BYTES, MAX_FRAME_BYTES, QuantizationRanges, rows_len_bytes,
};

use crate::request::embed::elements;

/// The largest result that comes inline: a frame with room for its message.
pub(crate) const MAX_INLINE_BYTES: u64 = (MAX_FRAME_BYTES - MAX_BODY_BYTES) as u64;

/// The homes of a request's rows: one that they are computed into, and where they are wanted as
/// other elements, one for those.
#[derive(Debug)]
pub(crate) struct Homes {
    pub(crate) rows: Output,
    /// Of the rows, where they are on the heap.
    inline: Option<InlineShare>,
    elements: Option<Room>,
}

/// Memory for a result.
#[derive(Debug)]
enum Room {
    Heap(usize, InlineShare),
    Slot(Slot),
}

/// A result that can be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) finished: Finished,
    /// What the numbers of its rows stand for.
    pub(crate) ranges: Option<QuantizationRanges>,
    /// Held until it is written, where it goes inline.
    pub(crate) inline: Option<InlineShare>,
}

impl Homes {
    /// Reserves them.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) async fn reserve(
        shared: &Shared,
        connection: &Connection,
        delivery: Delivery,
        rows: u32,
        wanted: &Wanted,
    ) -> Result<Self, RequestError> {
        let columns = u32::try_from(wanted.shape.used).unwrap_or(u32::MAX);
        let len_bytes = |element| {
            let len_bytes = rows_len_bytes(rows, columns, element);
            len_bytes.ok_or(RequestError::InlineTooLarge {
                len_bytes: u64::MAX,
                limit: MAX_INLINE_BYTES,
            })
        };
        let room = Room::reserve(shared, connection, delivery, len_bytes(wanted.element)?).await?;
        // As 32-bit floats the rows may be too large to be sent inline, but that is not their end.
        let (room, elements) = match wanted.element {
            ElementType::F32 => (room, None),
            _ => {
                let len_bytes = len_bytes(ElementType::F32)?;
                let staging = Room::reserve(shared, connection, Delivery::Auto, len_bytes).await?;
                (staging, Some(room))
            }
        };
        let (rows, columns) = (rows as usize, wanted.shape.used);
        let (rows, inline) = match room {
            Room::Heap(_, share) => (Output::heap(rows, columns), Some(share)),
            Room::Slot(slot) => (Output::slot(slot, rows, columns)?, None),
        };
        Ok(Self { rows, inline, elements })
    }

    /// Turns the written rows into what is sent. Where they are wanted as other elements, a thread
    /// of its own does it.
    ///
    /// # Errors
    /// When a row is still out: a defect.
    pub(crate) async fn finish(self, wanted: Wanted) -> Result<Encoded, RequestError> {
        const OUT: RequestError = RequestError::Defect("a row outlived its computation");
        let Self { mut rows, inline, elements } = self;
        let Some(room) = elements else {
            let finished = rows.finish().map_err(|_| OUT)?;
            return Ok(Encoded { finished, ranges: None, inline });
        };
        let encode = move || {
            let Wanted { element, ranges, shape, .. } = wanted;
            let values = rows.values().ok_or(OUT)?;
            match room {
                Room::Heap(len, share) => {
                    let mut bytes = vec![0; len];
                    let ranges = elements::write(values, shape.used, element, ranges, &mut bytes);
                    let finished = Finished::Inline(bytes);
                    Ok(Encoded { finished, ranges, inline: Some(share) })
                }
                Room::Slot(mut slot) => {
                    let bytes = slot.bytes();
                    let ranges = elements::write(values, shape.used, element, ranges, bytes);
                    Ok(Encoded { finished: slot.hand_over(), ranges, inline: None })
                }
            }
        };
        let encoded = tokio::task::spawn_blocking(encode).await;
        encoded.map_err(|_| RequestError::Defect("the encoding of rows panicked"))?
    }
}

impl Room {
    async fn reserve(
        shared: &Shared,
        connection: &Connection,
        delivery: Delivery,
        len_bytes: u64,
    ) -> Result<Self, RequestError> {
        let settings = shared.settings();
        let settings = &settings.segments;
        let shares = delivery == Delivery::Auto && len_bytes > u64::from(settings.inline_bytes);
        if let Some(pool) = connection.pool.as_ref().filter(|_| shares) {
            return Ok(Self::Slot(pool.reserve(len_bytes, settings.wait).await?));
        }
        match usize::try_from(len_bytes) {
            Ok(len) if len_bytes <= MAX_INLINE_BYTES => {
                let share = connection.inline.reserve(len_bytes, settings.wait).await?;
                Ok(Self::Heap(len, share))
            }
            _ => Err(RequestError::InlineTooLarge { len_bytes, limit: MAX_INLINE_BYTES }),
        }
    }
}
