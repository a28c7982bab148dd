//! Who may import whom: server → storage → kms, and the layers inside storage.
//!
//! Owns: the table of layers, which is the drawing in docs/ARCHITECTURE.md as data.
//! Knows nothing of: what is imported; a path in code is enough.

use super::Finding;
use super::source::words;
use super::tree::Tree;

/// A package's folder, its manifest's name for the packages it may name, and those it may not.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("kms/", &["storage", "server", "benches", "tests"]),
    ("storage/", &["server", "benches", "tests"]),
    ("server/", &["benches", "tests"]),
];

/// For a low layer of storage: every module of its own package that it may name.
const STORAGE_LAYERS: [(&str, &[&str]); 7] = [
    ("error", &["error"]),
    ("digest", &["digest", "error"]),
    ("types", &["digest", "error", "types"]),
    ("format", &["digest", "error", "format", "types"]),
    ("crypt", &["crypt", "digest", "error", "format", "types"]),
    ("io", &["bugs", "error", "format", "io", "types"]),
    ("blob", &["blob", "bugs", "error", "format", "io", "reached", "types"]),
];

/// For a module of storage: the modules that it must never name.
const STORAGE_NEVER: [(&str, &[&str]); 5] = [
    ("meta", &["blob", "crypt", "engine", "index", "io", "put", "get", "list", "multipart"]),
    ("namespace", &["blob", "crypt", "engine", "index", "io", "put", "get", "list", "multipart"]),
    ("commit", &["crypt", "engine", "put", "get", "list", "multipart"]),
    ("reclaim", &["crypt"]),
    ("scrub", &["crypt"]),
];

/// For a module of the server: the modules that it must never name.
const SERVER_NEVER: [(&str, &[&str]); 4] = [
    ("auth", &["admin", "cli", "s3"]),
    ("key_policy", &["admin", "body", "cli", "front", "http", "kms", "s3"]),
    ("policy", &["admin", "body", "cli", "front", "http", "s3"]),
    ("s3", &["admin", "cli", "front", "http"]),
];

/// Files that do no I/O, hold no clock and never wait.
const PURE: [&str; 12] = [
    "kms/src/derive",
    "kms/src/lifecycle",
    "kms/src/wrap",
    "server/src/key_policy/condition",
    "server/src/key_policy/document",
    "server/src/key_policy/grant",
    "server/src/key_policy/json",
    "server/src/key_policy/pattern",
    "server/src/policy",
    "storage/src/crypt",
    "storage/src/format",
    "storage/src/types",
];

/// What would make one of them impure.
const IMPURE: [&str; 5] = ["async", "await", "std::fs", "std::time", "tokio"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.rust() {
        findings.extend(packages(path, &file.code));
        if let Some(module) = module_of(path, "storage/src/") {
            findings.extend(layers(path, module, &file.code));
            findings.extend(never(path, module, &file.code, &STORAGE_NEVER));
        }
        if let Some(module) = module_of(path, "server/src/") {
            findings.extend(never(path, module, &file.code, &SERVER_NEVER));
        }
        findings.extend(purity(path, &file.code));
    }
    for (path, file) in tree.ending("Cargo.toml") {
        findings.extend(manifest(path, &file.text));
    }
    findings
}

fn packages(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, banned) in PACKAGES.iter().filter(|(folder, _)| path.starts_with(folder)) {
        for package in *banned {
            let name = format!("kluis_{package}");
            findings.extend(words(code, &name).map(|(line, _)| against(path, line, &name)));
        }
    }
    findings
}

fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, banned) in PACKAGES.iter().filter(|(folder, _)| path.starts_with(folder)) {
        for package in *banned {
            let name = format!("kluis-{package}");
            let lines = text.lines().enumerate().filter(|(_, l)| {
                l.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            });
            findings.extend(lines.map(|(index, _)| against(path, index + 1, &name)));
        }
    }
    findings
}

fn against(path: &str, line: usize, name: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        line,
        what: format!("names `{name}`, which lies above or beside it (docs/ARCHITECTURE.md)"),
    }
}

/// The top module that a file of a package belongs to; none for `lib.rs` and `main.rs`.
fn module_of<'a>(path: &'a str, sources: &str) -> Option<&'a str> {
    let inside = path.strip_prefix(sources)?;
    let top = inside.split('/').next()?.trim_end_matches(".rs");
    // A file of tests may look at whatever it needs.
    let is_tests = inside.ends_with("/tests.rs") || inside.contains("/tests/");
    (!is_tests && !matches!(top, "lib" | "main")).then_some(top)
}

/// Every module of its own package that the code names as `crate::module`, also in braces.
fn named_modules(code: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (line, from) in words(code, "crate::") {
        let rest = from.get("crate::".len()..).unwrap_or_default();
        let group = rest.strip_prefix('{').map(|inner| inner.split('}').next().unwrap_or(inner));
        for item in group.unwrap_or(rest).split(", ").take(if group.is_some() { 99 } else { 1 }) {
            let end = item.find(|c| !super::source::is_word(c)).unwrap_or(item.len());
            if let Some(name) = item.get(..end).filter(|n| !n.is_empty()) {
                named.push((line, name.to_owned()));
            }
        }
    }
    named
}

fn layers(path: &str, module: &str, code: &str) -> Vec<Finding> {
    let Some((_, allowed)) = STORAGE_LAYERS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    named_modules(code)
        .into_iter()
        // A name that starts with a capital is a type or constant re-exported at the root.
        .filter(|(_, name)| {
            name.starts_with(char::is_lowercase) && !allowed.contains(&name.as_str())
        })
        .map(|(line, name)| against(path, line, &format!("crate::{name}")))
        .collect()
}

fn never(path: &str, module: &str, code: &str, table: &[(&str, &[&str])]) -> Vec<Finding> {
    let Some((_, banned)) = table.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    named_modules(code)
        .into_iter()
        .filter(|(_, name)| banned.contains(&name.as_str()))
        .map(|(line, name)| against(path, line, &format!("crate::{name}")))
        .collect()
}

fn purity(path: &str, code: &str) -> Vec<Finding> {
    let pure = PURE
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['.', '/'])));
    if !pure || path.ends_with("tests.rs") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for word in IMPURE {
        findings.extend(words(code, word).map(|(line, _)| Finding {
            path: path.to_owned(),
            line,
            what: format!("`{word}`: this file is pure, let the caller do it"),
        }));
    }
    findings
}
