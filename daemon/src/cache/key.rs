//! The keys of rows.

use blake3::Hasher;
use std::hash::{BuildHasherDefault, Hasher as StdHasher};

/// Separates this use of blake3 from every other.
const CONTEXT: &str = "emberd embedding cache: one model, one prompt and one scope, version 2";

/// Everything that determines a row except its text: the model, the prompt in front of the text, and
/// the user.
///
/// It turns each text into a key with one short hash.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySpace([u8; 32]);

/// The key of a row: 32 bytes of blake3 over the model's fingerprint, the prompt, the user and the
/// text.
///
/// A reader of the file learns nothing about a text that he cannot guess.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub(super) [u8; 32]);

impl KeySpace {
    /// The keys of a model's rows, of `width` values each. `user` is the owner of the rows, or `None`
    /// if users share them; `prompt` is the text in front of each text.
    #[must_use]
    pub fn new(fingerprint: &[u8; 32], width: usize, user: Option<u32>, prompt: &str) -> Self {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        hasher.update(fingerprint);
        hasher.update(&(width as u64).to_le_bytes());
        // Both cases have the same length, so that no two different inputs hash the same bytes.
        hasher.update(&[u8::from(user.is_some())]);
        hasher.update(&user.unwrap_or_default().to_le_bytes());
        // The prompt is last, so that its end needs no mark. It is not joined with the text: a model
        // may pool only the tokens of one of them.
        hasher.update(prompt.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of a text's row.
    #[must_use]
    pub fn row(&self, text: &str) -> RowKey {
        // The key of the hash covers the rest. The text is the whole message, so its end needs no mark.
        RowKey(*blake3::keyed_hash(&self.0, text.as_bytes()).as_bytes())
    }
}

/// Hides the bytes: with them a reader of the log could test guesses of texts.
impl std::fmt::Debug for KeySpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySpace(..)")
    }
}

impl std::fmt::Debug for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowKey(..)")
    }
}

/// The hasher of tables by key: [`FirstBytes`].
pub(crate) type KeyHash = BuildHasherDefault<FirstBytes>;

/// Uses the first bytes of a key as its hash. A key is a hash already, and nobody can choose it.
#[derive(Debug, Default)]
pub(crate) struct FirstBytes(u64);

impl StdHasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// Ignores the length of the key, which is constant.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_makes_another_key() {
        let model = [1; 32];
        let space = KeySpace::new(&model, 4, Some(1000), "");
        let key = space.row("text");
        assert_eq!(key, KeySpace::new(&model, 4, Some(1000), "").row("text"));
        assert_ne!(key, space.row("text "));
        assert_ne!(key, KeySpace::new(&[2; 32], 4, Some(1000), "").row("text"));
        assert_ne!(key, KeySpace::new(&model, 4, Some(1001), "").row("text"));
        assert_ne!(key, KeySpace::new(&model, 5, Some(1000), "").row("text"));
        assert_ne!(key, KeySpace::new(&model, 4, None, "").row("text"));
        let prompted = KeySpace::new(&model, 4, Some(1000), "te");
        assert_ne!(prompted.row("xt"), key, "a prompt is not a part of the text");
        let root = KeySpace::new(&model, 4, Some(0), "");
        assert_ne!(root, KeySpace::new(&model, 4, None, ""), "root is a user, not everyone");
    }

    #[test]
    fn keys_spread_over_a_table() {
        use std::hash::BuildHasher;
        let space = KeySpace::new(&[0; 32], 4, None, "");
        let hashes: std::collections::BTreeSet<u64> = (0..1000)
            .map(|n: i32| KeyHash::default().hash_one(space.row(&n.to_string())))
            .collect();
        assert_eq!(hashes.len(), 1000);
    }
}
