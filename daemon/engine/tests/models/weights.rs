//! The weights of a model in other files.

use std::fs;

use emberd_engine::{LoadError, TorchFault, load_folder};
use half::{bf16, f16};
use proptest::prelude::{ProptestConfig, any, proptest};
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    OwnedTensor, assert_close, copy_of, embed, expected, read_tensors, texts, write, write_tensors,
};
use crate::torch::{Form, archive, old_format};

const NAME: &str = "bert-mean-norm";
const BIN: &str = "pytorch_model.bin";

/// The folder with these weight files instead of its own.
fn without_weights() -> (TempDir, Vec<OwnedTensor>) {
    let folder = copy_of(NAME);
    let file = folder.path().join("model.safetensors");
    let tensors = read_tensors(&file);
    fs::remove_file(file).unwrap();
    (folder, tensors)
}

#[track_caller]
fn check(folder: &TempDir) {
    let rows = embed(&load_folder(folder.path()).unwrap(), &texts());
    assert_close(&rows, &expected(NAME, "embeddings"), 1e-5);
}

#[track_caller]
fn error_naming(folder: &TempDir, file: &str) -> LoadError {
    let error = load_folder(folder.path()).unwrap_err();
    let path = folder.path().join(file).display().to_string();
    assert!(error.to_string().contains(&path), "{error} does not name {file}");
    error
}

/// Two files that have every other tensor, and their index.
fn in_two_files() -> TempDir {
    let (folder, tensors) = without_weights();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut parts = [Vec::new(), Vec::new()];
    let mut map = serde_json::Map::new();
    for (i, tensor) in tensors.into_iter().enumerate() {
        map.insert(tensor.name.clone(), json!(names[i % 2]));
        parts[i % 2].push(tensor);
    }
    for (name, part) in names.iter().zip(parts) {
        write_tensors(&folder.path().join(name), &part);
    }
    write(&folder, INDEX, &json!({"metadata": {"total_size": 1}, "weight_map": map}));
    folder
}

const INDEX: &str = "model.safetensors.index.json";

fn change_index(
    folder: &TempDir,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) {
    let bytes = fs::read(folder.path().join(INDEX)).unwrap();
    let mut index: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    change(index["weight_map"].as_object_mut().unwrap());
    write(folder, INDEX, &index);
}

#[test]
fn weights_in_several_files_are_found_by_their_index() {
    check(&in_two_files());
}

#[test]
fn tensors_that_the_index_omits_are_found() {
    let folder = in_two_files();
    change_index(&folder, |map| {
        map.remove("embeddings.word_embeddings.weight");
        map.remove("pooler.dense.bias");
    });
    check(&folder);
    // A layer beyond the configuration belongs to another model, whether the index names it or not.
    let part = folder.path().join("model-00002-of-00002.safetensors");
    let mut tensors = read_tensors(&part);
    let name = "encoder.layer.7.output.dense.bias";
    let bytes = vec![0; 8];
    tensors.push(OwnedTensor { name: name.into(), dtype: Dtype::F32, shape: vec![2], bytes });
    write_tensors(&part, &tensors);
    let error = error_naming(&folder, INDEX);
    assert!(matches!(&error, LoadError::ExtraTensor { tensor, .. } if tensor == name), "{error}");
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let first = "model-00001-of-00002.safetensors";
    let second = "model-00002-of-00002.safetensors";
    let folder = in_two_files();
    fs::remove_file(folder.path().join(second)).unwrap();
    assert!(matches!(error_naming(&folder, second), LoadError::Read { .. }));

    let folder = in_two_files();
    let word = "embeddings.word_embeddings.weight";
    change_index(&folder, |map| {
        let other = if map[word] == first { second } else { first };
        map[word] = json!(other);
    });
    let error = load_folder(folder.path()).unwrap_err();
    assert!(matches!(&error, LoadError::MissingTensor { tensor, .. } if tensor == word), "{error}");

    for outside in ["../model.safetensors", "/etc/passwd", "a/../../b", "", ".."] {
        let folder = in_two_files();
        change_index(&folder, |map| map[word] = json!(outside));
        let error = error_naming(&folder, INDEX);
        assert!(matches!(error, LoadError::Unsupported { .. }), "{outside}: {error}");
    }
}

#[test]
fn files_of_torch_are_read_if_there_are_no_safetensors() {
    let (folder, tensors) = without_weights();
    for form in [Form::Plain, Form::Transposed, Form::Parts, Form::Parameters] {
        fs::write(folder.path().join(BIN), archive(&tensors, form)).unwrap();
        check(&folder);
        fs::write(folder.path().join(BIN), old_format(&tensors, form)).unwrap();
        check(&folder);
    }
    // In two files.
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("a.bin", first), ("b.bin", second)] {
        fs::write(folder.path().join(name), archive(part, Form::Transposed)).unwrap();
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(name))));
    }
    fs::remove_file(folder.path().join(BIN)).unwrap();
    write(&folder, "pytorch_model.bin.index.json", &json!({"weight_map": map}));
    check(&folder);
}

