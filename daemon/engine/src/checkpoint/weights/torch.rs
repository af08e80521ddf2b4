//! The files that `torch.save` writes of a state dict: a ZIP archive since version 1.6; before that,
//! pickles followed by the tensors' memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use crate::checkpoint::load_error::{LoadError, TorchFault};
use crate::checkpoint::weights::entry::{TensorEntry, element_bytes, len_u64};
use crate::checkpoint::weights::file::TensorFile;
use crate::checkpoint::weights::pickle::{PickleFault, Unpickler};
use crate::checkpoint::weights::pickle_values::{PickleValue, Storage, TorchTensor};
use crate::checkpoint::weights::strides::Strides;
use crate::checkpoint::weights::zip::{Archive, Span, read};

/// Opens a file and checks that every tensor lies in it.
pub(super) fn open(path: &Path) -> Result<TensorFile, LoadError> {
    let file = TensorFile::open(path)?;
    let mut magic = [0; OLD_MAGIC.len()];
    if file.len() >= len_u64(magic.len()) {
        file.read_at(&mut magic, 0)?;
    }
    let tensors = if magic == OLD_MAGIC {
        old_tensors(&file)?
    } else if magic.starts_with(b"PK\x03\x04") {
        archived_tensors(&file)?
    } else {
        return Err(fault(&file, TorchFault::Foreign));
    };
    Ok(file.with_tensors(tensors))
}

type Tensors = BTreeMap<String, TensorEntry>;

fn archived_tensors(file: &TensorFile) -> Result<Tensors, LoadError> {
    let archive = Archive::open(file)?;
    // `archive/data.pkl`, with `archive/data/KEY` for each storage.
    let Some(name) = archive.names().find(|name| {
        name.strip_suffix("data.pkl").is_some_and(|folder| folder.matches('/').count() == 1)
    }) else {
        return Err(fault(file, TorchFault::Archive("it holds no state dict")));
    };
    let folder = name.trim_end_matches("data.pkl").to_owned();
    let span = archive.span(name)?.filter(|span| span.len <= MAX_PICKLE_BYTES);
    let Some(span) = span else {
        return Err(fault(file, TorchFault::Archive("its state dict is too long")));
    };
    let pickle = read(file, span)?;
    let state = Unpickler::new(&pickle).next().map_err(|source| damaged(file, source))?;
    if let Some(order) = archive.span(&format!("{folder}byteorder"))?
        && order.len <= 8
        && read(file, order)? != b"little"
    {
        return Err(fault(file, TorchFault::Archive("its numbers are not little-endian")));
    }
    placed(file, &state, |storage| archive.span(&format!("{folder}data/{}", storage.key)))
}

fn old_tensors(file: &TensorFile) -> Result<Tensors, LoadError> {
    let len = file.len().min(MAX_PICKLE_BYTES);
    let bytes = read(file, Span { start: 0, len })?;
    let mut pickles = Unpickler::new(&bytes);
    let mut next = || pickles.next().map_err(|source| damaged(file, source));
    // The magic number, the version, the machine that wrote it.
    for _ in 0..3 {
        next()?;
    }
    let (state, keys) = (next()?, next()?);
    let mut at = len_u64(pickles.position());
    let PickleValue::Texts(keys) = keys else { return Err(fault(file, TorchFault::NoStateDict)) };
    // Of all storages that the pickles mention, whether or not a named tensor uses them.
    let size = |storage: &Rc<Storage>| {
        let Storage { class, key, len } = &**storage;
        (Rc::clone(key), len.saturating_mul(element_bytes(dtype_of(class))))
    };
    let sizes: BTreeMap<Rc<str>, u64> = pickles.storages().iter().map(size).collect();
    let mut spans = BTreeMap::new();
    for key in keys.borrow().iter() {
        // The number of elements precedes each storage.
        let start = at.saturating_add(8);
        let Some(&len) = sizes.get(key) else {
            return Err(fault(file, TorchFault::Archive("it holds memory of no tensor")));
        };
        spans.insert(Rc::clone(key), Span { start, len });
        at = start.saturating_add(len);
    }
    if at != file.len() {
        let file_path = file.file().to_owned();
        return Err(LoadError::Truncated { file: file_path, expected: at, found: file.len() });
    }
    placed(file, &state, |storage| Ok(spans.get(&storage.key).copied()))
}

