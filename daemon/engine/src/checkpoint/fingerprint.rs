//! 32 bytes that identify everything a model's rows depend on.

use blake3::Hasher;

/// Hashes, part by part, everything that a row depends on besides its text.
///
/// Two models with the same fingerprint compute the same rows, wherever their files are.
#[derive(Debug, Clone)]
pub struct ModelFingerprint(Hasher);

impl ModelFingerprint {
    /// Starts with the architecture and the version of this program: another version may compute
    /// other rows from the same weights.
    #[must_use]
    pub fn new(architecture: &str) -> Self {
        let hasher = Hasher::new_derive_key("emberd model fingerprint, version 1");
        Self(hasher)
            .part("version", env!("CARGO_PKG_VERSION").as_bytes())
            .part("architecture", architecture.as_bytes())
    }

    /// Adds a part. Lengths are hashed too, so that different lists of parts never look the same.
    #[must_use]
    pub fn part(mut self, name: &str, bytes: &[u8]) -> Self {
        for bytes in [name.as_bytes(), bytes] {
            self.0.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// The fingerprint.
    #[must_use]
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::ModelFingerprint;

    #[test]
    fn parts_cannot_be_taken_for_each_other() {
        let parts = |parts: &[(&str, &str)]| {
            let start = ModelFingerprint::new("bert");
            let add = |all: ModelFingerprint, (name, value): &(&str, &str)| {
                all.part(name, value.as_bytes())
            };
            parts.iter().fold(start, add).finish()
        };
        assert_eq!(parts(&[("prompt", "a")]), parts(&[("prompt", "a")]));
        assert_ne!(parts(&[("prompt", "a")]), parts(&[("prompt", ""), ("a", "")]));
        assert_ne!(parts(&[("prompt", "ab")]), parts(&[("prompta", "b")]));
        assert_ne!(parts(&[]), ModelFingerprint::new("static").finish());
    }
}
