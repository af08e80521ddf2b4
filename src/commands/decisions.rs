//! `emberd why` and `emberd plan`: past decisions about a model, and the next one.

use super::connect;
use crate::args::ModelQuery;
use crate::exit::CommandError;
use crate::format::{duration, size};
use crate::output;
use emberd_protocol::{Decision, ModelId};

pub(super) fn why(args: &ModelQuery) -> Result<(), CommandError> {
    let decisions = connect(&args.query.socket)?.why(args.id.as_str())?;
    if args.query.json {
        return output::json(&decisions);
    }
    if decisions.is_empty() {
        return output::line(&format!("no decisions about {} yet", args.id));
    }
    for decision in &decisions {
        output::line(&format!("{} ago: {}", duration(decision.age_ms), summary(decision)))?;
        write_reasons(decision)?;
    }
    Ok(())
}

pub(super) fn plan(args: &ModelQuery) -> Result<(), CommandError> {
    let decision = connect(&args.query.socket)?.plan(args.id.as_str())?;
    if args.query.json {
        return output::json(&decision);
    }
    output::line(&format!("loading {} now: {}", args.id, summary(&decision)))?;
    write_reasons(&decision)
}

fn summary(decision: &Decision) -> String {
    let mut text = decision.verdict.to_string();
    if !decision.device.is_empty() {
        text = format!("{text} on {}", decision.device);
    }
    if decision.need_bytes > 0 {
        text = format!("{text}, needs {}", size(decision.need_bytes));
    }
    if !decision.evicts.is_empty() {
        let names: Vec<_> = decision.evicts.iter().map(ModelId::as_str).collect();
        text = format!("{text}, evicts {}", names.join(", "));
    }
    text
}

fn write_reasons(decision: &Decision) -> Result<(), CommandError> {
    for reason in &decision.reasons {
        output::line(&format!("  {reason}"))?;
    }
    Ok(())
}
