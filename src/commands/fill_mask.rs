//! `emberd fill-mask`: the most likely tokens for the masks of texts.

use super::connect;
use super::texts::{self, next_batch, warn_truncated};
use crate::args::FillMask;
use crate::exit::CommandError;
use crate::output;
use emberd_protocol::{FilledMask, FilledText};
use serde::Serialize;

/// Texts sent in one request.
const BATCH: usize = 256;

pub(super) fn run(args: &FillMask) -> Result<(), CommandError> {
    let texts = texts::read(&args.texts, args.file.as_deref())?;
    let model = connect(&args.socket)?.text_model(args.model.as_str())?;
    let (mut filled, mut truncated): (Vec<FilledText>, usize) = (Vec::new(), 0);
    while filled.len() < texts.len() {
        let batch = next_batch(&texts[filled.len()..], BATCH);
        let answer = model.fill_mask(batch, args.top_k)?;
        truncated += answer.texts.iter().filter(|text| text.truncated).count();
        filled.extend(answer.texts);
    }
    if args.json {
        for (index, (text, filled)) in texts.iter().zip(&filled).enumerate() {
            let line =
                FillMaskLine { index, text, masks: &filled.masks, truncated: filled.truncated };
            output::json_line(&line)?;
        }
    } else {
        let rows: Vec<_> = filled.iter().enumerate().flat_map(|(n, text)| rows(n, text)).collect();
        output::table(&["TEXT", "MASK", "SCORE", "TOKEN"], &rows)?;
    }
    warn_truncated(truncated, texts.len(), args.model.as_str(), model.info().max_tokens);
    Ok(())
}

#[derive(Serialize)]
struct FillMaskLine<'a> {
    index: usize,
    text: &'a str,
    masks: &'a [FilledMask],
    truncated: bool,
}

/// One row of the table for each candidate of each mask.
fn rows(index: usize, text: &FilledText) -> Vec<Vec<String>> {
    let of_mask = |(number, mask): (usize, &FilledMask)| {
        let row = |candidate: &emberd_protocol::MaskCandidate| {
            let score = format!("{:.4}", candidate.score);
            vec![(index + 1).to_string(), (number + 1).to_string(), score, candidate.text.clone()]
        };
        mask.candidates.iter().map(row).collect::<Vec<_>>()
    };
    text.masks.iter().enumerate().flat_map(of_mask).collect()
}
