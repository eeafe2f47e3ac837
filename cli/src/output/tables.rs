//! Tables for people. Columns by two spaces, no lines: they read well and cut well.

use super::Paint;
use comfy_table::{
    Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};

/// Spaces between columns.
const GAP: u16 = 2;
/// As long as `succeeded` and `cancelled`.
const SHORT_WORD: usize = 9;

/// A table with a heading; empty cells show `-`. A column headed `state` is coloured by what it says.
pub fn table(heading: &[&str], rows: Vec<Vec<String>>, paint: Paint) -> String {
    let titles: Vec<String> = heading.iter().map(|title| title.to_uppercase()).collect();
    titled(&titles, heading, rows, paint)
}

/// A table whose columns are named by values, which keep their case.
pub fn table_of_values(heading: &[&str], rows: Vec<Vec<String>>, paint: Paint) -> String {
    let titles: Vec<String> = heading.iter().map(|title| (*title).to_owned()).collect();
    titled(&titles, heading, rows, paint)
}

fn titled(titles: &[String], heading: &[&str], rows: Vec<Vec<String>>, paint: Paint) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match paint.columns {
        // What is too wide goes on below within its own column, not below the first.
        Some(columns) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if paint.on {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(
        titles
            .iter()
            .map(|title| Cell::new(title).add_attribute(Attribute::Bold)),
    );
    let whole = short_words(titles, &rows);
    for row in rows {
        table.add_row(row.into_iter().zip(heading).map(|(text, title)| {
            let cell = Cell::new(if text.is_empty() { "-" } else { &text });
            match state_colour(&text).filter(|_| *title == "state") {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }
    for (column, whole) in table.column_iter_mut().zip(whole) {
        column.set_padding((0, GAP));
        if paint.columns.is_some()
            && let Some(width) = whole
        {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP)));
        }
    }
    trimmed(&table.to_string())
}

/// The longest word of each column where all are short: those (ids, states, sums) are never broken.
fn short_words(titles: &[String], rows: &[Vec<String>]) -> Vec<Option<u16>> {
    titles
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .chain([title])
                .flat_map(|text| text.split_whitespace())
                .map(|word| word.chars().count())
                .max()
                .filter(|longest| *longest <= SHORT_WORD)
                .and_then(|longest| u16::try_from(longest).ok())
        })
        .collect()
}

/// Columns of the terminal that standard output is.
pub fn terminal_columns() -> Option<u16> {
    Table::new().width()
}

/// Names and values, one pair a line; pairs without a value are left out.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        for (index, line) in value.lines().enumerate() {
            let name = if index == 0 { *name } else { "" };
            text.push_str(format!("{name:width$}  {line}").trim_end());
            text.push('\n');
        }
    }
    text
}

/// Lines moved right.
pub fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn state_colour(state: &str) -> Option<Color> {
    match state {
        "succeeded" | "finished" | "ready" => Some(Color::DarkGreen),
        "running" => Some(Color::DarkCyan),
        "failed" | "lost" => Some(Color::DarkRed),
        "held" | "queued" | "cordoned" | "draining" | "stopping" => Some(Color::DarkYellow),
        _ => None,
    }
}

fn trimmed(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// What a workload or another user named must not steer the terminal, nor break a row.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
