//! Pointers into documents: links in Markdown, and `docs/NAME.md` or `scripts/NAME` in any text.
//!
//! Owns: how a pointer is recognised. Knows nothing of: other hosts; those links are not followed.

use super::Finding;
use super::tree::{Tree, ending};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &tree.files {
        if ending(path) == "md" {
            findings.extend(markdown(tree, path, &file.text));
        }
        findings.extend(mentions(tree, path, &file.text));
    }
    findings
}

fn markdown(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in targets(line) {
            if let Some(what) = broken(tree, path, target) {
                findings.push(Finding { path: path.to_owned(), line: index + 1, what });
            }
        }
    }
    findings
}

/// The targets of `[text](target)` on a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

fn broken(tree: &Tree, path: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let full = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
    if !tree.paths.contains(&full) {
        return Some(format!("the link `{target}` leads nowhere"));
    }
    let text = &tree.files.get(&full)?.text;
    let known = anchor.is_empty() || headings(text).any(|heading| slug(heading) == anchor);
    (!known).then(|| format!("`{full}` has no heading `#{anchor}`"))
}

/// `file` as seen from the folder of `path`.
fn resolve(path: &str, file: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
}

/// A heading's anchor as code hosts make it.
fn slug(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// `docs/….md` and `scripts/…` in prose, comments and code.
fn mentions(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    // The checks speak of such paths without meaning one.
    if path.starts_with("scripts/src/tidy") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for folder in ["docs/", "scripts/"] {
            for name in named_in(line, folder) {
                if !tree.paths.contains(&name) {
                    let what = format!("`{name}` does not exist");
                    findings.push(Finding { path: path.to_owned(), line: index + 1, what });
                }
            }
        }
    }
    findings
}

/// Paths under `folder` on a line, with the full stops of prose taken off.
fn named_in(line: &str, folder: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let mut names = Vec::new();
    for (at, _) in line.match_indices(folder) {
        let Some((before, from)) = line.split_at_checked(at) else {
            continue;
        };
        let end = from.find(|c| !is_name(c)).unwrap_or(from.len());
        let name = from.get(..end).unwrap_or_default().trim_end_matches(['.', '/']);
        let pattern = from.get(end..).is_some_and(|rest| rest.starts_with(['*', '{', '<', '$']));
        let nested = before.ends_with(is_name);
        let whole = name.len() > folder.len();
        if whole && !pattern && !nested && (folder != "docs/" || ending(name) == "md") {
            names.push(name.to_owned());
        }
    }
    names
}
