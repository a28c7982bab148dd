//! Printing: JSON documents and small tables.
//!
//! Owns: how things look. Knows nothing of: what they mean.

use std::io::Write as _;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Failure;
use crate::auth::amz_date::AmzDate;

/// Prints `value` as one JSON document.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::could_not_run)?;
    line(&text)
}

/// Prints a line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::could_not_run)
}

/// Prints rows under a heading, in columns.
pub(super) fn table<const N: usize>(
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<(), Failure> {
    let heading = heading.map(str::to_owned);
    let all = || std::iter::once(&heading).chain(rows);
    let mut widths = [0; N];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in all() {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A bar on standard error, if that is a terminal.
pub(super) fn progress_bar(length: u64) -> ProgressBar {
    let template = "{bar:40} {pos}/{len} {per_sec} {eta} left {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// A time as RFC 3339 in UTC, to the second.
pub(super) fn time(unix_ms: u64) -> String {
    AmzDate::from_unix_ms(unix_ms).extended()
}
