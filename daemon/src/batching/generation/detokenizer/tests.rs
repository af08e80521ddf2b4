//! Chunks of an answer, from its prefixes.

use crate::batching::generation::detokenizer::{Detokenizer, find_stop};

/// The pieces that come of the prefixes of an answer, one after another.
fn pieces(prefixes: &[&str], stops: &[&str]) -> Vec<String> {
    let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
    let mut detokenizer = Detokenizer::default();
    let mut pieces = Vec::new();
    for text in prefixes {
        if let Some(stop) = find_stop(text, &stops) {
            pieces.extend(detokenizer.finish(&text[..stop]));
            return pieces;
        }
        pieces.extend(detokenizer.push(text, &stops));
    }
    pieces.extend(detokenizer.finish(prefixes[prefixes.len() - 1]));
    pieces
}

#[test]
fn text_is_sent_as_it_grows() {
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
fn a_space_waits_until_it_is_final() {
    assert_eq!(pieces(&["is ", "is."], &[]), ["is", "."]);
    assert_eq!(pieces(&["do n", "don't", "don't x"], &[]), ["do", "n't", " x"]);
    assert_eq!(pieces(&["do n", "do now"], &[]), ["do", " now"]);
    assert_eq!(pieces(&["we '", "we 'v", "we've"], &[]), ["we", "'ve"]);
    assert_eq!(pieces(&["a '", "a ' ", "a'b"], &[]), ["a", "'b"]);
}

#[test]
fn the_beginning_of_a_stop_string_waits_until_it_is_decided() {
    let all = pieces(&["a", "a\n", "a\n\n", "a\n\nb"], &["\n\nEnd"]);
    assert_eq!(all, ["a", "\n\nb"]);
    let cut = pieces(&["a", "a E", "a En", "a End", "a Ends"], &["End"]);
    assert_eq!(cut, ["a", " "]);
    // The longest beginning counts, and the first complete stop string.
    let two = pieces(&["xab", "xabab", "xababc"], &["ababc", "bc"]);
    assert_eq!(two.concat(), "x");
}

#[test]
fn text_that_a_tokenizer_changes_later_is_not_sent_again() {
    let shown = pieces(&["\n", "\u{fffd}\u{fffd}", "\n😀"], &[]);
    assert_eq!(shown, ["\n", "😀"]);
}
