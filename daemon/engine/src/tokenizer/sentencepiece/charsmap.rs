//! Rules of which characters become which others, as sentencepiece compiles them.
//!
//! They are a trie in a double array (that of `darts-clone`), whose leaves are places in a text of
//! replacements that each end with a zero byte. The `tokenizers` library follows it without looking
//! whether a place exists, as this module does afterwards: so it is looked at here, once.

/// What a rule makes of some characters, at most: that of a file that would have a short text fill
/// the memory is longer, the longest of Unicode's compatibility forms has 33 bytes.
const MAX_REPLACEMENT_BYTES: usize = 256;

/// The characters that a rule is for, at most: those of a file that leads in circles have no end.
const MAX_RULE_BYTES: usize = 256;

/// Rules that were checked.
#[derive(Debug)]
pub(crate) struct Charsmap {
    units: Vec<u32>,
    replacements: Box<str>,
}

/// A place in the double array: what leads to it, and where those are that it leads to.
#[derive(Debug, Clone, Copy)]
struct Unit(u32);

impl Unit {
    /// Whether it is the leaf of another unit: the place of a replacement, and leads nowhere.
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

impl Charsmap {
    /// `None` where a text could lead out of the rules.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
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

    /// Whether wherever a unit leads is there. Those that nothing leads to are looked at, too, which
    /// is quicker than to find out which they are; sentencepiece writes them so that they pass.
    fn is_sound(&self, at: usize) -> bool {
        let unit = Unit(self.units[at]);
        if at > 0 && unit.is_leaf() {
            return true;
        }
        // What it leads to by any byte lies in one block of 256.
        let next = at ^ unit.offset();
        let is_replacement = |leaf: u32| {
            let place = Unit(leaf).value();
            Unit(leaf).is_leaf()
                && place < self.replacements.len()
                && self.replacements.is_char_boundary(place)
        };
        (next | 0xFF) < self.units.len() && (!unit.has_leaf() || is_replacement(self.units[next]))
    }

    /// The longest beginning of a text that a rule is for: its length, and what it becomes.
    pub(crate) fn longest(&self, text: &str) -> Option<(usize, &str)> {
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
        let (len, place) = longest?;
        // The rule of half a character would be none of sentencepiece's making.
        let replacement = self.replacements[place..].split('\0').next()?;
        text.is_char_boundary(len).then_some((len, replacement))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules with one of them: `a` becomes what stands at `place`.
    fn rules(place: u32, replacements: &str) -> Vec<u8> {
        let mut units = vec![0_u32; 512];
        // From the root to the block of 256 behind it; from there by `a` to its own first place.
        let a = 256 + usize::from(b'a');
        units[0] = 256 << 10;
        units[a] = u32::from(b'a') | 1 << 8 | u32::from(b'a') << 10;
        units[256] = 1 << 31 | place;
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
        // By `a` these rules lead to where they came from.
        let circles = "a".repeat(1000);
        assert_eq!(map.longest(&circles), Some((MAX_RULE_BYTES, "yz")));
    }

    #[test]
    fn rules_that_lead_outside_are_refused() {
        assert!(Charsmap::parse(&rules(0, "x\0")).is_some());
        assert!(Charsmap::parse(&rules(1, "ä\0")).is_none(), "within a character");
        assert!(Charsmap::parse(&rules(9, "x\0")).is_none(), "behind the replacements");
        assert!(Charsmap::parse(&rules(0, "x")).is_none(), "without an end");
        let long = format!("{}\0", "x".repeat(257));
        assert!(Charsmap::parse(&rules(0, &long)).is_none(), "far longer than what it is for");
        let whole = rules(0, "x\0");
        for len in 0..whole.len() {
            assert!(Charsmap::parse(&whole[..len]).is_none(), "{len}");
        }
        // A unit that leads behind the array.
        let mut outside = whole.clone();
        outside[4 + 4 * 300..][..4].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        assert!(Charsmap::parse(&outside).is_none());
        outside = whole;
        outside[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Charsmap::parse(&outside).is_none());
    }
}
