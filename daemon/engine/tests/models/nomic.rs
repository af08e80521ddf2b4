#![expect(clippy::cast_possible_truncation, reason = "test values are rounded to f32")]

use std::collections::BTreeMap;

use emberd_engine::{LoadError, load_folder};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{compute, data, encode, texts};

const WIDTH: usize = 24;
const HEADS: usize = 3;
const INNER: usize = 40;
const LAYERS: usize = 2;
const TOKENS: usize = 2620;
const BASE: f64 = 1000.0;

/// Rows of values, in f64.
type Matrix = Vec<Vec<f64>>;

/// A model of random weights, and the weights for the reference.
struct Model {
    folder: TempDir,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

fn model(qkv_bias: bool) -> Model {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![TOKENS, WIDTH]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, WIDTH]),
        ("emb_ln.weight".to_owned(), vec![WIDTH]),
        ("emb_ln.bias".to_owned(), vec![WIDTH]),
    ];
    for layer in 0..LAYERS {
        let mut add = |part: &str, shape: &[usize]| {
            shapes.push((format!("encoder.layers.{layer}.{part}"), shape.to_vec()));
        };
        add("attn.Wqkv.weight", &[3 * WIDTH, WIDTH]);
        add("attn.out_proj.weight", &[WIDTH, WIDTH]);
        if qkv_bias {
            add("attn.Wqkv.bias", &[3 * WIDTH]);
            add("attn.out_proj.bias", &[WIDTH]);
        }
        add("mlp.fc11.weight", &[INNER, WIDTH]);
        add("mlp.fc12.weight", &[INNER, WIDTH]);
        add("mlp.fc2.weight", &[WIDTH, INNER]);
        for norm in ["norm1", "norm2"] {
            add(&format!("{norm}.weight"), &[WIDTH]);
            add(&format!("{norm}.bias"), &[WIDTH]);
        }
    }
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5
    };
    let tensors: BTreeMap<_, _> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let scale = if shape.len() == 2 { 3.0 / (shape[1] as f64).sqrt() } else { 0.5 };
            let base = if name.contains("norm") || name.contains("ln") { 1.0 } else { 0.0 };
            let values = (0..shape.iter().product()).map(|_| (base + scale * random()) as f32);
            let values = values.collect();
            (name, (shape, values))
        })
        .collect();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values)): (_, &(_, Vec<f32>))| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.clone(), Vec::clone(shape), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let folder = TempDir::new().unwrap();
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    let tokenizer = data("bert-mean-norm/tokenizer.json");
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    write_config(&folder, &config(qkv_bias));
    Model { folder, tensors }
}

fn config(qkv_bias: bool) -> serde_json::Value {
    json!({
        "model_type": "nomic_bert", "architectures": ["NomicBertModel"],
        "activation_function": "swiglu", "vocab_size": TOKENS, "n_embd": WIDTH, "n_head": HEADS,
        "n_inner": INNER, "n_layer": LAYERS, "n_positions": 64, "type_vocab_size": 2,
        "layer_norm_epsilon": 1e-12, "prenorm": false, "qkv_proj_bias": qkv_bias,
        "mlp_fc1_bias": false, "mlp_fc2_bias": false, "rotary_emb_base": BASE,
        "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": false,
        "rotary_emb_scale_base": null, "rotary_scaling_factor": null,
    })
}

fn write_config(folder: &TempDir, config: &serde_json::Value) {
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
}

impl Model {
    fn values(&self, name: &str) -> Vec<f64> {
        self.tensors[name].1.iter().map(|&x| f64::from(x)).collect()
    }

    fn matrix(&self, name: &str) -> Matrix {
        self.values(name).chunks(self.tensors[name].0[1]).map(<[f64]>::to_vec).collect()
    }

    fn linear(&self, x: &Matrix, name: &str) -> Matrix {
        let weight = self.matrix(&format!("{name}.weight"));
        let bias = format!("{name}.bias");
        let bias = self.tensors.contains_key(&bias).then(|| self.values(&bias));
        let dot = |row: &[f64], w: &[f64]| row.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
        let out = |row: &Vec<f64>| {
            let values = weight.iter().enumerate();
            values.map(|(o, w)| dot(row, w) + bias.as_ref().map_or(0.0, |b| b[o])).collect()
        };
        x.iter().map(out).collect()
    }

