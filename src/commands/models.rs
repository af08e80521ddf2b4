//! `emberd models`: the models that the daemon knows.

use super::connect;
use crate::args::Query;
use crate::exit::CommandError;
use crate::output;

pub(super) fn run(args: &Query) -> Result<(), CommandError> {
    let client = connect(&args.socket)?;
    let models = client.available_models()?;
    if args.json {
        return output::json(&models);
    }
    let rows: Vec<_> = models
        .into_iter()
        .map(|model| {
            let state = match model.failure {
                Some(cause) => format!("{}: {cause}", model.state),
                None => model.state.to_string(),
            };
            vec![model.id.to_string(), model.model_type, model.source, state]
        })
        .collect();
    output::table(&["MODEL", "TYPE", "SOURCE", "STATE"], &rows)
}
