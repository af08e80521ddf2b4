//! A TOML text with positions: each value with its flat key and its line.

use crate::settings::origin::Origin;
use crate::settings::problem::Problem;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The fault of a key that is given more than once.
pub(super) const TWICE: &str = "this key is set twice: keep one of them";

/// A text of settings, and where it comes from.
pub(super) struct TomlLayer<'a> {
    pub(super) text: &'a str,
    /// The file, or the name of the variable.
    pub(super) path: &'a Path,
    /// The folder that relative paths in it start from.
    pub(super) folder: &'a Path,
    /// The variable that it was made of.
    pub(super) variable: Option<&'a str>,
}

/// A value with its flat key and its position.
pub(super) struct FlatValue<'a> {
    pub(super) key: String,
    pub(super) value: &'a DeValue<'a>,
    pub(super) at: Range<usize>,
}

impl<'a> TomlLayer<'a> {
    /// The readable part of the text, and a problem for each part that is not TOML.
    pub(super) fn parse(&self) -> (Spanned<DeTable<'a>>, Vec<Problem>) {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        let problem = |error: toml::de::Error| {
            let at = error.span().unwrap_or(0..0);
            match error.message() {
                "duplicate key" => self.problem(&at, self.key(&at), TWICE.to_owned()),
                message => self.problem(&at, "", message.to_owned()),
            }
        };
        (document, errors.into_iter().map(problem).collect())
    }

    /// A problem at a position.
    pub(super) fn problem(&self, at: &Range<usize>, key: &str, message: String) -> Problem {
        Problem { path: self.path.to_owned(), line: self.line(at), key: key.into(), message }
    }

    /// A position as the origin of a value.
    pub(super) fn origin(&self, at: &Range<usize>) -> Origin {
        match self.variable {
            Some(name) => Origin::Variable(name.to_owned()),
            None => Origin::File { path: self.path.to_owned(), line: self.line(at) },
        }
    }

    fn line(&self, at: &Range<usize>) -> usize {
        if self.variable.is_some() {
            return 0;
        }
        line_after(&self.text.as_bytes()[..at.start.min(self.text.len())])
    }

    /// The key of a line, or the table that begins there.
    fn key(&self, at: &Range<usize>) -> &str {
        let start =
            self.text.get(..at.start).map_or(0, |text| text.rfind('\n').map_or(0, |at| at + 1));
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let key = line.split_once('=').map_or(line, |(key, _)| key);
        key.trim().trim_start_matches('[').trim_end_matches(']').trim()
    }
}

/// The line, from 1, on which a text continues.
pub(super) fn line_after(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Adds a value, or all values of a table, with their flat keys.
pub(super) fn flatten<'a>(
    key: String,
    value: &'a Spanned<DeValue<'a>>,
    flat: &mut Vec<FlatValue<'a>>,
) {
    match value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten(format!("{key}.{}", name.get_ref()), value, flat);
            }
        }
        single => flat.push(FlatValue { key, value: single, at: value.span() }),
    }
}