    fn norm(&self, x: &Matrix, name: &str) -> Matrix {
        let weight = self.values(&format!("{name}.weight"));
        let bias = self.values(&format!("{name}.bias"));
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let values = row.iter().zip(weight.iter().zip(&bias));
            values.map(|(x, (w, b))| (x - mean) / (variance + 1e-12).sqrt() * w + b).collect()
        };
        x.iter().map(one).collect()
    }

    /// The mean of the token rows of one text, by the definition of the model.
    fn row(&self, ids: &[u32]) -> Vec<f64> {
        let words = self.matrix("embeddings.word_embeddings.weight");
        let segment = self.matrix("embeddings.token_type_embeddings.weight").remove(0);
        let hidden: Matrix = ids.iter().map(|&id| add(&words[id as usize], &segment)).collect();
        let mut hidden = self.norm(&hidden, "emb_ln");
        for layer in 0..LAYERS {
            let name = |part: &str| format!("encoder.layers.{layer}.{part}");
            let context = attend(&self.linear(&hidden, &name("attn.Wqkv")));
            let attended = self.linear(&context, &name("attn.out_proj"));
            hidden = self.norm(&add_rows(&hidden, &attended), &name("norm1"));
            let value = self.linear(&hidden, &name("mlp.fc11"));
            let gate = self.linear(&hidden, &name("mlp.fc12"));
            let silu = |x: f64| x / (1.0 + (-x).exp());
            let inner: Matrix = value
                .iter()
                .zip(&gate)
                .map(|(v, g)| v.iter().zip(g).map(|(v, g)| v * silu(*g)).collect())
                .collect();
            let fed = self.linear(&inner, &name("mlp.fc2"));
            hidden = self.norm(&add_rows(&hidden, &fed), &name("norm2"));
        }
        let sum = hidden.iter().fold(vec![0.0; WIDTH], |sum, row| add(&sum, row));
        sum.iter().map(|x| x / ids.len() as f64).collect()
    }
}

fn add(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn add_rows(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| add(a, b)).collect()
}

/// Rotates the halves of a head by the angles of a position.
fn rotated(head: &[f64], position: usize) -> Vec<f64> {
    let half = head.len() / 2;
    let angle = |i: usize| position as f64 / BASE.powf((2 * (i % half)) as f64 / head.len() as f64);
    let rotate = |i: usize| {
        let other = if i < half { -head[i + half] } else { head[i - half] };
        head[i] * angle(i).cos() + other * angle(i).sin()
    };
    (0..head.len()).map(rotate).collect()
}

fn attend(qkv: &Matrix) -> Matrix {
    let depth = WIDTH / HEADS;
    let part = |row: &[f64], which: usize, head: usize| {
        row[which * WIDTH + head * depth..][..depth].to_vec()
    };
    let context = |query: usize| {
        let head = |head: usize| {
            let q = rotated(&part(&qkv[query], 0, head), query);
            let weight = |key: usize| {
                let k = rotated(&part(&qkv[key], 1, head), key);
                let product: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                (product / (depth as f64).sqrt()).exp()
            };
            let total: f64 = (0..qkv.len()).map(weight).sum();
            (0..qkv.len()).fold(vec![0.0; depth], |sum, key| {
                let share = weight(key) / total;
                let value = part(&qkv[key], 2, head);
                sum.iter().zip(value).map(|(s, v)| s + share * v).collect()
            })
        };
        (0..HEADS).flat_map(head).collect()
    };
    (0..qkv.len()).map(context).collect()
}

/// There is no reference data for it: transformers would run code from the model's folder.
#[test]
fn nomic_bert_equals_its_definition() {
    for qkv_bias in [false, true] {
        let model = model(qkv_bias);
        let loaded = load_folder(model.folder.path()).unwrap();
        assert_eq!(loaded.spec().architecture, "nomic_bert");
        let sequences = encode(&loaded, &texts());
        let rows = compute(&loaded, &sequences.iter().collect::<Vec<_>>());
        for (sequence, row) in sequences.iter().zip(rows) {
            for (got, want) in row.iter().zip(model.row(&sequence.ids)) {
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} is not {want}");
            }
        }
    }
}

#[test]
fn settings_that_would_change_its_rows_are_refused() {
    let model = model(false);
    for (setting, value) in [
        ("prenorm", json!(true)),
        ("activation_function", json!("gelu")),
        ("rotary_emb_interleaved", json!(true)),
        ("rotary_scaling_factor", json!(2)),
        ("moe_every_n_layers", json!(2)),
    ] {
        let mut config = config(false);
        config[setting] = value;
        write_config(&model.folder, &config);
        let error = load_folder(model.folder.path()).unwrap_err();
        assert!(matches!(error, LoadError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(setting), "{error}");
    }
    write_config(&model.folder, &config(true));
    let error = load_folder(model.folder.path()).unwrap_err();
    let LoadError::MissingTensor { tensor, .. } = error else { panic!("{error:?}") };
    assert_eq!(tensor, "encoder.layers.0.attn.Wqkv.bias");
}
