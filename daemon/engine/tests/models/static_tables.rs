use std::sync::Arc;

use emberd_engine::{EmbeddingModel, WeightType};
use emberd_engine::{LoadError, folder_need, load_folder};
use half::f16;
use safetensors::tensor::Dtype;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    OwnedTensor, add, assert_close, copy_of, embed, encode, load, rewrite_weights, texts, write,
};

const NAME: &str = "static-embedding";

fn tensor(name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> OwnedTensor {
    OwnedTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes }
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The folder with these tensors instead of its own, without a Normalize module.
fn folder_with(tensors: Vec<OwnedTensor>) -> TempDir {
    let folder = copy_of(NAME);
    let class = "sentence_transformers.models.StaticEmbedding";
    write(&folder, "modules.json", &json!([{"path": "", "type": class}]));
    rewrite_weights(&folder, |_| tensors);
    folder
}

fn loaded(tensors: Vec<OwnedTensor>) -> Arc<dyn EmbeddingModel> {
    load_folder(folder_with(tensors).path()).unwrap()
}

/// A table of few rows that tokens share, and the rows of all tokens.
struct Shared {
    table: Vec<i8>,
    rows: usize,
    mapping: Vec<i64>,
    factors: Vec<f32>,
}

const WIDTH: usize = 8;

impl Shared {
    fn new() -> Self {
        let mut tokens = 0;
        rewrite_weights(&copy_of(NAME), |tensors| {
            tokens = tensors[0].shape[0];
            tensors
        });
        let rows = 37;
        let value = |i: usize| i8::try_from(i * 7919 % 255).unwrap_or_default() - 60;
        let mapping = (0..tokens).map(|token| i64::try_from(token * 31 % rows).unwrap()).collect();
        // Exact in 16 bits.
        let factor = |token| f32::from(u8::try_from(token * 13 % 101).unwrap()) / 64.0;
        let factors = (0..tokens).map(factor).collect();
        Self { table: (0..rows * WIDTH).map(value).collect(), rows, mapping, factors }
    }

    fn tokens(&self) -> usize {
        self.mapping.len()
    }

    fn table(&self, dtype: Dtype) -> OwnedTensor {
        let bytes = match dtype {
            Dtype::I8 => self.table.iter().map(|x| x.cast_unsigned()).collect(),
            _ => floats(self.table.iter().map(|x| f32::from(*x))),
        };
        tensor("embeddings", dtype, &[self.rows, WIDTH], bytes)
    }

    fn mapping(&self, dtype: Dtype) -> OwnedTensor {
        let short = |row: &i64| i32::try_from(*row).unwrap().to_le_bytes();
        let bytes = match dtype {
            Dtype::I32 => self.mapping.iter().flat_map(short).collect(),
            _ => self.mapping.iter().flat_map(|row| row.to_le_bytes()).collect(),
        };
        tensor("mapping", dtype, &[self.tokens()], bytes)
    }

    fn factors(&self, dtype: Dtype) -> OwnedTensor {
        let values = self.factors.iter();
        let bytes = match dtype {
            Dtype::F16 => values.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::F64 => values.flat_map(|x| f64::from(*x).to_le_bytes()).collect(),
            _ => floats(values.copied()),
        };
        tensor("weights", dtype, &[self.tokens()], bytes)
    }

    /// The same table with a row for each token, as sentence-transformers has it.
    fn folded(&self, by_factor: bool) -> OwnedTensor {
        let rows = self.mapping.iter().zip(&self.factors).flat_map(|(row, factor)| {
            let start = usize::try_from(*row).unwrap() * WIDTH;
            let factor = if by_factor { *factor } else { 1.0 };
            self.table[start..start + WIDTH].iter().map(move |x| f32::from(*x) * factor)
        });
        tensor("embedding.weight", Dtype::F32, &[self.tokens(), WIDTH], floats(rows))
    }
}

#[test]
fn tokens_may_share_rows_and_have_factors() {
    let shared = Shared::new();
    let want =
        [false, true].map(|by_factor| embed(&loaded(vec![shared.folded(by_factor)]), &texts()));
    for table in [Dtype::I8, Dtype::F32] {
        for mapping in [Dtype::I32, Dtype::I64] {
            let model = loaded(vec![shared.table(table), shared.mapping(mapping)]);
            assert_close(&embed(&model, &texts()), &want[0], 1e-5);
        }
        for factors in [Dtype::F16, Dtype::F32, Dtype::F64] {
            let tensors =
                vec![shared.table(table), shared.mapping(Dtype::I64), shared.factors(factors)];
            let folder = folder_with(tensors);
            let model = load_folder(folder.path()).unwrap();
            assert_close(&embed(&model, &texts()), &want[1], 1e-5);
            // The table has the same size, with eight bytes for each token beside it.
            let size = if table == Dtype::I8 { 1 } else { 4 };
            let bytes = (size * shared.table.len() + 8 * shared.tokens()) as u64;
            assert_eq!(model.spec().weight_bytes, bytes);
            assert!(
                folder_need(folder.path(), 1, 512, 512, WeightType::F32).unwrap().cpu_bytes
                    >= bytes
            );
        }
    }
    // Factors alone, over a table with a row for each token.
    let mut table = shared.folded(false);
    let whole = table.bytes.clone();
    table.name = "embeddings".into();
    let model = loaded(vec![table, shared.factors(Dtype::F32)]);
    assert_close(&embed(&model, &texts()), &want[1], 1e-5);
    // Tensors beside a table of sentence-transformers are ignored, as by the library.
    let table = tensor("embedding.weight", Dtype::F32, &[shared.tokens(), WIDTH], whole);
    let model = loaded(vec![table, shared.factors(Dtype::F32), shared.mapping(Dtype::I64)]);
    assert_eq!(embed(&model, &texts()), want[0]);
}

#[test]
fn rows_and_factors_of_tokens_determine_the_fingerprint() {
    let shared = Shared::new();
    let of = |shared: &Shared| {
        let tensors =
            vec![shared.table(Dtype::I8), shared.mapping(Dtype::I32), shared.factors(Dtype::F32)];
        loaded(tensors).fingerprint()
    };
    let (mut other_rows, mut other_factors) = (Shared::new(), Shared::new());
    other_rows.mapping.swap(5, 6);
    other_factors.factors.swap(5, 6);
    assert_eq!(of(&shared), of(&Shared::new()));
    assert_ne!(of(&shared), of(&other_rows));
    assert_ne!(of(&shared), of(&other_factors));
}

#[test]
fn rows_that_are_not_there_and_factors_of_no_token_are_refused() {
    let error = |tensors: Vec<OwnedTensor>| {
        let folder = folder_with(tensors);
        let error = load_folder(folder.path()).unwrap_err();
        let folder = folder.path().display().to_string();
        assert!(error.to_string().contains(&folder), "{error} does not name the file");
        error
    };
    let shared = Shared::new();
    for wrong in [-1, 37, i64::MAX, i64::MIN] {
        let mut shared = Shared::new();
        shared.mapping[100] = wrong;
        let error = error(vec![shared.table(Dtype::I8), shared.mapping(Dtype::I64)]);
        assert!(
            matches!(error, LoadError::NoSuchRow { row, rows: 37, .. } if row == wrong),
            "{error}"
        );
    }
    let table = || shared.table(Dtype::I8);
    let shapes = |mut tensor: OwnedTensor, shape: &[usize]| {
        tensor.shape = shape.to_vec();
        error(vec![table(), shared.mapping(Dtype::I32), tensor])
    };
    let mut factors = shared.factors(Dtype::F32);
    factors.bytes.truncate(4 * 5);
    let of_few = shapes(factors, &[5]);
    assert!(matches!(of_few, LoadError::TensorShape { .. }), "{of_few}");
    let of_pairs = shapes(shared.factors(Dtype::F32), &[shared.tokens(), 1]);
    assert!(matches!(of_pairs, LoadError::TensorShape { .. }), "{of_pairs}");
    let mut mapping = shared.mapping(Dtype::I64);
    mapping.shape.push(1);
    let of_pairs = error(vec![table(), mapping]);
    assert!(matches!(of_pairs, LoadError::TensorShape { .. }), "{of_pairs}");
    let mut mapping = shared.mapping(Dtype::I32);
    mapping.dtype = Dtype::F32;
    let of_floats = error(vec![table(), mapping]);
    assert!(matches!(of_floats, LoadError::ElementType { .. }), "{of_floats}");
    let mut mapping = shared.mapping(Dtype::I32);
    mapping.bytes.truncate(4 * 5);
    mapping.shape = vec![5];
    let of_few = error(vec![table(), mapping]);
    assert!(matches!(of_few, LoadError::TokenizerTooLarge { rows: 5, .. }), "{of_few}");
}

#[test]
fn texts_are_cut_as_the_tokenizer_says() {
    let text = vec!["one two three four five six seven eight nine ten".to_owned()];
    let all = encode(&load(NAME), &text).remove(0);
    assert!(all.ids.len() > 8 && !all.truncated);
    let folder = copy_of(NAME);
    let mut fingerprints = Vec::new();
    for (direction, ids) in [("Right", &all.ids[..4]), ("Left", &all.ids[all.ids.len() - 4..])] {
        let own = json!({"direction": direction, "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        add(&folder, "tokenizer.json", "truncation", own);
        let model = load_folder(folder.path()).unwrap();
        let cut = encode(&model, &text).remove(0);
        assert_eq!((&cut.ids[..], cut.truncated), (ids, true), "{direction}");
        assert_eq!(model.spec().max_tokens, 4);
        fingerprints.push(model.fingerprint());
    }
    assert_ne!(fingerprints[0], fingerprints[1]);
    // The lower of two limits counts.
    std::fs::remove_file(folder.path().join("modules.json")).unwrap();
    for (limit, holds) in [(3, 3), (100, 4)] {
        let config = json!({"model_type": "model2vec", "seq_length": limit});
        write(&folder, "config.json", &config);
        assert_eq!(load_folder(folder.path()).unwrap().spec().max_tokens, holds);
    }
}
