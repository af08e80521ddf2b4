//! Files as `torch.save` writes them, made by hand.

use safetensors::tensor::Dtype;

use crate::support::OwnedTensor;

/// A state dict as a ZIP archive: torch since 1.6.
pub(crate) fn archive(tensors: &[OwnedTensor]) -> Vec<u8> {
    let pickle = [b"\x80\x02".as_slice(), &state_dict(tensors, false), b"."].concat();
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("archive/data/{i}")).collect();
    let data = names.iter().zip(tensors).map(|(name, tensor)| (&**name, tensor.bytes.as_slice()));
    let mut entries =
        vec![("archive/data.pkl", pickle.as_slice()), ("archive/byteorder", b"little")];
    entries.extend(data);
    entries.push(("archive/version", b"3\n"));
    zip(&entries)
}

/// The same as torch wrote it before: pickles, and the memory behind them.
pub(crate) fn old_format(tensors: &[OwnedTensor]) -> Vec<u8> {
    let magic = b"\x80\x02\x8A\x0Al\xFC\x9CF\xF9 j\xA8P\x19.".as_slice();
    let version = b"\x80\x02M\xE9\x03.".as_slice();
    let mut system = b"\x80\x02}q\x00(".to_vec();
    text(&mut system, "little_endian");
    system.extend(b"\x88u.");
    let mut keys = b"\x80\x02]q\x00(".to_vec();
    (0..tensors.len()).for_each(|i| text(&mut keys, &i.to_string()));
    keys.extend(b"e.");
    let state = [b"\x80\x02".as_slice(), &state_dict(tensors, true), b"."].concat();
    let mut file = [magic, version, &system, &state, &keys].concat();
    for tensor in tensors {
        file.extend((count(tensor) as u64).to_le_bytes());
        file.extend(&tensor.bytes);
    }
    file
}

fn state_dict(tensors: &[OwnedTensor], old: bool) -> Vec<u8> {
    let mut out = b"ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (i, tensor) in tensors.iter().enumerate() {
        let class = match tensor.dtype {
            Dtype::F32 => "FloatStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::I64 => "LongStorage",
            other => panic!("{other:?} is not written here"),
        };
        text(&mut out, &tensor.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{class}\n").as_bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        int(&mut out, count(tensor));
        // The older format has one part more: a view that nobody uses.
        out.extend(if old { b"NtQ".as_slice() } else { b"tQ" });
        int(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        let stride = |at: usize| tensor.shape[at + 1..].iter().product();
        tuple(&mut out, &(0..tensor.shape.len()).map(stride).collect::<Vec<usize>>());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.push(b'u');
    // What a state dict of modules has beside its tensors.
    out.extend(b"}");
    text(&mut out, "_metadata");
    out.extend(b"}sb");
    out
}

fn count(tensor: &OwnedTensor) -> usize {
    tensor.shape.iter().product()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, value: usize) {
    out.push(b'J');
    out.extend(i32::try_from(value).unwrap().to_le_bytes());
}

fn tuple(out: &mut Vec<u8>, values: &[usize]) {
    out.push(b'(');
    values.iter().for_each(|value| int(out, *value));
    out.push(b't');
}

/// A ZIP archive of entries that are stored as they are. Its sums are not computed: they are not
/// looked at.
pub(crate) fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let u32_of = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let u16_of = |value: usize| u16::try_from(value).unwrap().to_le_bytes();
    for (name, bytes) in entries {
        let header = file.len();
        let lens = [u32_of(bytes.len()), u32_of(bytes.len())].concat();
        // torch aligns the bytes of each entry by an extra field of its own.
        let extra = (64 - (header + 30 + name.len() + 4) % 64) % 64;
        file.extend(b"PK\x03\x04\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
        file.extend(&lens);
        file.extend(u16_of(name.len()));
        file.extend(u16_of(extra + 4));
        file.extend(name.as_bytes());
        file.extend(b"FB");
        file.extend(u16_of(extra));
        file.extend(vec![b'Z'; extra]);
        file.extend(*bytes);
        directory
            .extend(b"PK\x01\x02\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
        directory.extend(&lens);
        directory.extend(u16_of(name.len()));
        directory.extend([0; 12]);
        directory.extend(u32_of(header));
        directory.extend(name.as_bytes());
    }
    let start = file.len();
    let len = directory.len();
    file.extend(directory);
    file.extend(b"PK\x05\x06\x00\x00\x00\x00");
    file.extend([u16_of(entries.len()), u16_of(entries.len())].concat());
    file.extend(u32_of(len));
    file.extend(u32_of(start));
    file.extend([0, 0]);
    file
}
