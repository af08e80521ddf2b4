//! A text in the batch: what it is, what it holds in the decoder, and what has been made of it.

use crate::batching::generation::config::GenerationConfig;
use crate::batching::generation::making::{Making, Progress};
use crate::batching::generation::queue::Item;
use crate::batching::generation::reading::Reading;
use crate::batching::text_job::TextError;
use emberd_engine::{ComputeError, Sequence};
use emberd_engine::{Decoder, EncoderOutputId, HypothesisId, Seq2SeqModel};
use emberd_protocol::Event;

/// A text that is ready to join.
pub(super) struct Pending {
    pub(super) text: Item,
    pub(super) input: Sequence,
    pub(super) seed: u64,
    /// What was streamed already.
    pub(super) shown: Reading,
    /// Whether it was in a batch that failed.
    pub(super) suspect: bool,
}

/// A text whose answers are being made.
pub(super) struct Running {
    pub(super) pending: Pending,
    pub(super) place: Place,
    pub(super) making: Making,
}

/// What a text holds in the decoder.
pub(super) struct Place {
    pub(super) source: EncoderOutputId,
    pub(super) rows: Vec<HypothesisId>,
}

/// What is to be done in the decoder between two steps.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) reordered: Vec<(Vec<HypothesisId>, Vec<usize>)>,
    pub(super) left: Vec<Place>,
}

impl Place {
    pub(super) fn begin(
        &mut self,
        decoder: &mut dyn Decoder,
        config: &GenerationConfig,
    ) -> Result<(), ComputeError> {
        for _ in 0..config.rows() {
            // The start token takes a place too.
            self.rows.push(decoder.begin(self.source, config.max_new_tokens + 1)?);
        }
        Ok(())
    }

    pub(super) fn leave(self, decoder: &mut dyn Decoder) {
        self.rows.into_iter().for_each(|row| decoder.end(row));
        decoder.forget(self.source);
    }
}

impl Running {
    /// Takes the logits of its rows, and shows what came of them.
    pub(super) fn advance(
        &mut self,
        model: &dyn Seq2SeqModel,
        logits: &mut [f32],
    ) -> Result<Progress, TextError> {
        let progress = self.making.advance(logits, &|ids| Ok(model.decode(ids)?))?;
        let Pending { text, shown, .. } = &mut self.pending;
        if let Some(sink) = &text.job.wish.sink {
            let (so_far, ids) = self.making.so_far();
            let piece = match progress {
                Progress::End => shown.finish(so_far),
                Progress::Continue | Progress::Reorder(_) => {
                    let settled = model.settled_bytes(ids, so_far)?;
                    shown.read(&so_far[..settled], self.making.stops())
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

impl Changes {
    pub(super) fn reorder(&mut self, rows: &[HypothesisId], mut from: Vec<usize>) {
        // Fewer beams may be left than rows: the rest stays as it is.
        from.extend(from.len()..rows.len());
        if !from.iter().enumerate().all(|(row, from)| row == *from) {
            self.reordered.push((rows.to_vec(), from));
        }
    }
}
