//! The files of the tree, read once.
//!
//! Owns: which folders are ours. Knows nothing of: the checks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::source;

/// Folders that hold what a tool made, by their path from the root or by their bare name.
const SKIPPED: [&str; 7] = [
    ".git",
    "node_modules",
    "target",
    "tests/fuzz/corpus",
    "tests/fuzz/target",
    "__pycache__",
    "tests/golden",
];

/// Endings of files that hold text somebody wrote.
const TEXT: [&str; 9] = ["js", "json", "md", "mjs", "py", "rs", "sh", "toml", "yml"];

/// A text file.
pub(crate) struct File {
    /// The text as it stands.
    pub(crate) text: String,
    /// For Rust, the text with comments and literals blanked out, line by line the same.
    pub(crate) code: String,
}

/// All text files, by their path from the root with `/`.
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, File>,
    /// Every path that exists, folders included, for links.
    pub(crate) paths: Vec<String>,
}

impl Tree {
    /// Reads the tree under `root`.
    ///
    /// # Errors
    /// A folder or a file that should be text could not be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self { files: BTreeMap::new(), paths: Vec::new() };
        tree.walk(root, "")?;
        Ok(tree)
    }

    /// A tree of the given files, for tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self { files: BTreeMap::new(), paths: Vec::new() };
        for (path, text) in files {
            tree.add((*path).to_owned(), (*text).to_owned());
        }
        tree
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &File)> {
        self.ending(".rs")
    }

    /// The files whose path ends with `suffix`.
    pub(crate) fn ending(&self, suffix: &'static str) -> impl Iterator<Item = (&str, &File)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(path, file)| (path.as_str(), file))
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if SKIPPED.contains(&name.as_str()) || SKIPPED.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.paths.push(path.clone());
                self.walk(&entry.path(), &path)?;
            } else if is_text(&path) {
                let text = fs::read_to_string(entry.path())
                    .map_err(|cause| io::Error::new(cause.kind(), format!("{path}: {cause}")))?;
                self.add(path, text);
            } else {
                self.paths.push(path);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, text: String) {
        let code = if ending(&path) == "rs" { source::mask(&text) } else { String::new() };
        self.paths.push(path.clone());
        self.files.insert(path, File { text, code });
    }
}

/// What follows the last dot of a path's name; empty for none.
pub(crate) fn ending(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// Whether `path` is text that somebody wrote: by its ending, or a script without one.
fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => {
            TEXT.contains(&ending) && name != "package-lock.json"
        }
        _ => path.starts_with("scripts/") || path.starts_with(".ci/"),
    }
}
