//! The text of a sequence while its tokens are generated: the part that is final, and where it ends.
//!
//! A piece that was sent cannot be changed. An incomplete character, a space that the next token may
//! remove and the beginning of a stop string are therefore held back until they are final.

#[cfg(test)]
mod tests;

/// Decoders put it for bytes that are not a character, or not yet.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;

/// Beginnings of what removes the space before it: transformers cleans up ` n't`, ` 've` and the
/// like when it decodes.
const REMOVING_SPACE: [&str; 6] = ["", "n", "n'", "'", "'v", "'r"];

/// The position of the first stop string.
pub(super) fn find_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// Turns the growing text of a sequence into pieces to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Detokenizer {
    sent: String,
}

impl Detokenizer {
    /// Takes the text of all tokens so far, without a complete stop string. Returns the next piece
    /// that is final, if any.
    pub(super) fn push(&mut self, text: &str, stops: &[String]) -> Option<String> {
        self.send(&text[..final_len(text, stops)])
    }

    /// Takes the whole text of the sequence, cut before its stop string. Returns the last piece, if
    /// any.
    pub(super) fn finish(&mut self, text: &str) -> Option<String> {
        self.send(text)
    }

    /// All pieces so far.
    pub(super) fn into_sent(self) -> String {
        self.sent
    }

    fn send(&mut self, text: &str) -> Option<String> {
        // A tokenizer may change earlier text (bytes that turn out not to be a character).
        let piece = text.strip_prefix(self.sent.as_str()).filter(|piece| !piece.is_empty())?;
        let piece = piece.to_owned();
        self.sent.push_str(&piece);
        Some(piece)
    }
}

/// Bytes of a text that no further token changes.
fn final_len(text: &str, stops: &[String]) -> usize {
    let whole = text.trim_end_matches(INCOMPLETE);
    let spaced = match whole.rfind(' ') {
        Some(space) if REMOVING_SPACE.contains(&&whole[space + 1..]) => &whole[..space],
        _ => whole,
    };
    // A quote between spaces loses both of them.
    let spaced = spaced.strip_suffix(" '").unwrap_or(spaced);
    let held_back = stops.iter().map(|stop| stop_prefix_len(spaced, stop)).max().unwrap_or(0);
    spaced.len() - held_back
}

/// Bytes at the end of a text that may begin a stop string.
fn stop_prefix_len(text: &str, stop: &str) -> usize {
    let fronts = stop.char_indices().map(|(end, _)| &stop[..end]);
    fronts.filter(|front| text.ends_with(front)).map(str::len).max().unwrap_or(0)
}
