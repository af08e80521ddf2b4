//! What changes the daemon: models in and out of memory, the cache, the settings.

use super::connect;
use crate::args::{OfModel, Reading};
use crate::exit::CommandError;
use crate::output::{self, duration, size};
use emberd_protocol::{Event, Freed, ModelId};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};

pub(super) fn preload(args: &OfModel) -> Result<(), CommandError> {
    let client = connect(&args.reading.socket)?;
    let bar =
        if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let preloaded = client.preload_with(args.id.as_str(), |event| show(&bar, &event))?;
    bar.finish_and_clear();
    if args.reading.json {
        return output::json(&preloaded);
    }
    if preloaded.was_loaded {
        return output::line(&format!("{} was in memory already", args.id));
    }
    output::line(&format!("{} is in memory after {}", args.id, duration(preloaded.load_ms)))
}

/// Shows how far a load is.
pub(super) fn show(bar: &ProgressBar, event: &Event) {
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
        Event::WaitingForRoom => bar.set_message("waits for room: other models leave first"),
        Event::Reading { need_bytes: 0 } => bar.set_message("is read into memory"),
        Event::Reading { need_bytes } => {
            bar.set_message(format!("is read into memory ({})", size(*need_bytes)));
        }
        // Of a generation, not of a load.
        Event::Piece { .. } => {}
    }
    bar.tick();
}

pub(super) fn unload(args: &OfModel) -> Result<(), CommandError> {
    let freed = connect(&args.reading.socket)?.unload(args.id.as_str())?;
    tell(&freed, args.reading.json)
}

pub(super) fn cleanup(args: &Reading) -> Result<(), CommandError> {
    let freed = connect(&args.socket)?.cleanup_unused_models()?;
    tell(&freed, args.json)
}

fn tell(freed: &Freed, json: bool) -> Result<(), CommandError> {
    if json {
        return output::json(freed);
    }
    if freed.models.is_empty() {
        return output::line("nothing was there to be freed");
    }
    let names: Vec<_> = freed.models.iter().map(ModelId::as_str).collect();
    output::line(&format!("freed {} ({})", names.join(", "), size(freed.bytes)))
}

pub(super) fn clear_cache(args: &Reading) -> Result<(), CommandError> {
    let cleared = connect(&args.socket)?.clear_embedding_cache()?;
    if args.json {
        return output::json(&cleared);
    }
    output::line(&format!("{} rows are gone ({})", cleared.entries, size(cleared.bytes)))
}

pub(super) fn reload(args: &Reading) -> Result<(), CommandError> {
    let reloaded = connect(&args.socket)?.reload()?;
    if args.json {
        return output::json(&reloaded);
    }
    if reloaded.changed.is_empty() && reloaded.unchanged.is_empty() {
        return output::line("the settings are as they were");
    }
    let row = |is_in_force: &str, change: &emberd_protocol::SettingChange| {
        vec![
            change.key.clone(),
            change.value.clone(),
            is_in_force.to_owned(),
            change.effect.clone(),
        ]
    };
    let rows: Vec<_> = reloaded
        .changed
        .iter()
        .map(|change| row("yes", change))
        .chain(reloaded.unchanged.iter().map(|change| row("no", change)))
        .collect();
    output::table(&["KEY", "VALUE", "IN FORCE", "WHEN"], &rows)
}
