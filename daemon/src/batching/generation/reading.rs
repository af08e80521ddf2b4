//! The text of an answer while its tokens come: what of it can be shown, and where it ends.
//!
//! Whatever has been shown stays: an unfinished character, a space that the next token may swallow
//! and the beginning of a stop string are held back until more is known.

/// The marks of bytes that are no character, or not yet one.
const UNFINISHED: char = char::REPLACEMENT_CHARACTER;

/// What follows a space that some tokenizers drop, before it is whole: transformers cleans up
/// ` n't`, ` 've` and the like when it decodes.
const SWALLOWING: [&str; 6] = ["", "n", "n'", "'", "'v", "'r"];

/// Where a stop string begins first.
pub(super) fn find_stop(text: &str, stops: &[String]) -> Option<usize> {
    stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
}

/// An answer as it is shown, piece by piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    shown: String,
}

impl Reading {
    /// Takes the text of all tokens so far, in which no stop string is whole, and answers what can
    /// be shown beyond what was.
    pub(super) fn read(&mut self, text: &str, stops: &[String]) -> Option<String> {
        self.show(&text[..settled(text, stops)])
    }

    /// Takes the text of the whole answer, cut before its stop string, and answers what was not
    /// shown yet.
    pub(super) fn finish(&mut self, text: &str) -> Option<String> {
        self.show(text)
    }

    /// What was shown so far.
    pub(super) fn into_shown(self) -> String {
        self.shown
    }

    fn show(&mut self, text: &str) -> Option<String> {
        // A tokenizer may take back what it said (bytes that turn out to be no character).
        let piece = text.strip_prefix(self.shown.as_str()).filter(|piece| !piece.is_empty())?;
        let piece = piece.to_owned();
        self.shown.push_str(&piece);
        Some(piece)
    }
}

/// How much of a text, in bytes, stays as it is whatever comes next.
fn settled(text: &str, stops: &[String]) -> usize {
    let whole = text.trim_end_matches(UNFINISHED);
    let spaced = match whole.rfind(' ') {
        Some(space) if SWALLOWING.contains(&&whole[space + 1..]) => &whole[..space],
        _ => whole,
    };
    // A quote between spaces loses both of them.
    let spaced = spaced.strip_suffix(" '").unwrap_or(spaced);
    let begun = stops.iter().map(|stop| begun(spaced, stop)).max().unwrap_or(0);
    spaced.len() - begun
}

/// How many bytes at the end of a text begin a stop string.
fn begun(text: &str, stop: &str) -> usize {
    let fronts = stop.char_indices().map(|(end, _)| &stop[..end]);
    fronts.filter(|front| text.ends_with(front)).map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that the prefixes of an answer show one after another.
    fn pieces(prefixes: &[&str], stops: &[&str]) -> Vec<String> {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut reading = Reading::default();
        let mut pieces = Vec::new();
        for text in prefixes {
            if let Some(stop) = find_stop(text, &stops) {
                pieces.extend(reading.finish(&text[..stop]));
                return pieces;
            }
            pieces.extend(reading.read(text, &stops));
        }
        pieces.extend(reading.finish(prefixes[prefixes.len() - 1]));
        pieces
    }

    #[test]
    fn text_is_shown_as_it_comes() {
        let shown = pieces(&["one", "one two", "one two three"], &[]);
        assert_eq!(shown, ["one", " two", " three"]);
    }

    #[test]
    fn an_unfinished_character_waits_for_its_rest() {
        let shown = pieces(&["caf\u{fffd}", "café", "café \u{fffd}\u{fffd}", "café 😀"], &[]);
        assert_eq!(shown, ["caf", "é", " 😀"]);
        let broken = pieces(&["a\u{fffd}", "a\u{fffd}b", "a\u{fffd}b\u{fffd}"], &[]);
        assert_eq!(broken, ["a", "\u{fffd}b", "\u{fffd}"]);
    }

    #[test]
    fn a_space_waits_until_nothing_swallows_it() {
        assert_eq!(pieces(&["is ", "is."], &[]), ["is", "."]);
        assert_eq!(pieces(&["do n", "don't", "don't x"], &[]), ["do", "n't", " x"]);
        assert_eq!(pieces(&["do n", "do now"], &[]), ["do", " now"]);
        assert_eq!(pieces(&["we '", "we 'v", "we've"], &[]), ["we", "'ve"]);
        assert_eq!(pieces(&["a '", "a ' ", "a'b"], &[]), ["a", "'b"]);
    }

    #[test]
    fn what_begins_a_stop_string_is_shown_only_if_it_was_none() {
        let all = pieces(&["a", "a\n", "a\n\n", "a\n\nb"], &["\n\nEnd"]);
        assert_eq!(all, ["a", "\n\nb"]);
        let cut = pieces(&["a", "a E", "a En", "a End", "a Ends"], &["End"]);
        assert_eq!(cut, ["a", " "]);
        // The longest beginning counts, and the first stop string that is whole.
        let two = pieces(&["xab", "xabab", "xababc"], &["ababc", "bc"]);
        assert_eq!(two.concat(), "x");
    }

    #[test]
    fn what_a_tokenizer_takes_back_is_waited_for() {
        let shown = pieces(&["\n", "\u{fffd}\u{fffd}", "\n😀"], &[]);
        assert_eq!(shown, ["\n", "😀"]);
    }
}
