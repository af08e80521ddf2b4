//! The texts that follow a request: first their lengths, then all bytes in one block.
//!
//! ```text
//! count × u32   length of each text in bytes, little-endian
//! bytes         the texts, UTF-8, one after the other
//! ```
//! One check of the block replaces one allocation for each text.

use std::fmt;
use std::ops::Range;

/// Texts in one request, at most.
pub const MAX_TEXTS: u32 = 131_072;

const LENGTH_BYTES: usize = 4;

/// Builds the bytes of a [`TextBlock`].
#[derive(Debug, Clone, Default)]
pub struct TextBuilder {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    count: u32,
}

impl TextBuilder {
    /// Adds a text.
    ///
    /// # Errors
    /// When it is longer than 4 GiB, or there are [`MAX_TEXTS`] already.
    pub fn push(&mut self, text: &str) -> Result<(), TextBlockError> {
        if self.count == MAX_TEXTS {
            return Err(TextBlockError::TooMany { count: u64::from(MAX_TEXTS) + 1 });
        }
        let len = u32::try_from(text.len())
            .map_err(|_| TextBlockError::TooLong { len_bytes: text.len() as u64 })?;
        self.lengths.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.count += 1;
        Ok(())
    }

    /// How many texts were added.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes that follow the request.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.lengths.append(&mut self.bytes);
        self.lengths
    }
}

/// Texts as they arrived, checked once.
#[derive(Clone, PartialEq, Eq)]
pub struct TextBlock {
    /// All texts, one after the other.
    text: String,
    /// The end of each text.
    ends: Vec<u32>,
}

impl TextBlock {
    /// Checks the bytes after a request that announces `count` texts.
    ///
    /// # Errors
    /// When the lengths do not fit the bytes, or a text is not UTF-8.
    pub fn parse(count: u32, mut bytes: Vec<u8>) -> Result<Self, TextBlockError> {
        if count > MAX_TEXTS {
            return Err(TextBlockError::TooMany { count: u64::from(count) });
        }
        let lengths_len = count as usize * LENGTH_BYTES;
        if bytes.len() < lengths_len {
            return Err(TextBlockError::LengthsDoNotFit);
        }
        let texts_len = bytes.len() - lengths_len;
        let mut ends = Vec::with_capacity(count as usize);
        let mut end = 0u64;
        for length in bytes[..lengths_len].chunks_exact(LENGTH_BYTES) {
            end += u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
            ends.push(u32::try_from(end).map_err(|_| TextBlockError::LengthsDoNotFit)?);
        }
        if end != texts_len as u64 {
            return Err(TextBlockError::LengthsDoNotFit);
        }
        bytes.drain(..lengths_len);
        let text = String::from_utf8(bytes).map_err(|_| TextBlockError::NotUtf8)?;
        if let Some(index) = ends.iter().position(|end| !text.is_char_boundary(*end as usize)) {
            return Err(TextBlockError::SplitCharacter { index });
        }
        Ok(Self { text, ends })
    }

    /// How many texts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all texts.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.text.len()
    }

    /// The text at a position, or `None` after the last one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        Some(&self.text[self.range(index)?])
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(start..end)
    }
}

/// Shows the number and size of the texts and not the texts, which may be confidential.
impl fmt::Debug for TextBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextBlock({} texts, {} bytes)", self.len(), self.len_bytes())
    }
}

/// Bytes that are not a block of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextBlockError {
    /// The lengths do not add up to the bytes.
    LengthsDoNotFit,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// A text ends within a character.
    SplitCharacter {
        /// Its position.
        index: usize,
    },
    /// More texts than [`MAX_TEXTS`].
    TooMany {
        /// How many.
        count: u64,
    },
    /// A text of more than 4 GiB.
    TooLong {
        /// Its length.
        len_bytes: u64,
    },
}

impl fmt::Display for TextBlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LengthsDoNotFit => f.write_str("the texts' lengths do not add up to their bytes"),
            Self::NotUtf8 => f.write_str("the texts are not valid UTF-8"),
            Self::SplitCharacter { index } => write!(f, "text {index} ends within a character"),
            Self::TooMany { count } => {
                write!(f, "{count} texts are more than the {MAX_TEXTS} of one request")
            }
            Self::TooLong { len_bytes } => write!(f, "a text of {len_bytes} bytes is too long"),
        }
    }
}

impl std::error::Error for TextBlockError {}