#[test]
fn elements_of_every_size_are_found_wherever_they_lie() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F64] {
        let (folder, mut tensors) = without_weights();
        for tensor in &mut tensors {
            let values = tensor.bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
            tensor.bytes = match dtype {
                Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                Dtype::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                _ => values.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
            };
            tensor.dtype = dtype;
        }
        let rows = [Form::Plain, Form::Transposed, Form::Parts].map(|form| {
            fs::write(folder.path().join(BIN), archive(&tensors, form)).unwrap();
            embed(&load_folder(folder.path()).unwrap(), &texts())
        });
        assert!(rows[0] == rows[1] && rows[0] == rows[2], "{dtype:?}");
    }
}

/// Also types that torch writes in another way: the tensor is not reported as missing.
#[test]
fn elements_that_are_not_read_are_named() {
    for (dtype, size, name) in [(Dtype::I64, 8, "I64"), (Dtype::F8_E4M3, 1, "float8_e4m3fn")] {
        let (folder, mut tensors) = without_weights();
        let tensor = tensors.iter_mut().find(|tensor| tensor.name.ends_with("query.weight"));
        let tensor = tensor.unwrap();
        tensor.bytes = vec![0; tensor.bytes.len() / 4 * size];
        tensor.dtype = dtype;
        let wanted = tensor.name.clone();
        fs::write(folder.path().join(BIN), archive(&tensors, Form::Plain)).unwrap();
        let error = error_naming(&folder, BIN);
        let LoadError::ElementType { tensor, found, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((&**tensor, &**found), (&*wanted, name));
    }
}

/// Such sizes could ask for any amount of memory.
#[test]
fn a_tensor_that_is_larger_than_its_memory_is_refused() {
    let (folder, tensors) = without_weights();
    let one = tensors.into_iter().find(|tensor| tensor.name.ends_with("word_embeddings.weight"));
    let one = [one.unwrap()];
    let whole = archive(&one, Form::Plain);
    let columns = one[0].shape[1];
    let int = |value: usize| [&b"J"[..], &i32::try_from(value).unwrap().to_le_bytes()].concat();
    let strides = [int(columns), int(1)].concat();
    let at = whole.windows(strides.len()).position(|part| *part == strides).unwrap();
    for (other, what) in [([0, 1], "overlap"), ([1, 1], "overlap"), ([columns + 1, 1], "larger")] {
        let mut bytes = whole.clone();
        bytes[at..at + strides.len()].copy_from_slice(&other.map(int).concat());
        let fault = torch_fault(&folder, &bytes);
        let text = fault.to_string();
        assert!(text.contains(what) && text.contains(&one[0].name), "{other:?}: {text}");
    }
}

/// The file cut at every length, and with every byte changed: never a panic, and the error names the
/// file.
#[test]
fn a_file_of_torch_that_is_cut_anywhere_is_refused() {
    let (folder, tensors) = without_weights();
    for whole in [archive(&tensors, Form::Plain), old_format(&tensors, Form::Plain)] {
        for len in (0..64).chain((64..whole.len()).step_by(7919)).chain([whole.len() - 1]) {
            fs::write(folder.path().join(BIN), &whole[..len]).unwrap();
            error_naming(&folder, BIN);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn a_damaged_file_of_torch_never_panics(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        old: bool,
        parts: bool,
    ) {
        let (folder, tensors) = without_weights();
        // Most of the file is tensors, where nothing can go wrong.
        let few = &tensors[..4];
        let form = if parts { Form::Parts } else { Form::Parameters };
        let mut bytes = if old { old_format(few, form) } else { archive(few, form) };
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        fs::write(folder.path().join(BIN), bytes).unwrap();
        load_folder(folder.path()).unwrap_err();
    }
}

#[track_caller]
fn torch_fault(folder: &TempDir, bytes: &[u8]) -> TorchFault {
    fs::write(folder.path().join(BIN), bytes).unwrap();
    match error_naming(folder, BIN) {
        LoadError::Torch { source, .. } => source,
        other => panic!("another error: {other:?}"),
    }
}

#[test]
fn a_pickle_is_never_run_and_never_grows_beyond_its_length() {
    let (folder, _) = without_weights();
    let of_pickle = |pickle: &[u8]| crate::torch::zip(&[("archive/data.pkl", pickle)]);
    // os.system("true"), which Python's unpickler would call.
    let call = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.";
    assert!(matches!(torch_fault(&folder, &of_pickle(call)), TorchFault::NoStateDict));
    // Nested tuples, each with the one before it twice.
    let mut bomb = b"\x80\x02)q\x00".to_vec();
    (0..40).for_each(|_| bomb.extend(b"h\x00h\x00\x86q\x00"));
    bomb.push(b'.');
    let fault = torch_fault(&folder, &of_pickle(&bomb));
    assert!(matches!(fault, TorchFault::Pickle { what, .. } if what.contains("nested")), "{fault}");
    let deep = [b")".as_slice(), &[0x85; 100_000], b"."].concat();
    assert!(matches!(torch_fault(&folder, &of_pickle(&deep)), TorchFault::Pickle { .. }));
    for cut in [b"X\xFF\xFF\xFF\xFFa.".as_slice(), b"t.", b"e", b"\x85.", b"h\x07.", b""] {
        assert!(matches!(torch_fault(&folder, &of_pickle(cut)), TorchFault::Pickle { .. }));
    }
    assert!(matches!(torch_fault(&folder, b"GGUF, not torch at all"), TorchFault::Foreign));
}
