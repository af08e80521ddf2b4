//! Where a request's rows go. It is reserved before anything is computed, so that a finished result
//! never waits for memory.

use crate::request::answer::Promise;
use crate::request::caller::Caller;
use crate::request::embed::elements;
use crate::request::embed::plan::EmbedPlan;
use crate::request::failure::RequestError;
use crate::request::state::DaemonState;
use crate::segment::{Finished, InlineShare, Output, Slot};
use emberd_protocol::{
    Delivery, ElementType, MAX_BODY_BYTES, MAX_FRAME_BYTES, QuantizationRanges, rows_len_bytes,
};

/// The largest result that goes inline: what a frame holds besides its message.
pub(in crate::request) const MAX_INLINE_BYTES: u64 = (MAX_FRAME_BYTES - MAX_BODY_BYTES) as u64;

/// The memory for a request's rows.
#[derive(Debug)]
pub(super) struct Destination {
    /// What the model writes into. It is what the client reads, unless that gets other elements.
    pub(super) rows: Output,
    /// The right to hold the rows in memory, if they are on the heap.
    share: Option<InlineShare>,
    /// Where the client reads elements other than 32-bit floats.
    elements: Option<ResultMemory>,
}

/// Finished rows, ready to be sent.
#[derive(Debug)]
pub(super) struct FinishedRows {
    /// The rows, if they go inline.
    pub(super) tail: Vec<u8>,
    pub(super) promise: Promise,
    /// What the numbers of quantised rows stand for.
    pub(super) ranges: Option<QuantizationRanges>,
}

impl Destination {
    /// Reserves memory for as many rows as the request has texts, waiting for it as long as the
    /// settings say.
    ///
    /// # Errors
    /// When there is no room, or the rows are too large to go inline and have no other way.
    pub(super) async fn reserve(
        state: &DaemonState,
        caller: &Caller,
        delivery: Delivery,
        rows: u32,
        plan: &EmbedPlan,
    ) -> Result<Self, RequestError> {
        let columns = u32::try_from(plan.shape.used).unwrap_or(u32::MAX);
        let len_bytes = |element| {
            let len_bytes = rows_len_bytes(rows, columns, element);
            let limit = MAX_INLINE_BYTES;
            len_bytes.ok_or(RequestError::InlineTooLarge { len_bytes: u64::MAX, limit })
        };
        let target =
            ResultMemory::reserve(state, caller, delivery, len_bytes(plan.element)?).await?;
        let (target, elements) = match plan.element {
            ElementType::F32 => (target, None),
            ElementType::F16
            | ElementType::I8
            | ElementType::U8
            | ElementType::Binary
            | ElementType::Ubinary => {
                let len_bytes = len_bytes(ElementType::F32)?;
                // As floats the rows may be too large to go inline, which they need not.
                let staging =
                    ResultMemory::reserve(state, caller, Delivery::Auto, len_bytes).await?;
                (staging, Some(target))
            }
        };
        let (rows, columns) = (rows as usize, plan.shape.used);
        let (rows, share) = match target {
            ResultMemory::Heap(_, share) => (Output::heap(rows, columns), Some(share)),
            ResultMemory::Slot(slot) => (Output::slot(slot, rows, columns)?, None),
        };
        Ok(Self { rows, share, elements })
    }

    /// Turns the written rows into what is sent. Converting elements takes a thread of its own.
    ///
    /// # Errors
    /// When a row is still being written (a defect), or shared memory was tampered with.
    pub(super) async fn finish(self, plan: EmbedPlan) -> Result<FinishedRows, RequestError> {
        const OUT: RequestError = RequestError::Defect("a row outlived its computation");
        let Self { mut rows, share, elements } = self;
        let Some(target) = elements else {
            return finished(rows.finish().map_err(|_| OUT)?, share, None);
        };
        let convert = move || {
            let EmbedPlan { element, ranges, shape, .. } = plan;
            let values = rows.values().ok_or(OUT)?;
            let write =
                |bytes: &mut [u8]| elements::write(values, shape.used, element, ranges, bytes);
            match target {
                ResultMemory::Heap(len, share) => {
                    let mut bytes = vec![0; len];
                    let ranges = write(&mut bytes);
                    finished(Finished::Inline(bytes), Some(share), ranges)
                }
                ResultMemory::Slot(mut slot) => {
                    let ranges = write(slot.bytes());
                    finished(slot.hand_over(), None, ranges)
                }
            }
        };
        let converted = tokio::task::spawn_blocking(convert).await;
        converted.map_err(|_| RequestError::Defect("the conversion of rows panicked"))?
    }
}

/// Memory for one result.
#[derive(Debug)]
enum ResultMemory {
    Heap(usize, InlineShare),
    Slot(Slot),
}

impl ResultMemory {
    async fn reserve(
        state: &DaemonState,
        caller: &Caller,
        delivery: Delivery,
        len_bytes: u64,
    ) -> Result<Self, RequestError> {
        let settings = state.settings();
        let settings = &settings.segments;
        let is_shared = delivery == Delivery::Auto && len_bytes > u64::from(settings.inline_bytes);
        if let Some(pool) = caller.pool.as_ref().filter(|_| is_shared) {
            return Ok(Self::Slot(pool.reserve(len_bytes, settings.wait).await?));
        }
        match usize::try_from(len_bytes) {
            Ok(len) if len_bytes <= MAX_INLINE_BYTES => {
                let share = caller.inline.reserve(len_bytes, settings.wait).await?;
                Ok(Self::Heap(len, share))
            }
            Ok(_) | Err(_) => {
                Err(RequestError::InlineTooLarge { len_bytes, limit: MAX_INLINE_BYTES })
            }
        }
    }
}

fn finished(
    finished: Finished,
    share: Option<InlineShare>,
    ranges: Option<QuantizationRanges>,
) -> Result<FinishedRows, RequestError> {
    match finished {
        Finished::Inline(tail) => {
            let promise = share.map_or(Promise::Nothing, Promise::Inline);
            Ok(FinishedRows { tail, promise, ranges })
        }
        Finished::Slot(slot) => {
            Ok(FinishedRows { tail: Vec::new(), promise: Promise::Slot(slot), ranges })
        }
        Finished::Lost(error) => Err(error.into()),
    }
}
