//! Words that must not stand in the tree: unfinished work, silenced tests, another machine's paths.
//!
//! Owns: the lists. Each word is written in two halves, so that this file passes its own check.

use super::Finding;
use super::source::words;
use super::tree::Tree;

/// In Rust code, comments and literals aside.
const IN_CODE: [(&str, &str); 7] = [
    (concat!("to", "do!"), "write it, or leave it out"),
    (concat!("unimple", "mented!"), "write it, or leave it out"),
    (concat!("db", "g!"), "a leftover of debugging"),
    (concat!("#[ig", "nore"), "a test that does not run says nothing: fix or delete it"),
    (concat!("#[should_", "panic"), "assert on the error instead"),
    (concat!("#[al", "low("), "write `#[expect(lint, reason = \"…\")]`"),
    (concat!("#![al", "low("), "write `#![expect(lint, reason = \"…\")]`"),
];

/// In any text, comments included.
const ANYWHERE: [(&str, &str); 9] = [
    (concat!("FIX", "ME"), "fix it, or file an issue"),
    (concat!("TO", "DO"), "do it, or file an issue"),
    (concat!("XX", "X"), "say what is wrong, or file an issue"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("registry.", "npmjs"), "use the package client as it is set up"),
    (concat!("py", "pi.org"), "use the package client as it is set up"),
    (concat!("files.python", "hosted"), "use the package client as it is set up"),
    (concat!("deb.", "debian.org"), "use the package client as it is set up"),
];

/// The only files that may hold the word `unsafe`.
const UNSAFE_FILES: [&str; 5] = [
    "kms/src/mem.rs",
    "kms/src/mem/tests.rs",
    "storage/src/io/buf.rs",
    "storage/src/io/ring.rs",
    "storage/src/io/ring/tests.rs",
];
/// The only file that may ask the operating system for randomness.
const RANDOM_FILE: &str = "kms/src/env.rs";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.rust() {
        for (word, advice) in IN_CODE {
            findings.extend(found(path, &file.code, word, advice));
        }
        if !UNSAFE_FILES.contains(&path) {
            let advice = "only the ring, the buffers and locked memory may";
            findings.extend(found(path, &file.code, "unsafe", advice));
        }
        if path != RANDOM_FILE {
            let advice = "take an `Rng`, so that a run can be repeated from its seed";
            findings.extend(found(path, &file.code, "getrandom", advice));
        }
    }
    for (path, file) in &tree.files {
        for (word, advice) in ANYWHERE {
            findings.extend(found(path, &file.text, word, advice));
        }
    }
    findings
}

fn found(path: &str, text: &str, word: &str, advice: &str) -> Vec<Finding> {
    let what = format!("`{word}`: {advice}");
    words(text, word)
        .map(|(line, _)| Finding { path: path.to_owned(), line, what: what.clone() })
        .collect()
}
