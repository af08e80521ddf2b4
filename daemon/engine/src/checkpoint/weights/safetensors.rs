//! The safetensors format. Tensors must follow each other without gap or overlap, and the last one
//! must end where the file ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::checkpoint::load_error::{HeaderFault, LoadError};
use crate::checkpoint::weights::entry::{TensorEntry, element_bytes, len_u64};
use crate::checkpoint::weights::file::TensorFile;

/// Opens a file and checks its header.
pub(super) fn open(file: &Path) -> Result<TensorFile, LoadError> {
    checked(TensorFile::open(file)?)
}

/// A file inside the program.
pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Result<TensorFile, LoadError> {
    checked(TensorFile::embedded(name, bytes))
}

fn checked(weights: TensorFile) -> Result<TensorFile, LoadError> {
    let file = weights.file().to_owned();
    let header = |source| LoadError::Header { file: file.clone(), source };
    let len = weights.len();
    let mut prefix = [0; 8];
    if len < 8 {
        return Err(header(HeaderFault::Length { claimed: 8, available: len }));
    }
    weights.read_at(&mut prefix, 0)?;
    let claimed = u64::from_le_bytes(prefix);
    let available = (len - 8).min(MAX_HEADER_BYTES);
    let Some(size) = usize::try_from(claimed).ok().filter(|_| claimed <= available) else {
        return Err(header(HeaderFault::Length { claimed, available }));
    };
    let mut json = vec![0; size];
    weights.read_at(&mut json, 8)?;
    let Headers(tensors) =
        serde_json::from_slice(&json).map_err(|source| header(HeaderFault::Json(source)))?;
    let base = 8 + claimed;
    let expected = base.saturating_add(check_spans(&tensors).map_err(header)?);
    match len.cmp(&expected) {
        std::cmp::Ordering::Less => Err(LoadError::Truncated { file, expected, found: len }),
        std::cmp::Ordering::Greater => Err(LoadError::Excess { file, expected, found: len }),
        std::cmp::Ordering::Equal => {
            let entries = tensors.into_iter().map(|(name, header)| (name, header.into_entry(base)));
            Ok(weights.with_tensors(entries.collect()))
        }
    }
}

/// The tensors by name.
#[derive(Debug)]
struct Headers(BTreeMap<String, TensorHeader>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut tensors = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let header = map.next_value::<TensorHeader>();
                    let header = header
                        .map_err(|error| A::Error::custom(format!("tensor {name:?}: {error}")))?;
                    if tensors.insert(name.clone(), header).is_some() {
                        return Err(A::Error::custom(format!("tensor {name:?} is listed twice")));
                    }
                }
                Ok(Headers(tensors))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

/// A tensor, as the header describes it.
#[derive(Debug, Deserialize)]
struct TensorHeader {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl TensorHeader {
    fn into_entry(self, base: u64) -> TensorEntry {
        // The offsets were checked against each other and the file's end.
        let (start, end) = self.data_offsets;
        let dtype = self.dtype.into();
        let (start, len_bytes) = (base + start, end - start);
        TensorEntry { dtype, shape: self.shape, strides: None, start, len_bytes }
    }
}

/// Checks that tensors follow each other and that each span fits its shape. Returns where the last
/// one ends.
fn check_spans(tensors: &BTreeMap<String, TensorHeader>) -> Result<u64, HeaderFault> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, header)| header.data_offsets);
    let mut end_before = 0;
    for (name, header) in by_offset {
        let (start, end) = header.data_offsets;
        if start != end_before {
            return Err(HeaderFault::Gap { tensor: name.clone(), start, end_before });
        }
        let size = element_bytes(&header.dtype);
        let bytes =
            header.shape.iter().try_fold(size, |product, &n| product.checked_mul(len_u64(n)));
        // An unknown element type has size 0: its span is checked, but reading the tensor fails.
        let fits = size == 0 || bytes == end.checked_sub(start);
        if !fits || end < start {
            let shape = header.shape.clone();
            return Err(HeaderFault::Span { tensor: name.clone(), start, end, shape });
        }
        end_before = end;
    }
    Ok(end_before)
}

/// The longest header that the format allows.
const MAX_HEADER_BYTES: u64 = 100_000_000;
