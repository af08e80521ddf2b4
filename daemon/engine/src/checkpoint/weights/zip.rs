//! The directory of a ZIP archive with uncompressed entries, which is what torch writes.
//!
//! Only the spans of entries are read, and each is checked against the file's length; nothing is
//! unpacked.

use std::collections::BTreeMap;

use crate::checkpoint::load_error::{LoadError, TorchFault};
use crate::checkpoint::weights::entry::len_u64;
use crate::checkpoint::weights::file::TensorFile;

/// An archive's entries by name.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    file: &'a TensorFile,
    entries: BTreeMap<String, ZipEntry>,
}

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) len: u64,
}

impl<'a> Archive<'a> {
    /// Reads the directory at the end of a file.
    pub(super) fn open(file: &'a TensorFile) -> Result<Self, LoadError> {
        let directory = Self::directory(file)?;
        if directory.len > MAX_DIRECTORY_BYTES {
            return Err(fault(file, "its directory is too long"));
        }
        let bytes = read(file, directory)?;
        let entries =
            parse_directory(&bytes).ok_or_else(|| fault(file, "its directory is damaged"))?;
        Ok(Self { file, entries })
    }

    /// The names of the entries.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry are; `None` if there is no such entry.
    pub(super) fn span(&self, name: &str) -> Result<Option<Span>, LoadError> {
        let Some(&ZipEntry { method, packed, len, header }) = self.entries.get(name) else {
            return Ok(None);
        };
        if method != 0 || packed != len {
            return Err(fault(self.file, "an entry is compressed, which torch never does"));
        }
        let bytes = read(self.file, Span { start: header, len: 30 })?;
        let lens =
            LittleEndian(&bytes).u32(0).filter(|&magic| magic == 0x0403_4B50).and_then(|_| {
                Some(
                    u64::from(LittleEndian(&bytes).u16(26)?)
                        + u64::from(LittleEndian(&bytes).u16(28)?),
                )
            });
        let start = lens.and_then(|lens| header.checked_add(30)?.checked_add(lens));
        let span = start.map(|start| Span { start, len });
        let inside = |span: &Span| {
            span.start.checked_add(span.len).is_some_and(|end| end <= self.file.len())
        };
        match span.filter(inside) {
            Some(span) => Ok(Some(span)),
            None => Err(fault(self.file, "an entry lies beyond its end")),
        }
    }

    /// Finds the directory with the record at the file's end.
    fn directory(file: &TensorFile) -> Result<Span, LoadError> {
        let tail_len = len_u64(MAX_END_BYTES).min(file.len());
        let tail_start = file.len() - tail_len;
        let tail = read(file, Span { start: tail_start, len: tail_len })?;
        let ends_the_file = |at: &usize| {
            let record = LittleEndian(&tail[*at..]);
            record.u32(0) == Some(0x0605_4B50)
                && record
                    .u16(20)
                    .is_some_and(|comment| *at + 22 + usize::from(comment) == tail.len())
        };
        let Some(at) = (0..tail.len().saturating_sub(21)).rev().find(ends_the_file) else {
            return Err(fault(file, "it has no directory, as if it were cut off"));
        };
        let record = LittleEndian(&tail[at..]);
        let (Some(len), Some(start)) = (record.u32(12), record.u32(16)) else {
            return Err(fault(file, "its directory is damaged"));
        };
        if start != u32::MAX && len != u32::MAX {
            return Ok(Span { start: u64::from(start), len: u64::from(len) });
        }
        // Large files have a longer record, and in front of this one a locator that points to it.
        let end = tail_start + len_u64(at);
        let locator =
            end.checked_sub(20).map(|start| read(file, Span { start, len: 20 })).transpose()?;
        let start = locator.as_deref().and_then(|locator| {
            LittleEndian(locator).u32(0).filter(|&magic| magic == 0x0706_4B50)?;
            LittleEndian(locator).u64(8)
        });
        let record =
            start.map(|start| read(file, Span { start, len: 56 })).transpose()?.unwrap_or_default();
        let record = LittleEndian(&record);
        match (record.u32(0), record.u64(40), record.u64(48)) {
            (Some(0x0606_4B50), Some(len), Some(start)) => Ok(Span { start, len }),
            _ => Err(fault(file, "its directory is damaged")),
        }
    }
}

/// Reads a span, which must lie inside the file: a false length cannot make this allocate more than
/// the file's size.
pub(super) fn read(file: &TensorFile, span: Span) -> Result<Vec<u8>, LoadError> {
    let inside = span.start.checked_add(span.len).is_some_and(|end| end <= file.len());
    let Some(len) = usize::try_from(span.len).ok().filter(|_| inside) else {
        return Err(fault(file, "a part of it lies beyond its end"));
    };
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, span.start)?;
    Ok(bytes)
}

/// An entry as the directory lists it.
#[derive(Debug, Clone, Copy)]
struct ZipEntry {
    method: u16,
    packed: u64,
    len: u64,
    /// Offset of the header in front of the entry's bytes.
    header: u64,
}

/// The entries of a directory; `None` if it is damaged.
fn parse_directory(mut bytes: &[u8]) -> Option<BTreeMap<String, ZipEntry>> {
    let mut entries = BTreeMap::new();
    while !bytes.is_empty() {
        let fields = LittleEndian(bytes);
        if fields.u32(0)? != 0x0201_4B50 {
            return None;
        }
        let name_end = 46 + usize::from(fields.u16(28)?);
        let extra_end = name_end + usize::from(fields.u16(30)?);
        let end = extra_end + usize::from(fields.u16(32)?);
        let name = std::str::from_utf8(bytes.get(46..name_end)?).ok()?;
        let mut extra = large_fields(bytes.get(name_end..extra_end)?);
        // Values that do not fit 32 bits are in the extra field, in this order.
        let mut wide = |value: u32| match value {
            u32::MAX => extra.next(),
            value => Some(u64::from(value)),
        };
        let len = wide(fields.u32(24)?)?;
        let packed = wide(fields.u32(20)?)?;
        let header = wide(fields.u32(42)?)?;
        let entry = ZipEntry { method: fields.u16(10)?, packed, len, header };
        if entries.insert(name.to_owned(), entry).is_some() {
            return None;
        }
        bytes = bytes.get(end..)?;
    }
    Some(entries)
}

/// The 64-bit values of an entry's extra field.
fn large_fields(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut values: &[u8] = &[];
    while let (Some(id), Some(len)) = (LittleEndian(extra).u16(0), LittleEndian(extra).u16(2)) {
        let end = 4 + usize::from(len);
        let Some(field) = extra.get(4..end) else { break };
        if id == 1 {
            values = field;
            break;
        }
        extra = &extra[end..];
    }
    values.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Little-endian fields at fixed offsets.
#[derive(Clone, Copy)]
struct LittleEndian<'a>(&'a [u8]);

impl LittleEndian<'_> {
    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }
}

fn fault(file: &TensorFile, what: &'static str) -> LoadError {
    LoadError::Torch { file: file.file().to_owned(), source: TorchFault::Archive(what) }
}

/// A directory of this size has some hundred thousand entries.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// The end record with the longest comment that it may have.
const MAX_END_BYTES: usize = 22 + 0xFFFF;
