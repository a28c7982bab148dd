//! Files that nothing reaches: a Rust file that no `mod` names, a Python file that no import names.
//!
//! Owns: how a file is reached. Knows nothing of: unused items inside a file; the compiler does.

use super::Finding;
use super::source::words;
use super::tree::{Tree, ending};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let rust = tree.rust().filter(|(path, _)| !reached_by_mod(tree, path));
    let python = tree.ending(".py").filter(|(path, _)| !reached_by_import(tree, path));
    rust.chain(python)
        .map(|(path, _)| Finding {
            path: path.to_owned(),
            line: 1,
            what: "nothing reaches this file: name it in its parent, or delete it".into(),
        })
        .collect()
}

/// Whether a manifest names the file as a target, or its parent module declares it.
fn reached_by_mod(tree: &Tree, path: &str) -> bool {
    is_target(tree, path) || declared(tree, path)
}

/// `src/main.rs`, `src/lib.rs`, `build.rs`, or the `path = "…"` of a manifest above it.
fn is_target(tree: &Tree, path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else {
        return false;
    };
    if folder.ends_with("/src") && matches!(name, "main.rs" | "lib.rs") || name == "build.rs" {
        return true;
    }
    tree.ending("Cargo.toml").any(|(manifest, file)| {
        let package = manifest.strip_suffix("Cargo.toml").unwrap_or_default();
        let inside = path.strip_prefix(package).unwrap_or_default();
        let stem = inside.trim_end_matches(".rs");
        file.text.contains(&format!("path = \"{inside}\""))
            || file.text.contains("[[bench]]") && file.text.contains(&format!("name = \"{stem}\""))
    })
}

fn declared(tree: &Tree, path: &str) -> bool {
    let stem = path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
    let Some((folder, module)) = stem.rsplit_once('/') else {
        return false;
    };
    let owner = folder.rsplit('/').next().unwrap_or(folder);
    let above = folder.strip_suffix(owner).unwrap_or_default();
    let parents = [
        format!("{folder}/mod.rs"),
        format!("{folder}/lib.rs"),
        format!("{folder}/main.rs"),
        format!("{above}{owner}.rs"),
    ];
    let declaration = format!("mod {module};");
    let beside = format!("{folder}/");
    tree.rust().any(|(parent, file)| {
        let is_parent = parents.iter().any(|p| p == parent);
        // A target with a name of its own, such as a bench, declares modules beside it.
        let is_target_beside = parent.starts_with(&beside) && is_target(tree, parent);
        (is_parent || is_target_beside) && words(&file.code, &declaration).next().is_some()
    })
}

/// Whether another Python file or a script names the file's stem.
fn reached_by_import(tree: &Tree, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.trim_end_matches(".py");
    if matches!(stem, "__init__" | "__main__") {
        return true;
    }
    let on_command_line = stem.replace('_', "-");
    tree.files.iter().any(|(other, file)| {
        other != path
            && (ending(other) == "py" || other.starts_with("scripts/"))
            && (words(&file.text, stem).next().is_some()
                || words(&file.text, &on_command_line).next().is_some())
    })
}
