//! Ranges of single options, and options that have no effect together.

use crate::batching::generation::option_error::OptionError;
use emberd_protocol::GenerateOptions;

/// Stop strings of one request, at most: each is searched for at every token.
pub(super) const MAX_STOPS: usize = 64;

/// A number from `least` to `most`. More than `most` is over a limit of this model.
pub(super) fn within(
    option: &'static str,
    value: u32,
    least: usize,
    most: usize,
) -> Result<usize, OptionError> {
    let value = value as usize;
    if value < least {
        Err(OptionError::range(option, value, format!("from {least} to {most}")))
    } else if value > most {
        Err(OptionError::OverLimit { option, value, limit: most })
    } else {
        Ok(value)
    }
}

/// A finite number above 0.
pub(super) fn positive(option: &'static str, value: f32) -> Result<f32, OptionError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(OptionError::range(option, value, "a finite number above 0".into()))
    }
}

/// A probability above 0.
pub(super) fn probability(option: &'static str, value: f32) -> Result<f32, OptionError> {
    if value > 0.0 && value <= 1.0 {
        Ok(value)
    } else {
        Err(OptionError::range(option, value, "above 0 and at most 1".into()))
    }
}

/// Stop strings that can be searched for.
pub(super) fn check_stops(stops: &[String]) -> Result<(), OptionError> {
    if stops.len() > MAX_STOPS {
        let count = format!("{} strings", stops.len());
        return Err(OptionError::range("stop", count, format!("at most {MAX_STOPS} strings")));
    }
    if stops.iter().any(String::is_empty) {
        return Err(OptionError::range("stop", "an empty string", "something to look for".into()));
    }
    Ok(())
}

/// A stream carries one sequence, and its tokens are final.
pub(super) fn check_stream(has_beams: bool, return_sequences: usize) -> Result<(), OptionError> {
    let other = match has_beams {
        true => "num_beams above 1",
        false if return_sequences > 1 => "num_return_sequences above 1",
        false => return Ok(()),
    };
    let remedy = "streaming needs one sequence whose tokens are final; set it to 1";
    Err(OptionError::Conflict { option: "stream", other, remedy })
}

/// For a search that samples nothing.
pub(super) fn refuse_sample_options(options: &GenerateOptions) -> Result<(), OptionError> {
    let given = [
        ("temperature", options.temperature.is_some()),
        ("top_k", options.top_k.is_some()),
        ("top_p", options.top_p.is_some()),
        ("seed", options.seed.is_some()),
    ];
    refuse(&given, "do_sample = false", "nothing is sampled; set do_sample to true or leave it out")
}

/// For a search without beams.
pub(super) fn refuse_beam_options(options: &GenerateOptions) -> Result<(), OptionError> {
    let given = [
        ("length_penalty", options.length_penalty.is_some()),
        ("early_stopping", options.early_stopping.is_some()),
    ];
    refuse(&given, "num_beams = 1", "there are no beams; set num_beams or leave it out")
}

fn refuse(
    options: &[(&'static str, bool)],
    other: &'static str,
    remedy: &'static str,
) -> Result<(), OptionError> {
    match options.iter().find(|(_, given)| *given) {
        Some(&(option, _)) => Err(OptionError::Conflict { option, other, remedy }),
        None => Ok(()),
    }
}
