//! What an entry is found by.

use blake3::Hasher;
use std::hash::{BuildHasherDefault, Hasher as StdHasher};

/// Separates this use of blake3 from every other.
const CONTEXT: &str = "emberd embedding cache: one model, one prompt and one scope, version 2";

/// Everything that determines a row but its text: the model, what goes in front of the text, and who
/// may share it.
///
/// Text by text it gives the keys, one short hash each.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySpace([u8; 32]);

/// What determines a row: 32 bytes of blake3 over the model's fingerprint, the prompt, the scope and
/// the text.
///
/// It tells nothing of the text to whoever has the persisted file and cannot guess the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub(super) [u8; 32]);

impl KeySpace {
    /// The keys of a model's rows, of `width` values each. `user` is the user whose rows they are,
    /// or `None` where rows are shared between users; `prompt` is what stands in front of the texts.
    #[must_use]
    pub fn new(fingerprint: &[u8; 32], width: usize, user: Option<u32>, prompt: &str) -> Self {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        hasher.update(fingerprint);
        hasher.update(&(width as u64).to_le_bytes());
        // Of fixed length both ways, so that nothing else reads the same.
        hasher.update(&[u8::from(user.is_some())]);
        hasher.update(&user.unwrap_or_default().to_le_bytes());
        // The last part, so that its end needs no mark. It is not joined with the text: a model may
        // pool the tokens of one and not of the other.
        hasher.update(prompt.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The key of a text's row.
    #[must_use]
    pub fn row(&self, text: &str) -> RowKey {
        // The model and the scope are the hash's key, so the text alone is its message, and needs
        // no length to tell where it ends.
        RowKey(*blake3::keyed_hash(&self.0, text.as_bytes()).as_bytes())
    }
}

/// Without the bytes: they would let a reader of the log test guesses of texts.
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

/// Makes [`FirstBytes`].
pub(super) type KeyHash = BuildHasherDefault<FirstBytes>;

/// Takes a key's first bytes for its hash: they are one already, and nobody can choose them.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(u64);

impl StdHasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// What an array's length is written with: it is always the same.
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
