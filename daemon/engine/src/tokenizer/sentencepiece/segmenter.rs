//! Splits texts into pieces exactly as the sentencepiece library does (version 0.2.3).
//!
//! The unigram model of the `tokenizers` library differs: it applies character rules to graphemes
//! rather than to the longest match, splits a text at its spaces first, and adds scores in 64 bits,
//! which breaks ties between two segmentations in another way.

use std::path::Path;

use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::charsmap::Charsmap;
use crate::tokenizer::sentencepiece::model::{Piece, PieceKind, SPACE, SentencePieceModel};

/// A unigram model with its character rules.
#[derive(Debug)]
pub(in crate::tokenizer) struct Segmenter {
    charsmap: Option<Charsmap>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    /// Replaces spaces.
    space: char,
    whitespace_as_suffix: bool,
    /// In ascending order of their bytes.
    pieces: Box<[ScoredPiece]>,
    /// The user-defined pieces among them, to which no character rule applies.
    user_defined: Box<[ScoredPiece]>,
    /// The score of a character without a piece.
    unknown_score: f32,
}

impl Segmenter {
    /// Memory of a segmenter in multiples of its file. A piece of a few letters has about ten bytes in
    /// the file; here it has an entry and an allocation of its own.
    pub(in crate::tokenizer) const TIMES_FILE: u64 = 6;

    /// A segmenter for a model, if the model is supported; `file` is for messages.
    pub(in crate::tokenizer) fn new(
        model: &SentencePieceModel,
        file: &Path,
    ) -> Result<Self, LoadError> {
        model.require_unigram(file)?;
        model.require_no_byte_fallback(file)?;
        let charsmap = model.charsmap().map_err(|fault| fault.in_file(file))?;
        let of_kind = |kind| model.pieces.iter().filter(move |piece| piece.kind == kind);
        let scores = of_kind(PieceKind::Normal).map(|piece| piece.score);
        let worst = scores.fold(f32::MAX, f32::min);
        let user_defined = || of_kind(PieceKind::UserDefined).map(ScoredPiece::of);
        let pieces = of_kind(PieceKind::Normal).map(ScoredPiece::of).chain(user_defined());
        let pieces = sorted(pieces.collect());
        if let Some(twice) = pieces.windows(2).find(|pair| pair[0].text == pair[1].text) {
            let source = format!("the piece {:?} occurs twice", twice[0].text).into();
            return Err(LoadError::Tokenizer { file: file.to_owned(), source });
        }
        let normalizer = &model.normalizer;
        Ok(Self {
            charsmap,
            add_dummy_prefix: normalizer.add_dummy_prefix,
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces,
            space: if normalizer.escape_whitespaces { SPACE } else { ' ' },
            whitespace_as_suffix: model.trainer.treat_whitespace_as_suffix,
            pieces,
            user_defined: sorted(user_defined().collect()),
            unknown_score: worst - UNKNOWN_PENALTY,
        })
    }

    /// Calls `each` with the pieces of a text, in order. A run of characters without a piece counts as
    /// one piece.
    pub(in crate::tokenizer) fn segment(&self, text: &str, mut each: impl FnMut(&str)) {
        let text = self.normalize(text);
        let mut pieces = self.best_pieces(&text);
        while let Some((start, mut end, is_unknown)) = pieces.pop() {
            while is_unknown && let Some((_, next, _)) = pieces.pop_if(|(_, _, unknown)| *unknown) {
                end = next;
            }
            each(&text[start..end]);
        }
    }

