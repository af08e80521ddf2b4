//! Commands that change the daemon: loading and unloading, the cache, the settings.

use super::connect;
use crate::args::{ModelQuery, Query};
use crate::exit::CommandError;
use crate::format::{duration, size};
use crate::output;
use emberd_protocol::{Event, Freed, ModelId};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};

pub(super) fn preload(args: &ModelQuery) -> Result<(), CommandError> {
    let client = connect(&args.query.socket)?;
    let bar =
        if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let preloaded = client.preload_with(args.id.as_str(), |event| show(&bar, &event))?;
    bar.finish_and_clear();
    if args.query.json {
        return output::json(&preloaded);
    }
    if preloaded.was_loaded {
        return output::line(&format!("{} was already in memory", args.id));
    }
    output::line(&format!("{} is in memory after {}", args.id, duration(preloaded.load_ms)))
}

pub(super) fn unload(args: &ModelQuery) -> Result<(), CommandError> {
    let freed = connect(&args.query.socket)?.unload(args.id.as_str())?;
    report(&freed, args.query.json)
}

pub(super) fn cleanup(args: &Query) -> Result<(), CommandError> {
    let freed = connect(&args.socket)?.cleanup_unused_models()?;
    report(&freed, args.json)
}

pub(super) fn clear_cache(args: &Query) -> Result<(), CommandError> {
    let cleared = connect(&args.socket)?.clear_embedding_cache()?;
    if args.json {
        return output::json(&cleared);
    }
    output::line(&format!("removed {} rows ({})", cleared.entries, size(cleared.bytes)))
}

pub(super) fn reload(args: &Query) -> Result<(), CommandError> {
    let reloaded = connect(&args.socket)?.reload()?;
    if args.json {
        return output::json(&reloaded);
    }
    if reloaded.changed.is_empty() && reloaded.unchanged.is_empty() {
        return output::line("the settings have not changed");
    }
    let row = |is_in_effect: &str, change: &emberd_protocol::SettingChange| {
        vec![
            change.key.clone(),
            change.value.clone(),
            is_in_effect.to_owned(),
            change.effect.clone(),
        ]
    };
    let rows: Vec<_> = reloaded
        .changed
        .iter()
        .map(|change| row("yes", change))
        .chain(reloaded.unchanged.iter().map(|change| row("no", change)))
        .collect();
    output::table(&["KEY", "VALUE", "IN EFFECT", "WHEN"], &rows)
}

/// Shows the progress of a load.
fn show(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Fetching { file, done_bytes, total_bytes } => {
            if let Ok(style) = ProgressStyle::with_template(
                "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            ) {
                bar.set_style(style);
            }
            bar.set_length(*total_bytes);
            bar.set_position(*done_bytes);
            bar.set_message(file.clone());
        }
        Event::WaitingForRoom => {
            bar.set_message("waiting for memory: other models are unloaded first");
        }
        Event::Reading { need_bytes: 0 } => bar.set_message("reading the weights"),
        Event::Reading { need_bytes } => {
            bar.set_message(format!("reading the weights ({})", size(*need_bytes)));
        }
        // Belongs to a generation, not to a load.
        Event::Piece { .. } => {}
    }
    bar.tick();
}

fn report(freed: &Freed, json: bool) -> Result<(), CommandError> {
    if json {
        return output::json(freed);
    }
    if freed.models.is_empty() {
        return output::line("nothing to unload");
    }
    let names: Vec<_> = freed.models.iter().map(ModelId::as_str).collect();
    output::line(&format!("unloaded {} ({})", names.join(", "), size(freed.bytes)))
}
