//! The checks of the tree: what a reader may rely on without looking at every file.
//!
//! Owns: which checks run, and the shape of a finding. Knows nothing of: Rust's grammar beyond what
//! [`source`] masks; a check that needs more than text belongs to clippy.
//!
//! Invariants
//! - A finding names a file, a line and what to do. No check rewrites anything.
//! - The rules stand in docs/ARCHITECTURE.md; a check without a rule there is noise.

use std::fmt;
use std::io;
use std::path::Path;

mod budget;
mod dead;
mod direction;
mod links;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod words;

/// One thing to change.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, relative to the root, with `/`.
    pub(crate) path: String,
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong, and what to do.
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What a run of all checks saw.
pub(crate) struct Report {
    /// How many files were read.
    pub(crate) files: usize,
    /// What was found, by file and line.
    pub(crate) findings: Vec<Finding>,
}

/// Runs every check over the tree at `root`.
///
/// # Errors
/// A folder or file could not be read.
pub(crate) fn check(root: &Path) -> io::Result<Report> {
    let tree = tree::Tree::read(root)?;
    let mut findings = Vec::new();
    for check in [budget::check, dead::check, direction::check, links::check, words::check] {
        findings.extend(check(&tree));
    }
    findings.sort();
    Ok(Report { files: tree.files.len(), findings })
}
