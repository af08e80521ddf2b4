//! `emberd generate`: text from text.

use super::connect;
use super::texts::{self, next_batch, warn_truncated};
use crate::args::{EarlyStoppingArg, Generate, GenerateArgs};
use crate::exit::CommandError;
use crate::output;
use emberd_client::{EarlyStopping, GenerateOptions, Piece, TextModel};
use emberd_protocol::{ErrorCode, GeneratedSequence, GeneratedText};
use serde::Serialize;
use std::io::{self, IsTerminal};

pub(super) fn run(args: &Generate) -> Result<(), CommandError> {
    let texts = texts::read(&args.texts, args.file.as_deref())?;
    let options = options(&args.options);
    let model = connect(&args.socket)?.text_model(args.model.as_str())?;
    let truncated = if args.stream {
        stream(&model, &texts, &options, args.json)?
    } else if let ([text], false, true) = (&*texts, args.json, io::stdout().is_terminal()) {
        // Streamed if the options allow it: the tokens of beam search are not final.
        match stream(&model, std::slice::from_ref(text), &options, false) {
            Err(CommandError::Client(error)) if error.code() == Some(ErrorCode::InvalidRequest) => {
                whole(&model, &texts, &options, args)?
            }
            result => result?,
        }
    } else {
        whole(&model, &texts, &options, args)?
    };
    warn_truncated(truncated, texts.len(), args.model.as_str(), model.info().max_tokens);
    Ok(())
}

/// Prints complete answers, with many texts in a request. Returns the number of texts that were cut.
fn whole(
    model: &TextModel,
    texts: &[String],
    options: &GenerateOptions,
    args: &Generate,
) -> Result<usize, CommandError> {
    let (mut first, mut truncated) = (0, 0);
    while first < texts.len() {
        let batch = next_batch(&texts[first..], args.batch as usize);
        let generated = model.generate(batch, options)?;
        for (position, (text, made)) in batch.iter().zip(&generated.texts).enumerate() {
            truncated += usize::from(made.truncated);
            write(args.json, first + position, text, made)?;
        }
        first += batch.len();
    }
    Ok(truncated)
}

/// Prints answers as they are generated, one text after the other. Returns the number of texts that
/// were cut.
fn stream(
    model: &TextModel,
    texts: &[String],
    options: &GenerateOptions,
    json: bool,
) -> Result<usize, CommandError> {
    let mut truncated = 0;
    for (index, text) in texts.iter().enumerate() {
        // An error of the output is kept until the answer is complete.
        let mut written = Ok(());
        let generated = model.generate_with(&[text], options, |piece| {
            if written.is_ok() {
                written = write_piece(json, index, &piece);
            }
        })?;
        written?;
        for made in &generated.texts {
            truncated += usize::from(made.truncated);
            if json {
                write(true, index, text, made)?;
            } else {
                output::line("")?;
            }
        }
    }
    Ok(truncated)
}

#[derive(Serialize)]
struct PieceLine<'a> {
    index: usize,
    piece: &'a str,
    tokens: u32,
}

fn write_piece(json: bool, index: usize, piece: &Piece) -> Result<(), CommandError> {
    if json {
        output::json_line(&PieceLine { index, piece: &piece.piece, tokens: piece.tokens })
    } else {
        output::bytes(piece.piece.as_bytes())
    }
}

#[derive(Serialize)]
struct GenerateLine<'a> {
    index: usize,
    text: &'a str,
    sequences: &'a [GeneratedSequence],
    input_tokens: u32,
    truncated: bool,
}

fn write(json: bool, index: usize, text: &str, made: &GeneratedText) -> Result<(), CommandError> {
    if json {
        return output::json_line(&GenerateLine {
            index,
            text,
            sequences: &made.sequences,
            input_tokens: made.input_tokens,
            truncated: made.truncated,
        });
    }
    made.sequences.iter().try_for_each(|sequence| output::line(&sequence.text))
}

fn options(args: &GenerateArgs) -> GenerateOptions {
    GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        min_new_tokens: args.min_new_tokens,
        num_beams: args.num_beams,
        num_return_sequences: args.num_return_sequences,
        length_penalty: args.length_penalty,
        early_stopping: args.early_stopping.map(|when| match when {
            EarlyStoppingArg::No => EarlyStopping::No,
            EarlyStoppingArg::Yes => EarlyStopping::Yes,
            EarlyStoppingArg::Never => EarlyStopping::Never,
        }),
        do_sample: args.do_sample,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
        repetition_penalty: args.repetition_penalty,
        no_repeat_ngram_size: args.no_repeat_ngram_size,
        stop: args.stop.clone(),
    }
}
