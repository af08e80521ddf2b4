//! `emberd status`: the daemon's models, leases and connections.

mod overview;
mod wide;

use super::connect;
use crate::args::StatusArgs;
use crate::exit::CommandError;
use crate::output;
use console::Term;
use emberd_protocol::ModelStatus;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Moves the cursor to the top left corner and clears everything below it.
const CLEAR_SCREEN: &str = "\x1b[H\x1b[J";

/// The columns of the overview, unless a watched terminal has fewer or more.
const COLUMNS: usize = 100;

/// The allowed values of `--every`.
const EVERY_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

pub(super) fn run(args: &StatusArgs) -> Result<(), CommandError> {
    if args.watch && !EVERY_SECONDS.contains(&args.every) {
        let message = format!("--every {}: expected 0.1 to 3600 seconds", args.every);
        return Err(CommandError::Usage(message));
    }
    let client = connect(&args.query.socket)?;
    loop {
        let status = client.status()?;
        if args.query.json {
            // One line for each refresh.
            let write = if args.watch { output::json_line } else { output::json };
            write(&status)?;
        } else {
            // Asked each time: the window may have been resized.
            let screen = if args.watch { Screen::of_stdout() } else { None };
            let columns = screen.as_ref().map_or(COLUMNS, |screen| screen.columns);
            let text =
                if args.wide { wide::text(&status) } else { overview::text(&status, columns) };
            output::bytes(screen.map_or(text.clone(), |screen| screen.page(&text)).as_bytes())?;
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs_f64(args.every));
    }
}

/// The terminal that a status is watched on.
struct Screen {
    rows: usize,
    columns: usize,
}

impl Screen {
    fn of_stdout() -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let (rows, columns) = Term::stdout().size_checked()?;
        // A terminal without a size, as some serial lines have.
        (rows > 0 && columns > 0).then(|| Self { rows: rows.into(), columns: columns.into() })
    }

    /// Replaces what the screen shows. Lines are cut at its right edge; if there are too many, the
    /// last one says how many are left out.
    fn page(&self, text: &str) -> String {
        // The cursor stays in the last row, so that nothing scrolls.
        let rows = self.rows.saturating_sub(1).max(1);
        let lines: Vec<String> = text.lines().map(|line| self.cut(line)).collect();
        let mut page = CLEAR_SCREEN.to_owned();
        let shown = if lines.len() <= rows { lines.len() } else { rows - 1 };
        for line in &lines[..shown] {
            page.push_str(line);
            page.push('\n');
        }
        if shown < lines.len() {
            page.push_str(&self.cut(&format!("{} more lines do not fit", lines.len() - shown)));
            page.push('\n');
        }
        page
    }

    fn cut(&self, line: &str) -> String {
        line.chars().take(self.columns).collect()
    }
}

/// The methods that a model offers. Before its first load only its type is known.
fn kind(model: &ModelStatus) -> String {
    let Some(info) = &model.info else { return model.model_type.clone() };
    info.methods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
