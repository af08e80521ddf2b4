//! Texts from the command line, a file or standard input.

use crate::exit::CommandError;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

/// The most bytes of text in one request, unless a single text is longer: far below a frame's limit.
const BATCH_BYTES: usize = 8 << 20;

/// The arguments, or without any the lines of the file or of standard input.
pub(super) fn read(arguments: &[String], file: Option<&Path>) -> Result<Vec<String>, CommandError> {
    if !arguments.is_empty() {
        return Ok(arguments.to_vec());
    }
    let from_stdin = file.is_none_or(|file| file == Path::new("-"));
    let mut bytes = Vec::new();
    if from_stdin {
        if file.is_none() && io::stdin().is_terminal() {
            let message =
                "no texts: pass them as arguments, with --file FILE, or on standard input";
            return Err(CommandError::Usage(message.into()));
        }
        io::stdin()
            .read_to_end(&mut bytes)
            .map_err(CommandError::io("cannot read standard input"))?;
    } else if let Some(file) = file {
        bytes = std::fs::read(file)
            .map_err(CommandError::io(format!("cannot read {}", file.display())))?;
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        let name = match file {
            Some(file) if !from_stdin => file.display().to_string(),
            _ => "standard input".to_owned(),
        };
        let source = io::Error::new(io::ErrorKind::InvalidData, "convert it to UTF-8 first");
        CommandError::Io { what: format!("line {line} of {name} is not UTF-8"), source }
    })?;
    // Some editors write a byte order mark, which is not part of the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(str::to_owned).collect())
}

/// The texts of the next request: at most `most`, at least one.
pub(super) fn next_batch(texts: &[String], most: usize) -> &[String] {
    let mut len_bytes = 0;
    let fits = |text: &&String| {
        len_bytes += text.len();
        len_bytes <= BATCH_BYTES
    };
    let count = texts.iter().take(most).take_while(fits).count();
    &texts[..count.max(1)]
}

/// Warns on standard error about texts that were cut.
pub(super) fn warn_truncated(truncated: usize, texts: usize, model: &str, max_tokens: u32) {
    if truncated > 0 {
        // Standard error may be closed; the output is written all the same.
        let _ = writeln!(
            io::stderr(),
            "emberd: {truncated} of {texts} texts were longer than the {max_tokens} tokens that \
             \"{model}\" reads, and were cut",
        );
    }
}
