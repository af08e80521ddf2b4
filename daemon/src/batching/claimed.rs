//! Which texts of a batch are still to be computed.

use crate::batching::row_job::TokenizedText;
use crate::batching::single_flight::Claim;

/// A batch after its texts were claimed. The texts that another worker computes are in neither
/// list: that worker returns them.
#[derive(Debug)]
pub(super) struct ClaimedBatch {
    /// To be computed now; each must land or be abandoned afterwards.
    pub(super) granted: Vec<TokenizedText>,
    /// Filled with a row that another worker has computed.
    pub(super) filled: Vec<TokenizedText>,
}

impl ClaimedBatch {
    /// Claims each text of a batch that is about to be computed.
    pub(super) fn of(batch: Vec<TokenizedText>) -> Self {
        let mut claimed = Self { granted: Vec::with_capacity(batch.len()), filled: Vec::new() };
        for text in batch {
            let Some(ticket) = &text.target.ticket else {
                claimed.granted.push(text);
                continue;
            };
            let flight = ticket.flight();
            match flight.claim(text) {
                Claim::Granted(text) => claimed.granted.push(text),
                Claim::Attached => {}
                Claim::Landed(mut text, row) => {
                    text.target.fill(&row.values);
                    claimed.filled.push(text);
                }
            }
        }
        claimed
    }
}
