//! Whole models by tensor operations beside the kernel, both on the CPU.

use std::path::Path;
use std::sync::Arc;

use crate::api::embedding::EmbeddingModel;
use crate::layers::portable::forced;
use crate::load::load_folder;

/// Whole models of every kind that is in the test data.
#[test]
fn models_make_the_same_rows_by_tensor_operations() {
    let texts = ["", "a", "the quick brown fox", "one two three four five six seven", "a"];
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut architectures = Vec::new();
    for entry in std::fs::read_dir(&data).unwrap().flatten() {
        let Ok(by_kernels) = load_folder(&entry.path()) else { continue };
        let by_tensors = forced::on(|| load_folder(&entry.path())).unwrap();
        let spec = by_kernels.spec().clone();
        let sequences: Vec<_> =
            texts.iter().map(|text| by_kernels.tokenize(text).unwrap()).collect();
        let batch: Vec<_> = sequences.iter().collect();
        let rows_of = |model: Arc<dyn EmbeddingModel>| {
            let mut values = vec![f32::NAN; spec.dimension * batch.len()];
            let mut rows: Vec<_> = values.chunks_exact_mut(spec.dimension).collect();
            let mut computer = model.compute_context();
            // Twice: the second time over what the first has left in the buffers.
            computer.compute(&batch, &mut rows).unwrap();
            computer.compute(&batch, &mut rows).unwrap();
            values
        };
        let want = rows_of(by_kernels);
        let got = forced::on(|| rows_of(by_tensors));
        let largest = want.iter().fold(1f32, |a, b| a.max(b.abs()));
        for (want, got) in want.iter().zip(&got) {
            let off = (want - got).abs() / largest;
            assert!(off < 1e-5, "{}: {got} is not {want}", entry.path().display());
        }
        architectures.push(spec.architecture);
    }
    for architecture in
        ["bert", "distilbert", "roberta", "mpnet", "modernbert", "qwen3", "gemma3_text"]
    {
        assert!(architectures.iter().any(|found| found == architecture), "{architectures:?}");
    }
}
