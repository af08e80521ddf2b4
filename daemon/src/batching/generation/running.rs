//! A text in the batch: its request, its state in the decoder, and its sequences so far.

use crate::batching::generation::config::GenerationConfig;
use crate::batching::generation::detokenizer::Detokenizer;
use crate::batching::generation::queue::QueuedText;
use crate::batching::generation::text_state::{Progress, TextState};
use crate::batching::text_job::TextError;
use emberd_engine::{ComputeError, Decoder, EncoderOutputId, HypothesisId, Seq2SeqModel, Sequence};
use emberd_protocol::Event;

/// A tokenized text that may join the batch.
pub(super) struct PendingText {
    pub(super) text: QueuedText,
    pub(super) input: Sequence,
    pub(super) seed: u64,
    /// The pieces that were streamed.
    pub(super) detokenizer: Detokenizer,
    /// Whether it was in a batch that failed.
    pub(super) retry_alone: bool,
}

/// A text of the batch.
pub(super) struct RunningText {
    pub(super) pending: PendingText,
    pub(super) in_decoder: DecoderEntry,
    pub(super) state: TextState,
}

/// What the decoder holds for a text: its encoded input, and a row for each sequence or beam.
pub(super) struct DecoderEntry {
    pub(super) input: EncoderOutputId,
    pub(super) rows: Vec<HypothesisId>,
}

/// Changes to the decoder between two steps.
#[derive(Default)]
pub(super) struct DecoderChanges {
    /// Rows of beams, and for each the number of the beam that it continues.
    pub(super) reordered: Vec<(Vec<HypothesisId>, Vec<usize>)>,
    /// Texts that leave.
    pub(super) left: Vec<DecoderEntry>,
}

impl DecoderEntry {
    /// Adds the rows of a text.
    ///
    /// # Errors
    /// When the decoder refuses one; the others stay.
    pub(super) fn begin(
        &mut self,
        decoder: &mut dyn Decoder,
        config: &GenerationConfig,
    ) -> Result<(), ComputeError> {
        for _ in 0..config.rows() {
            // The start token takes a position too.
            self.rows.push(decoder.begin(self.input, config.max_new_tokens + 1)?);
        }
        Ok(())
    }

    /// Removes the text from the decoder.
    pub(super) fn leave(self, decoder: &mut dyn Decoder) {
        self.rows.into_iter().for_each(|row| decoder.end(row));
        decoder.forget(self.input);
    }
}

impl RunningText {
    /// Advances by the logits of its rows, and streams the next piece.
    ///
    /// # Errors
    /// When every token is excluded, or the tokenizer fails.
    pub(super) fn advance(
        &mut self,
        model: &dyn Seq2SeqModel,
        logits: &mut [f32],
    ) -> Result<Progress, TextError> {
        let progress = self.state.advance(logits, &|ids| Ok(model.detokenize(ids)?))?;
        let PendingText { text, detokenizer, .. } = &mut self.pending;
        if let Some(sink) = &text.job.params.sink {
            let (so_far, ids) = self.state.so_far();
            let piece = match progress {
                Progress::End => detokenizer.finish(so_far),
                Progress::Continue | Progress::Reorder(_) => {
                    let settled = model.settled_bytes(ids, so_far)?;
                    detokenizer.push(&so_far[..settled], self.state.stops())
                }
            };
            if let Some(piece) = piece {
                let tokens = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                sink(Event::Piece { text: text.position(), piece, tokens });
            }
        }
        Ok(progress)
    }
}

impl DecoderChanges {
    /// Notes that the beams of a text go on, each from the beam of this number.
    pub(super) fn reorder(&mut self, rows: &[HypothesisId], mut from: Vec<usize>) {
        // There may be fewer beams than rows; the other rows stay.
        from.extend(from.len()..rows.len());
        if !from.iter().enumerate().all(|(row, from)| row == *from) {
            self.reordered.push((rows.to_vec(), from));
        }
    }
}
