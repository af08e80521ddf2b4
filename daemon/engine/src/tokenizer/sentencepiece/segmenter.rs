//! Texts to pieces, exactly as the sentencepiece library does it (version 0.2.3).
//!
//! The unigram model of the `tokenizers` library differs in places: it looks for rules by graphemes
//! rather than by the longest match, splits a text at its blanks first, and adds its scores in 64 bits,
//! which decides otherwise where two ways to split are as good.

use std::path::Path;

use crate::checkpoint::load_error::LoadError;
use crate::tokenizer::sentencepiece::charsmap::Charsmap;
use crate::tokenizer::sentencepiece::{Piece, PieceKind, SPACE, SentencePieceModel, unsupported};

/// What a character without a piece costs more than the least likely piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Where the score of a way gets so far from 0, all are counted from there: 32 bits would no longer
/// tell the scores of pieces apart.
const FAR: f32 = 100_000.0;

/// A unigram model with its rules for characters.
#[derive(Debug)]
pub(crate) struct Segmenter {
    charsmap: Option<Charsmap>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    /// What a space becomes.
    space: char,
    whitespace_as_suffix: bool,
    /// By their bytes, ascending.
    pieces: Box<[ScoredPiece]>,
    /// Those among them that stay as they are, whatever rules there are.
    user_defined: Box<[ScoredPiece]>,
    /// The score of a character that no piece is there for.
    unknown_score: f32,
}

#[derive(Debug)]
struct ScoredPiece {
    text: Box<str>,
    score: f32,
}

/// The best way to split a text up to some place.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece begins; `None` where there is no way.
    start: Option<usize>,
    is_unknown: bool,
}

impl Segmenter {
    /// Checks that a model can be used; `file` is for messages.
    pub(crate) fn new(model: &SentencePieceModel<'_>, file: &Path) -> Result<Self, LoadError> {
        model.check_algorithm(file)?;
        if model.byte_fallback {
            return Err(unsupported(file, "the setting byte_fallback", "true", "false"));
        }
        let charsmap = model.charsmap().map_err(|fault| fault.of(file))?;
        let of_kind = |kind| model.pieces.iter().filter(move |piece| piece.kind == kind);
        let scores = of_kind(PieceKind::Normal).map(|piece| piece.score);
        let worst = scores.fold(f32::MAX, f32::min);
        let user_defined = || of_kind(PieceKind::UserDefined).map(ScoredPiece::of);
        let pieces = of_kind(PieceKind::Normal).map(ScoredPiece::of).chain(user_defined());
        let pieces = sorted(pieces.collect());
        if let Some(twice) = pieces.windows(2).find(|pair| pair[0].text == pair[1].text) {
            let source = format!("the piece {:?} is there twice", twice[0].text).into();
            return Err(LoadError::Tokenizer { file: file.to_owned(), source });
        }
        let normalizer = model.normalizer;
        Ok(Self {
            charsmap,
            add_dummy_prefix: normalizer.add_dummy_prefix,
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces,
            space: if normalizer.escape_whitespaces { SPACE } else { ' ' },
            whitespace_as_suffix: model.whitespace_as_suffix,
            pieces,
            user_defined: sorted(user_defined().collect()),
            unknown_score: worst - UNKNOWN_PENALTY,
        })
    }

    /// Calls `each` with the pieces of a text, in their order. A run of characters that no piece is
    /// there for is one.
    pub(crate) fn segment(&self, text: &str, mut each: impl FnMut(&str)) {
        let text = self.normalize(text);
        let mut pieces = self.best_pieces(&text);
        while let Some((start, mut end, is_unknown)) = pieces.pop() {
            while is_unknown && let Some((_, next, _)) = pieces.pop_if(|(_, _, unknown)| *unknown) {
                end = next;
            }
            each(&text[start..end]);
        }
    }

    /// A text as the pieces spell it.
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

    /// What the beginning of a text becomes, and how long that is; `None` at its end.
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

    /// The likeliest pieces of a normalized text, the last one first: where each begins and ends,
    /// and whether it is unknown.
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
                // Of two that are as good, the one whose last piece is longer.
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

    /// What it takes in memory for each byte of its file: a piece of few letters has some ten bytes
    /// there, and here its entry and an allocation of its own.
    pub(crate) const TIMES_FILE: u64 = 6;
}

impl ScoredPiece {
    fn of(piece: &Piece<'_>) -> Self {
        let score = match piece.kind {
            PieceKind::UserDefined => user_defined_score(piece.text.len()),
            _ => piece.score,
        };
        Self { text: piece.text.into(), score }
    }
}

/// The score of a user-defined piece of so many bytes, whatever the file says: that of normal ones
/// is below it, and a long one is better than several.
#[expect(clippy::cast_possible_truncation, reason = "as the library rounds it")]
fn user_defined_score(len: usize) -> f32 {
    (0.1 * (len as f64 - 1.0)) as f32
}

fn sorted(mut pieces: Vec<ScoredPiece>) -> Box<[ScoredPiece]> {
    pieces.sort_unstable_by(|a, b| a.text.cmp(&b.text));
    pieces.into()
}

/// Calls `each` with those of sorted pieces that a text begins with, from the shortest on.
fn each_at<'a>(pieces: &'a [ScoredPiece], text: &str, mut each: impl FnMut(&'a ScoredPiece)) {
    // Those that begin as the text does, as far as it was read: always side by side.
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
