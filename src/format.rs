//! Tables, sizes and times as people read them.

/// The narrowest that a column becomes when a table is fitted.
const MIN_COLUMN: usize = 8;

/// Blanks between two columns.
const GAP: usize = 2;

/// Rows of cells under a header, in columns.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    layout(header, rows, &widths(header, rows))
}

/// The same within `columns`: the widest columns are narrowed, and their cells shortened in the
/// middle.
pub(crate) fn fitted_table(header: &[&str], rows: &[Vec<String>], columns: usize) -> String {
    let mut widths = widths(header, rows);
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > columns {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else { break };
        if *widest <= MIN_COLUMN {
            break;
        }
        *widest -= 1;
    }
    layout(header, rows, &widths)
}

/// A number and what it counts, such as "1 lease" or "2 leases".
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A text of at most `columns` characters: the middle of a longer one becomes an ellipsis.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    let len = text.chars().count();
    if len <= columns {
        return text.to_owned();
    }
    let kept = columns.saturating_sub(1);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(len - tail)).collect()
}

/// A text in lines of at most `columns` characters. A word that is longer is broken.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in text.split_whitespace() {
        let mut rest: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + rest.len() > columns {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        while rest.len() > columns {
            lines.push(rest.drain(..columns).collect());
        }
        used += rest.len();
        line.extend(rest);
    }
    lines.push(line);
    lines
}

/// A number of bytes.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.1} MiB") }
}

/// A duration.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// The width of each column: that of its widest cell.
fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |(column, name): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([name.len()]).max().unwrap_or(0)
    };
    header.iter().enumerate().map(width).collect()
}

fn layout(header: &[&str], rows: &[Vec<String>], widths: &[usize]) -> String {
    let mut text = String::new();
    let header = header.iter().map(|name| (*name).to_owned()).collect();
    for row in [&header].into_iter().chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            let cell = shorten(cell, *width);
            format!("{cell:<width$}")
        });
        text.push_str(cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitted_table_shortens_its_widest_cells_in_the_middle() {
        let rows =
            [vec!["organisation/a-very-long-name-of-a-model".to_owned(), "ready".to_owned()]];
        let text = fitted_table(&["MODEL", "STATE"], &rows, 20);
        assert_eq!(text, "MODEL          STATE\norgani…-model  ready\n");
    }

    #[test]
    fn lines_are_wrapped_at_blanks_and_long_words_broken() {
        assert_eq!(wrap("a bc def ghij", 5), ["a bc", "def", "ghij"]);
        assert_eq!(wrap("in abcdefghijkl", 5), ["in", "abcde", "fghij", "kl"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
