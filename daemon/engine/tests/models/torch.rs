//! Files in the formats of `torch.save`, made by hand.

use safetensors::tensor::Dtype;

use crate::support::OwnedTensor;

/// How the tensors of a state dict are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Row by row.
    Plain,
    /// Matrices column by column.
    Transposed,
    /// As parts of larger tensors: every second value, and gaps between the rows.
    Parts,
    /// As parameters, some of them with an attribute.
    Parameters,
}

/// A state dict as a ZIP archive: torch since 1.6.
pub(crate) fn archive(tensors: &[OwnedTensor], form: Form) -> Vec<u8> {
    let stored = stored(tensors, form);
    let pickle = [b"\x80\x02".as_slice(), &state_dict(&stored, form, false), b"."].concat();
    let names: Vec<String> = (0..stored.len()).map(|i| format!("archive/data/{i}")).collect();
    let data = names.iter().zip(&stored).map(|(name, tensor)| (&**name, &tensor.memory[..]));
    let mut entries =
        vec![("archive/data.pkl", pickle.as_slice()), ("archive/byteorder", b"little")];
    entries.extend(data);
    entries.push(("archive/version", b"3\n"));
    zip(&entries)
}

/// The same in the older format: pickles, and the memory behind them.
pub(crate) fn old_format(tensors: &[OwnedTensor], form: Form) -> Vec<u8> {
    let stored = stored(tensors, form);
    let magic = b"\x80\x02\x8A\x0Al\xFC\x9CF\xF9 j\xA8P\x19.".as_slice();
    let version = b"\x80\x02M\xE9\x03.".as_slice();
    let mut system = b"\x80\x02}q\x00(".to_vec();
    text(&mut system, "little_endian");
    system.extend(b"\x88u.");
    let mut keys = b"\x80\x02]q\x00(".to_vec();
    (0..stored.len()).for_each(|i| text(&mut keys, &i.to_string()));
    keys.extend(b"e.");
    let state = [b"\x80\x02".as_slice(), &state_dict(&stored, form, true), b"."].concat();
    let mut file = [magic, version, &system, &state, &keys].concat();
    for tensor in stored {
        file.extend((tensor.len as u64).to_le_bytes());
        file.extend(tensor.memory);
    }
    file
}

/// A tensor as torch has it in memory.
struct Stored<'a> {
    tensor: &'a OwnedTensor,
    memory: Vec<u8>,
    /// Elements of the memory.
    len: usize,
    offset: usize,
    strides: Vec<usize>,
}

fn stored(tensors: &[OwnedTensor], form: Form) -> Vec<Stored<'_>> {
    tensors.iter().map(|tensor| Stored::of(tensor, form)).collect()
}

impl<'a> Stored<'a> {
    fn of(tensor: &'a OwnedTensor, form: Form) -> Self {
        let shape = &tensor.shape;
        let plain = |at: usize| shape[at + 1..].iter().product::<usize>();
        let strides = (0..shape.len()).map(plain).collect();
        match (form, &shape[..]) {
            (Form::Transposed, &[rows, _]) => Self::spread(tensor, 0, vec![1, rows]),
            (Form::Parts, &[_]) => Self::spread(tensor, 3, vec![2]),
            (Form::Parts, &[_, columns]) => Self::spread(tensor, 3, vec![2 * columns + 5, 2]),
            _ => Self::spread(tensor, 0, strides),
        }
    }

    /// With these strides, and NaN between the elements.
    fn spread(tensor: &'a OwnedTensor, offset: usize, strides: Vec<usize>) -> Self {
        let count: usize = tensor.shape.iter().product();
        let size = tensor.bytes.len() / count;
        let place = |mut number: usize| {
            let steps = tensor.shape.iter().zip(&strides).rev().map(|(n, stride)| {
                let step = number % n * stride;
                number /= n;
                step
            });
            offset + steps.sum::<usize>()
        };
        let len = 1 + place(count - 1);
        let mut memory = vec![0xFF; len * size];
        for (number, element) in tensor.bytes.chunks(size).enumerate() {
            memory[place(number) * size..][..size].copy_from_slice(element);
        }
        Self { tensor, memory, len, offset, strides }
    }
}

fn state_dict(stored: &[Stored<'_>], form: Form, old: bool) -> Vec<u8> {
    const HOOKS: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (i, Stored { tensor, len, offset, strides, .. }) in stored.iter().enumerate() {
        let class = match tensor.dtype {
            Dtype::F32 => "FloatStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::F64 => "DoubleStorage",
            Dtype::BF16 => "BFloat16Storage",
            Dtype::I64 => "LongStorage",
            // Memory without a type, which is a later argument of another function.
            Dtype::F8_E4M3 => "storage\nUntypedStorage",
            other => panic!("{other:?} is not written here"),
        };
        text(&mut out, &tensor.name);
        let with_state = i % 2 == 0;
        let new_type = tensor.dtype == Dtype::F8_E4M3;
        if form == Form::Parameters {
            let name =
                if with_state { "_rebuild_parameter_with_state" } else { "_rebuild_parameter" };
            out.extend(format!("ctorch._utils\n{name}\n(").as_bytes());
        }
        let version = if new_type { 3 } else { 2 };
        out.extend(format!("ctorch._utils\n_rebuild_tensor_v{version}\n((").as_bytes());
        text(&mut out, "storage");
        let dot = if new_type { "." } else { "\n" };
        out.extend(format!("ctorch{dot}{class}\n").as_bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        int(&mut out, *len);
        // The older format has one more argument: an unused view.
        out.extend(if old { b"NtQ".as_slice() } else { b"tQ" });
        int(&mut out, *offset);
        tuple(&mut out, &tensor.shape);
        tuple(&mut out, strides);
        out.extend([b"\x89", HOOKS].concat());
        if new_type {
            out.extend(b"ctorch\nfloat8_e4m3fn\n");
        }
        out.extend(b"tR");
        if form == Form::Parameters {
            out.extend([b"\x88", HOOKS].concat());
            if with_state {
                out.push(b'}');
                text(&mut out, "_is_hf_initialized");
                out.extend(b"\x88s");
            }
            out.extend(b"tR");
        }
    }
    out.push(b'u');
    // The state dict of a module has this beside its tensors.
    out.extend(b"}");
    text(&mut out, "_metadata");
    out.extend(b"}sb");
    out
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

/// A ZIP archive of uncompressed entries. Its checksums are 0, because they are not checked.
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