    /// The text with all rules applied, spelled as in pieces.
    fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while let Some((" ", len)) = self.next(rest) {
                rest = &rest[len..];
            }
        }
        let mut normalized = String::with_capacity(text.len() + text.len() / 2);
        if rest.is_empty() {
            return normalized;
        }
        if self.add_dummy_prefix && !self.whitespace_as_suffix {
            normalized.push(self.space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while let Some((part, len)) = self.next(rest) {
            rest = &rest[len..];
            let part = if after_space { part.trim_start_matches(' ') } else { part };
            if part.is_empty() {
                continue;
            }
            normalized.extend(part.chars().map(|c| if c == ' ' { self.space } else { c }));
            after_space = self.remove_extra_whitespaces && part.ends_with(' ');
        }
        if self.remove_extra_whitespaces {
            normalized.truncate(normalized.trim_end_matches(self.space).len());
        }
        if self.add_dummy_prefix && self.whitespace_as_suffix {
            normalized.push(self.space);
        }
        normalized
    }

    /// The replacement for the beginning of a text, and the bytes that it replaces; `None` at the end of
    /// the text.
    fn next<'a>(&'a self, text: &'a str) -> Option<(&'a str, usize)> {
        let first = text.chars().next()?;
        let mut longest = None;
        each_at(&self.user_defined, text, |piece| longest = Some(&*piece.text));
        if let Some(piece) = longest {
            return Some((piece, piece.len()));
        }
        let rule = self.charsmap.as_ref().and_then(|map| map.longest(text));
        let as_it_is = || (&text[..first.len_utf8()], first.len_utf8());
        Some(rule.map_or_else(as_it_is, |(len, replacement)| (replacement, len)))
    }

    /// The most likely pieces of a normalized text, the last one first: their first byte, their end,
    /// and whether they are unknown.
    fn best_pieces(&self, text: &str) -> Vec<(usize, usize, bool)> {
        let none = Best { score: 0.0, start: None, is_unknown: false };
        let mut best_to = vec![none; text.len() + 1];
        let mut furthest = 0;
        for (start, c) in text.char_indices() {
            let score = best_to[start].score;
            if score.abs() > FAR {
                best_to[start..=furthest].iter_mut().for_each(|best| best.score -= score);
            }
            let so_far = best_to[start].score;
            let mut offer = |len: usize, score: f32, is_unknown| {
                let best = &mut best_to[start + len];
                let score = score + so_far;
                // Of two equally good ones, the first: its last piece is longer.
                if best.start.is_none() || score > best.score {
                    *best = Best { score, start: Some(start), is_unknown };
                }
                furthest = furthest.max(start + len);
            };
            let mut has_single = false;
            each_at(&self.pieces, &text[start..], |piece| {
                offer(piece.text.len(), piece.score, false);
                has_single |= piece.text.len() == c.len_utf8();
            });
            if !has_single {
                offer(c.len_utf8(), self.unknown_score, true);
            }
        }
        let mut pieces = Vec::new();
        let mut end = text.len();
        while let Best { start: Some(start), is_unknown, .. } = best_to[end] {
            pieces.push((start, end, is_unknown));
            end = start;
        }
        pieces
    }
}

#[derive(Debug)]
struct ScoredPiece {
    text: Box<str>,
    score: f32,
}

/// The best segmentation of a text up to a byte.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// The first byte of its last piece; `None` if there is no segmentation up to here.
    start: Option<usize>,
    is_unknown: bool,
}

/// A character without a piece costs this much more than the least likely piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Scores this far from 0 are rebased to 0: 32 bits would no longer tell the scores of pieces apart.
const FAR: f32 = 100_000.0;

impl ScoredPiece {
    fn of(piece: &Piece) -> Self {
        let score = match piece.kind {
            PieceKind::UserDefined => user_defined_score(piece.text.len()),
            _ => piece.score,
        };
        Self { text: piece.text.as_str().into(), score }
    }
}

/// The score of a user-defined piece of `len` bytes; the one in the file does not count. It is above
/// that of normal pieces, and one long piece scores better than several short ones.
#[expect(clippy::cast_possible_truncation, reason = "as the library rounds it")]
fn user_defined_score(len: usize) -> f32 {
    (0.1 * (len as f64 - 1.0)) as f32
}

fn sorted(mut pieces: Vec<ScoredPiece>) -> Box<[ScoredPiece]> {
    pieces.sort_unstable_by(|a, b| a.text.cmp(&b.text));
    pieces.into()
}

/// Calls `each` with the pieces that are prefixes of a text, the shortest first. `pieces` are sorted.
fn each_at<'a>(pieces: &'a [ScoredPiece], text: &str, mut each: impl FnMut(&'a ScoredPiece)) {
    // The pieces that agree with the text up to `at`: always a contiguous range.
    let mut candidates = pieces;
    for (at, byte) in text.bytes().enumerate() {
        let byte_of = |piece: &ScoredPiece| piece.text.as_bytes().get(at).copied();
        let others = &candidates[candidates.partition_point(|piece| byte_of(piece) < Some(byte))..];
        candidates = &others[..others.partition_point(|piece| byte_of(piece) == Some(byte))];
        match candidates.first() {
            None => return,
            Some(first) if first.text.len() == at + 1 => each(first),
            Some(_) => {}
        }
    }
}
