//! Models, texts and expected rows.

use std::path::Path;
use std::sync::Arc;

use emberd_engine::load_folder;
use emberd_engine::{EmbeddingModel, Sequence};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use tempfile::TempDir;

pub(crate) use crate::test_data::{add, copy_of, data, json, texts};

pub(crate) fn load(name: &str) -> Arc<dyn EmbeddingModel> {
    load_folder(&data(name)).unwrap()
}

/// The real all-MiniLM-L6-v2, if `scripts/test` could fetch it.
pub(crate) fn load_minilm() -> Option<Arc<dyn EmbeddingModel>> {
    let Some(folder) = std::env::var_os("EMBERD_TEST_MINILM") else {
        eprintln!("skipped: EMBERD_TEST_MINILM names no folder (scripts/test gets the model)");
        return None;
    };
    Some(load_folder(Path::new(&folder)).unwrap())
}

/// The rows of a tensor in `expected/NAME.safetensors`.
pub(crate) fn expected(name: &str, tensor: &str) -> Vec<Vec<f32>> {
    expected_if_any(name, tensor).unwrap()
}

/// The rows of a tensor in `expected/NAME.safetensors`, if it has it.
pub(crate) fn expected_if_any(name: &str, tensor: &str) -> Option<Vec<Vec<f32>>> {
    let bytes = std::fs::read(data(&format!("expected/{name}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(tensor).ok()?;
    let values: Vec<f32> =
        tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Some(values.chunks(tensor.shape()[1]).map(<[f32]>::to_vec).collect())
}

/// The rows of sequences computed as one batch, into rows of unknown content.
pub(crate) fn compute(model: &Arc<dyn EmbeddingModel>, batch: &[&Sequence]) -> Vec<Vec<f32>> {
    let mut rows = vec![vec![f32::NAN; model.spec().dimension]; batch.len()];
    let mut slices: Vec<&mut [f32]> = rows.iter_mut().map(Vec::as_mut_slice).collect();
    Arc::clone(model).compute_context().compute(batch, &mut slices).unwrap();
    rows
}

pub(crate) fn encode(model: &Arc<dyn EmbeddingModel>, texts: &[String]) -> Vec<Sequence> {
    texts.iter().map(|text| model.tokenize(text).unwrap()).collect()
}

/// The rows of texts computed as one batch.
pub(crate) fn embed(model: &Arc<dyn EmbeddingModel>, texts: &[String]) -> Vec<Vec<f32>> {
    let sequences = encode(model, texts);
    compute(model, &sequences.iter().collect::<Vec<_>>())
}

/// As [`embed`], with a prompt in front of each text.
pub(crate) fn embed_prompted(
    model: &Arc<dyn EmbeddingModel>,
    prompt: &str,
    texts: &[String],
) -> Vec<Vec<f32>> {
    let sequences: Vec<Sequence> =
        texts.iter().map(|text| model.tokenize_with_prompt(prompt, text).unwrap()).collect();
    compute(model, &sequences.iter().collect::<Vec<_>>())
}

/// Fails if a value differs by more than `tolerance`, or is not a number.
#[track_caller]
pub(crate) fn assert_close(got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "number of rows");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "values in row {i}");
        for (c, (got, want)) in got.iter().zip(want).enumerate() {
            let close = (got - want).abs() <= tolerance;
            assert!(close, "row {i}, value {c}: {got} is not {want}");
        }
    }
}

/// Changes one value of a JSON file.
pub(crate) fn set(folder: &TempDir, file: &str, pointer: &str, value: serde_json::Value) {
    let path = folder.path().join(file);
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    *json.pointer_mut(pointer).expect("the value is there to be changed") = value;
    std::fs::write(path, json.to_string()).unwrap();
}

/// Writes a JSON file.
pub(crate) fn write(folder: &TempDir, file: &str, value: &serde_json::Value) {
    std::fs::write(folder.path().join(file), value.to_string()).unwrap();
}

/// Writes tensors of 32-bit floats as safetensors.
pub(crate) fn save(file: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, file).unwrap();
}

/// A tensor that [`rewrite_weights`] reads and writes.
#[derive(Clone)]
pub(crate) struct OwnedTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Rewrites the weight file of a folder with changed tensors.
pub(crate) fn rewrite_weights(
    folder: &TempDir,
    change: impl FnOnce(Vec<OwnedTensor>) -> Vec<OwnedTensor>,
) {
    let path = folder.path().join("model.safetensors");
    write_tensors(&path, &change(read_tensors(&path)));
}

/// The tensors of a safetensors file, by name.
pub(crate) fn read_tensors(file: &Path) -> Vec<OwnedTensor> {
    let bytes = std::fs::read(file).unwrap();
    let mut tensors: Vec<OwnedTensor> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| OwnedTensor {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// Writes tensors as safetensors.
pub(crate) fn write_tensors(file: &Path, tensors: &[OwnedTensor]) {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (tensor.name.clone(), view)
    });
    serialize_to_file(views, None, file).unwrap();
}
