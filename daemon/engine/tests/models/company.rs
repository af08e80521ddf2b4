use std::sync::Arc;

use emberd_engine::builtin_static_minilm;
use emberd_engine::{ComputeError, EmbeddingModel, Sequence};
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::sample::Index;

use crate::support::{assert_close, compute, encode, load, load_minilm, texts};

/// Each text alone, all in one batch, all in reverse order, and in pairs of neighbours.
#[track_caller]
fn check_all_companies(model: &Arc<dyn EmbeddingModel>) {
    let sequences = encode(model, &texts());
    let alone: Vec<_> = sequences.iter().flat_map(|one| compute(model, &[one])).collect();
    let together = compute(model, &sequences.iter().collect::<Vec<_>>());
    assert_close(&together, &alone, 5e-6);
    let mut backwards = compute(model, &sequences.iter().rev().collect::<Vec<_>>());
    backwards.reverse();
    assert_close(&backwards, &alone, 5e-6);
    for (pair, want) in sequences.windows(2).zip(alone.windows(2)) {
        assert_close(&compute(model, &[&pair[0], &pair[1]]), want, 5e-6);
    }
}

#[test]
fn a_row_does_not_depend_on_the_batch() {
    for name in [
        "bert-mean-norm",
        "bert-cls-prompts",
        "roberta-mean-norm",
        "xlmr-mean-e5",
        "distilbert-mean",
        "electra-mean",
        "albert-mean",
        "mpnet-mean-norm",
        "modernbert-cls",
        "qwen3-last",
        "gemma3-mean-dense2",
        "sentence-t5",
    ] {
        check_all_companies(&load(name));
    }
    check_all_companies(&builtin_static_minilm().unwrap());
}

#[test]
fn a_row_of_minilm_does_not_depend_on_the_batch() {
    if let Some(model) = load_minilm() {
        check_all_companies(&model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]
    /// One context computes batches of any size: the content of its memory from earlier batches does not
    /// show.
    #[test]
    fn a_row_does_not_depend_on_what_was_computed_before(
        batches in proptest::collection::vec(proptest::collection::vec(any::<Index>(), 0..9), 1..6)
    ) {
        let model = load("bert-mean-norm");
        let sequences = encode(&model, &texts());
        let mut computer = Arc::clone(&model).compute_context();
        for batch in batches {
            let batch: Vec<&Sequence> = batch.iter().map(|pick| pick.get(&sequences)).collect();
            let mut rows = vec![vec![f32::NAN; 32]; batch.len()];
            let mut slices: Vec<&mut [f32]> = rows.iter_mut().map(Vec::as_mut_slice).collect();
            computer.compute(&batch, &mut slices).unwrap();
            let alone: Vec<_> = batch.iter().flat_map(|one| compute(&model, &[one])).collect();
            assert_close(&rows, &alone, 5e-6);
        }
    }
}

#[test]
fn workers_share_the_weights_and_agree() {
    let model = load("bert-mean-norm");
    let sequences = encode(&model, &texts());
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let want = compute(&model, &batch);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(compute(&model, &batch), want);
                }
            });
        }
    });
}

#[test]
fn an_empty_sequence_gets_zeros_and_does_not_affect_the_batch() {
    let model = load("bert-mean-norm");
    let hello = model.tokenize("Hello, world!").unwrap();
    let empty = Sequence::default();
    let rows = compute(&model, &[&empty, &hello, &empty]);
    assert_eq!(rows[0], vec![0.0; 32]);
    assert_eq!(rows[2], vec![0.0; 32]);
    assert_close(&rows[1..2], &compute(&model, &[&hello]), 5e-6);
    assert_eq!(compute(&model, &[&empty]), [vec![0.0; 32]]);
    assert!(compute(&model, &[]).is_empty());
}

#[test]
fn a_text_beyond_the_limit_is_cut_and_says_so() {
    let model = load("bert-mean-norm");
    let long = model.tokenize(&"word ".repeat(500)).unwrap();
    assert_eq!((long.ids.len(), long.truncated), (model.spec().max_tokens, true));
    let short = model.tokenize("word").unwrap();
    assert!(!short.truncated);
    assert_eq!(long.ids.last(), short.ids.last(), "the end of a cut text is still its last token");
}

#[test]
fn sequences_and_rows_that_do_not_fit_the_model_are_errors() {
    let model = load("bert-mean-norm");
    let mut computer = Arc::clone(&model).compute_context();
    let sequence = |ids: &[u32]| Sequence { ids: ids.to_vec(), ..Sequence::default() };
    let mut row = [0.0; 32];
    for ids in [&[2615][..], &[u32::MAX], &[1; 65]] {
        let error = computer.compute(&[&sequence(ids)], &mut [&mut row]).unwrap_err();
        assert!(matches!(error, ComputeError::Tensor(_)), "{error:?}");
    }
    let hello = sequence(&[2, 7, 3]);
    let error = computer.compute(&[&hello], &mut []).unwrap_err();
    assert!(matches!(error, ComputeError::RowCount { sequences: 1, rows: 0 }));
    let error = computer.compute(&[&hello], &mut [&mut row[..31]]).unwrap_err();
    assert!(matches!(error, ComputeError::RowLength { found: 31, wanted: 32 }));
    computer.compute(&[&hello], &mut [&mut row]).unwrap();
    assert_eq!(vec![row.to_vec()], compute(&model, &[&hello]), "a failed batch leaves no trace");
}
