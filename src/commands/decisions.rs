//! `emberd why` and `emberd plan`: what was, or would be, decided about a model.

use super::connect;
use crate::args::OfModel;
use crate::exit::CommandError;
use crate::output::{self, duration, size};
use emberd_protocol::{Decision, ModelId};

pub(super) fn why(args: &OfModel) -> Result<(), CommandError> {
    let decisions = connect(&args.reading.socket)?.why(args.id.as_str())?;
    if args.reading.json {
        return output::json(&decisions);
    }
    if decisions.is_empty() {
        return output::line(&format!("nothing was decided about {} yet", args.id));
    }
    for decision in &decisions {
        output::line(&format!("{} ago: {}", duration(decision.age_ms), told(decision)))?;
        reasons(decision)?;
    }
    Ok(())
}

pub(super) fn plan(args: &OfModel) -> Result<(), CommandError> {
    let decision = connect(&args.reading.socket)?.plan(args.id.as_str())?;
    if args.reading.json {
        return output::json(&decision);
    }
    output::line(&format!("a load of {} now: {}", args.id, told(&decision)))?;
    reasons(&decision)
}

fn told(decision: &Decision) -> String {
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

fn reasons(decision: &Decision) -> Result<(), CommandError> {
    for reason in &decision.reasons {
        output::line(&format!("  {reason}"))?;
    }
    Ok(())
}
