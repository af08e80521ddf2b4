//! `emberd config`: the settings of a file, or of a running daemon.

use super::connect;
use crate::args::Config;
use crate::exit::CommandError;
use crate::{output, serve};
use emberd_daemon::settings::Settings;
use serde_json::json;

pub(super) fn run(args: Config) -> Result<(), CommandError> {
    match args {
        Config::Show { settings, json } => {
            let settings = serve::settings(settings.as_deref(), Vec::new())?;
            let (lines, unset) = (settings.lines(), settings.unset());
            if json {
                let unset =
                    unset.iter().map(|key| json!({"key": key, "value": null, "origin": "not set"}));
                let keys: Vec<_> = lines
                    .iter()
                    .map(|line| {
                        let origin = line.origin.to_string();
                        json!({"key": line.toml_key(), "value": line.json_value(), "origin": origin})
                    })
                    .chain(unset)
                    .collect();
                return output::json(&keys);
            }
            let row = |line: emberd_daemon::settings::KeyLine| {
                vec![line.toml_key(), line.value, line.origin.to_string()]
            };
            // Commented out: no value in a file means "not set".
            let unset = unset
                .into_iter()
                .map(|key| vec![format!("# {key}"), String::new(), "not set".into()]);
            let rows: Vec<_> = lines.into_iter().map(row).chain(unset).collect();
            output::table(&["KEY", "VALUE", "FROM"], &rows)
        }
        Config::Check { file, json } => {
            let settings = match Settings::read(Some(&file), [], &[]) {
                // Printed as data, and still a failure.
                Err(error) if json => {
                    let problems: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
                    output::json(&json!({"good": false, "problems": problems}))?;
                    return Err(error.into());
                }
                read => read?,
            };
            if json {
                let models: Vec<_> =
                    settings.models.keys().map(emberd_protocol::ModelId::as_str).collect();
                return output::json(&json!({"good": true, "problems": [], "models": models}));
            }
            output::line(&format!("{}: good, {} models", file.display(), settings.models.len()))
        }
        Config::Model { id, query } => {
            let client = connect(&query.socket)?;
            let keys = client.model_config(id.as_str())?;
            if query.json {
                let keys: serde_json::Map<_, _> =
                    keys.into_iter().map(|(key, value)| (key, value.into())).collect();
                return output::json(&keys);
            }
            for (key, value) in keys {
                output::line(&format!("models.{id}.{key} = {value}"))?;
            }
            Ok(())
        }
    }
}
