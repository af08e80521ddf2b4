//! Rules that replace characters, as sentencepiece compiles them (`precompiled_charsmap`).
//!
//! The rules are a trie in a double array (of `darts-clone`). Its leaves are offsets into a text of
//! replacements, each of which ends with a zero byte. The `tokenizers` library follows the trie without
//! bounds checks, and so does this module once the rules are parsed; [`Charsmap::parse`] therefore
//! checks every unit.

/// Rules that were checked: no text leads out of bounds.
#[derive(Debug)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: Box<str>,
}

/// The longest replacement. The longest of Unicode's compatibility forms has 33 bytes; without a limit
/// a hostile file could make a short text fill the memory.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// The longest text that a rule replaces. A trie with a cycle would otherwise be followed without end.
const MAX_RULE_BYTES: usize = 256;

impl Charsmap {
    /// Parses compiled rules; `None` if some text could lead out of bounds.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let (units, []) = trie.as_chunks::<4>() else { return None };
        let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements: Box<str> = str::from_utf8(replacements).ok()?.into();
        let map = Self { units, replacements };
        let is_sound = !map.units.is_empty()
            && map.replacements.ends_with('\0')
            && map.replacements.split('\0').all(|text| text.len() <= MAX_REPLACEMENT_BYTES)
            && (0..map.units.len()).all(|at| map.is_sound(at));
        is_sound.then_some(map)
    }

    /// The longest prefix of a text that has a rule: its length in bytes, and its replacement.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut at = Unit(self.units[0]).offset();
        let mut longest = None;
        for (i, &byte) in text.as_bytes().iter().take(MAX_RULE_BYTES).enumerate() {
            at ^= usize::from(byte);
            let unit = Unit(self.units[at]);
            if byte == 0 || !unit.leads_from(byte) {
                break;
            }
            at ^= unit.offset();
            if unit.has_leaf() {
                longest = Some((i + 1, Unit(self.units[at]).value()));
            }
        }
        let (len, offset) = longest?;
        let replacement = self.replacements[offset..].split('\0').next()?;
        // sentencepiece makes no rule for half a character.
        text.is_char_boundary(len).then_some((len, replacement))
    }

    /// Whether all units that a unit leads to exist. Unreachable units are checked as well, because
    /// finding them would take longer; sentencepiece writes them so that they pass.
    fn is_sound(&self, at: usize) -> bool {
        let unit = Unit(self.units[at]);
        if at > 0 && unit.is_leaf() {
            return true;
        }
        // All 256 successors, one for each byte, are in one block.
        let next = at ^ unit.offset();
        let is_replacement = |leaf: u32| {
            let offset = Unit(leaf).value();
            Unit(leaf).is_leaf()
                && offset < self.replacements.len()
                && self.replacements.is_char_boundary(offset)
        };
        (next | 0xFF) < self.units.len() && (!unit.has_leaf() || is_replacement(self.units[next]))
    }
}

/// An entry of the double array: the byte that leads to it, and the offset of its successors.
#[derive(Debug, Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// Whether it holds the value of its predecessor (the offset of a replacement) and has no
    /// successors.
    fn is_leaf(self) -> bool {
        self.0 >> 31 == 1
    }

    fn value(self) -> usize {
        (self.0 & 0x7FFF_FFFF) as usize
    }

    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn leads_from(self, byte: u8) -> bool {
        self.0 & 0x8000_00FF == u32::from(byte)
    }

    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 0x200) >> 6)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules with a single one: `a` becomes the replacement at `offset`.
    fn rules(offset: u32, replacements: &str) -> Vec<u8> {
        let mut units = vec![0_u32; 512];
        // The root leads to the second block of 256; there `a` leads back to that block's start.
        let a = 256 + usize::from(b'a');
        units[0] = 256 << 10;
        units[a] = u32::from(b'a') | 1 << 8 | u32::from(b'a') << 10;
        units[256] = 1 << 31 | offset;
        let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&2048_u32.to_le_bytes()[..], &bytes, replacements.as_bytes()].concat()
    }

    #[test]
    fn a_rule_is_found_at_the_beginning_of_a_text() {
        let map = Charsmap::parse(&rules(2, "x\0yz\0")).unwrap();
        assert_eq!(map.longest("ab"), Some((1, "yz")));
        for text in ["", "b", "\0", "ä"] {
            assert_eq!(map.longest(text), None);
        }
        // By `a` these rules lead in a circle.
        let circles = "a".repeat(1000);
        assert_eq!(map.longest(&circles), Some((MAX_RULE_BYTES, "yz")));
    }

    #[test]
    fn rules_that_lead_outside_are_refused() {
        assert!(Charsmap::parse(&rules(0, "x\0")).is_some());
        assert!(Charsmap::parse(&rules(1, "ä\0")).is_none(), "within a character");
        assert!(Charsmap::parse(&rules(9, "x\0")).is_none(), "past the replacements");
        assert!(Charsmap::parse(&rules(0, "x")).is_none(), "not terminated");
        let long = format!("{}\0", "x".repeat(257));
        assert!(Charsmap::parse(&rules(0, &long)).is_none(), "too long a replacement");
        let whole = rules(0, "x\0");
        for len in 0..whole.len() {
            assert!(Charsmap::parse(&whole[..len]).is_none(), "{len}");
        }
        // A unit that leads past the end of the array.
        let mut outside = whole.clone();
        outside[4 + 4 * 300..][..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        assert!(Charsmap::parse(&outside).is_none());
        outside = whole;
        outside[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Charsmap::parse(&outside).is_none());
    }
}