/// Where the tensors of a state dict lie; `span` says where a storage lies.
fn placed(
    file: &TensorFile,
    state: &PickleValue,
    span: impl Fn(&Storage) -> Result<Option<Span>, LoadError>,
) -> Result<Tensors, LoadError> {
    let PickleValue::Tensors(state) = state else {
        return Err(fault(file, TorchFault::NoStateDict));
    };
    let state = state.borrow();
    let mut tensors = Tensors::new();
    for (name, tensor) in state.iter() {
        let wrong = |what| {
            let tensor = name.to_string();
            fault(file, TorchFault::Tensor { tensor, what })
        };
        let dtype = dtype_of(&tensor.storage.class);
        let size = element_bytes(dtype);
        if size == 0 {
            return Err(LoadError::ElementType {
                file: file.file().to_owned(),
                tensor: name.to_string(),
                found: tensor.storage.class.to_string(),
                supported: "FloatStorage, HalfStorage, BFloat16Storage, DoubleStorage",
            });
        }
        let span = span(&tensor.storage)?.ok_or_else(|| wrong("has no memory in the file"))?;
        let strides = match is_row_major(tensor) {
            true => None,
            false => Some(Strides::of(&tensor.shape, &tensor.strides).ok_or_else(|| {
                wrong("has values that overlap in memory; save the model as safetensors")
            })?),
        };
        let count = tensor.shape.iter().try_fold(1, |n: u64, &size| n.checked_mul(len_u64(size)));
        let bytes = |count: u64| count.checked_mul(size);
        let (offset, len_bytes) = (bytes(tensor.offset), count.and_then(bytes));
        let reach = strides.as_ref().map_or(count, |strides| Some(strides.extent()));
        let reach = reach.and_then(bytes);
        let end = offset.zip(reach).and_then(|(offset, reach)| offset.checked_add(reach));
        match (offset, len_bytes, end) {
            (Some(offset), Some(len_bytes), Some(end)) if end <= span.len => {
                let (start, shape) = (span.start + offset, tensor.shape.clone());
                let entry = TensorEntry { dtype: dtype.into(), shape, strides, start, len_bytes };
                tensors.insert(name.to_string(), entry);
            }
            _ => return Err(wrong("is larger than its memory in the file")),
        }
    }
    if tensors.is_empty() {
        return Err(fault(file, TorchFault::NoStateDict));
    }
    Ok(tensors)
}

fn is_row_major(tensor: &TorchTensor) -> bool {
    let mut expected: usize = 1;
    let mut sizes = tensor.shape.iter().zip(&tensor.strides).rev();
    tensor.shape.len() == tensor.strides.len()
        && (tensor.shape.contains(&0)
            || sizes.all(|(&size, &stride)| {
                let fits = size == 1 || stride == expected;
                expected = expected.saturating_mul(size);
                fits
            }))
}

/// The element type of a storage, as safetensors spells it; empty for an unknown one.
fn dtype_of(class: &str) -> &'static str {
    match class {
        "FloatStorage" => "F32",
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "DoubleStorage" => "F64",
        "LongStorage" => "I64",
        "IntStorage" => "I32",
        "ShortStorage" => "I16",
        "CharStorage" => "I8",
        "ByteStorage" => "U8",
        "BoolStorage" => "BOOL",
        _ => "",
    }
}

fn damaged(file: &TensorFile, PickleFault { at, what }: PickleFault) -> LoadError {
    fault(file, TorchFault::Pickle { at, what })
}

fn fault(file: &TensorFile, source: TorchFault) -> LoadError {
    LoadError::Torch { file: file.file().to_owned(), source }
}

/// A state dict has about a hundred bytes a tensor.
const MAX_PICKLE_BYTES: u64 = 4 << 20;

/// A file in the old format begins with this: a pickle of torch's magic number.
const OLD_MAGIC: [u8; 15] =
    [0x80, 2, 0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, b'.'];
