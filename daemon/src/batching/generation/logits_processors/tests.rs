//! Each processor on a vocabulary of four tokens.

use crate::batching::generation::logits_processors::{LogitsProcessors, NEVER};
use emberd_engine::LogitsSettings;
use emberd_protocol::FinishReason;

fn processors() -> LogitsProcessors {
    LogitsProcessors {
        start: 0,
        eos: vec![1],
        forced_bos: Vec::new(),
        forced_eos: Vec::new(),
        folder: LogitsSettings::default(),
        input: Vec::new(),
        min_new_tokens: 0,
        max_new_tokens: 10,
        repetition_penalty: 1.0,
        no_repeat_ngram_size: 0,
    }
}

fn applied(processors: &LogitsProcessors, ids: &[u32]) -> Vec<f32> {
    let mut scores = vec![1.0, 2.0, -3.0, 4.0];
    processors.apply(ids, &mut scores);
    scores
}

#[test]
fn repetition_is_penalised_once_a_token_whatever_its_sign_the_start_token_too() {
    let processors = LogitsProcessors { repetition_penalty: 2.0, ..processors() };
    assert_eq!(applied(&processors, &[0, 2, 2]), [0.5, 2.0, -6.0, 4.0]);
}

#[test]
fn no_ngram_repeats() {
    let bigrams = LogitsProcessors { no_repeat_ngram_size: 2, ..processors() };
    assert_eq!(applied(&bigrams, &[0, 3, 2, 3]), [1.0, 2.0, NEVER, 4.0]);
    assert_eq!(applied(&bigrams, &[0]), [1.0, 2.0, -3.0, 4.0]);
    let unigrams = LogitsProcessors { no_repeat_ngram_size: 1, ..processors() };
    assert_eq!(applied(&unigrams, &[0, 3]), [NEVER, 2.0, -3.0, NEVER]);
}

#[test]
fn an_answer_does_not_end_before_its_minimum_length() {
    let processors = LogitsProcessors { min_new_tokens: 2, ..processors() };
    assert_eq!(applied(&processors, &[0, 3])[1], NEVER);
    assert_eq!(applied(&processors, &[0, 3, 3])[1], 2.0);
}

#[test]
fn a_forced_token_is_the_only_one_at_its_position() {
    let processors = LogitsProcessors {
        forced_bos: vec![3],
        forced_eos: vec![1],
        max_new_tokens: 3,
        ..processors()
    };
    assert_eq!(applied(&processors, &[0]), [NEVER, NEVER, NEVER, 0.0]);
    assert_eq!(applied(&processors, &[0, 3]), [1.0, 2.0, -3.0, 4.0]);
    assert_eq!(applied(&processors, &[0, 3, 2]), [NEVER, 0.0, NEVER, NEVER]);
}

#[test]
fn an_answer_ends_with_an_end_token_or_at_its_length() {
    let free = LogitsProcessors { max_new_tokens: 2, ..processors() };
    assert_eq!(free.finish(&[0, 3]), None);
    assert_eq!(free.finish(&[0, 1]), Some(FinishReason::End));
    assert_eq!(free.finish(&[0, 3, 3]), Some(FinishReason::Length));
    assert_eq!(free.finish(&[0, 3, 1]), Some(FinishReason::End));
    let forced = LogitsProcessors { forced_eos: vec![1], ..free };
    assert_eq!(forced.finish(&[0, 3, 1]), Some(FinishReason::Length));
}

#[test]
fn ids_beyond_the_vocabulary_change_nothing() {
    let folder = LogitsSettings { suppressed: vec![99, 3], ..LogitsSettings::default() };
    let processors = LogitsProcessors { folder, repetition_penalty: 2.0, ..processors() };
    assert_eq!(applied(&processors, &[77]), [1.0, 2.0, -3.0, NEVER]);
}

fn of_folder(folder: LogitsSettings) -> LogitsProcessors {
    LogitsProcessors { folder, ..processors() }
}

#[test]
fn runs_of_tokens_are_excluded_or_biased_after_their_beginning() {
    let none = LogitsSettings::default();
    let processors =
        of_folder(LogitsSettings { bad_words: vec![vec![3, 2, 1], vec![0]], ..none.clone() });
    assert_eq!(applied(&processors, &[0, 3, 2]), [NEVER, NEVER, -3.0, 4.0]);
    assert_eq!(applied(&processors, &[0, 2, 2]), [NEVER, 2.0, -3.0, 4.0]);
    assert_eq!(applied(&processors, &[2]), [NEVER, 2.0, -3.0, 4.0]);
    let bias = vec![(vec![3, 2], 5.0), (vec![1], -1.0)];
    let processors = of_folder(LogitsSettings { sequence_bias: bias, ..none });
    assert_eq!(applied(&processors, &[0, 3]), [1.0, 1.0, 2.0, 4.0]);
    assert_eq!(applied(&processors, &[3, 0]), [1.0, 1.0, -3.0, 4.0]);
}

#[test]
fn the_input_is_made_likelier_and_its_ngrams_are_excluded() {
    let none = LogitsSettings::default();
    let likelier = LogitsSettings { encoder_repetition_penalty: 2.0, ..none.clone() };
    let processors = LogitsProcessors { input: vec![1, 2, 1], ..of_folder(likelier) };
    assert_eq!(applied(&processors, &[0]), [1.0, 4.0, -1.5, 4.0]);
    let ngrams = LogitsSettings { encoder_no_repeat_ngram_size: 2, ..none };
    let processors = LogitsProcessors { input: vec![3, 2, 3, 1], ..of_folder(ngrams) };
    assert_eq!(applied(&processors, &[0, 3]), [1.0, NEVER, NEVER, 4.0]);
    assert_eq!(applied(&processors, &[3, 0]), [1.0, 2.0, -3.0, 4.0]);
}

#[test]
fn the_end_is_boosted_beyond_a_length_and_tokens_are_suppressed_at_the_beginning() {
    let none = LogitsSettings::default();
    let processors = of_folder(LogitsSettings { length_decay: Some((1, 3.0)), ..none.clone() });
    assert_eq!(applied(&processors, &[0, 3])[1], 2.0);
    assert_eq!(applied(&processors, &[0, 3, 3])[1], 6.0);
    assert_eq!(applied(&processors, &[0, 3, 3, 3])[1], 18.0);
    let processors = of_folder(LogitsSettings { begin_suppressed: vec![3], ..none });
    assert_eq!(applied(&processors, &[0])[3], NEVER);
    assert_eq!(applied(&processors, &[0, 2])[3], 4.0);
    let processors = LogitsProcessors { forced_bos: vec![2], ..processors };
    assert_eq!(applied(&processors, &[0])[2], 0.0);
    assert_eq!(applied(&processors, &[0, 2])[3], NEVER);
}
