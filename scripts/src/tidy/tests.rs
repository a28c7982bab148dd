//! Each check finds what it is for, and the tree as it stands passes all of them.

use std::path::Path;

use super::tree::Tree;
use super::{Finding, budget, check, dead, direction, links, source, words};

const HEADER: &str = "//! A file.\n";

#[track_caller]
fn finds(run: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &[(&str, usize)]) {
    let found = run(&Tree::of(files));
    let places: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.line)).collect();
    assert_eq!(places, expected, "{found:?}");
}

fn with_header(code: &str) -> String {
    format!("{HEADER}{code}")
}

#[test]
fn the_tree_is_tidy() {
    // Asked at run time: the program may have been built from another clone.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let root = Path::new(&package).join("..");
    let report = check(&root).unwrap();
    let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    assert!(report.files > 20, "only {} files were read", report.files);
}

#[test]
fn masking_blanks_comments_and_literals_only() {
    let code = "let a = \"un//safe\"; // unsafe\nlet b: &'a str = r#\"x\"y\"#; /* a /* b */ c */ f('\\'');";
    let masked = source::mask(code);
    assert_eq!(masked.lines().count(), code.lines().count());
    assert!(!masked.contains("safe") && !masked.contains('x') && !masked.contains('c'));
    assert!(masked.contains("&'a str") && masked.ends_with(");"));
}

#[test]
fn a_file_without_a_header_is_found() {
    finds(budget::check, &[("kms/src/a.rs", "fn f() {}\n")], &[("kms/src/a.rs", 1)]);
}

#[test]
fn a_long_file_is_found() {
    let long = with_header(&"use a;\n".repeat(701));
    finds(budget::check, &[("kms/src/a.rs", &long)], &[("kms/src/a.rs", 1)]);
    let fits = with_header(&"use a;\n// words\n\n".repeat(700));
    finds(budget::check, &[("kms/src/a.rs", &fits)], &[]);
}

#[test]
fn a_long_function_is_found() {
    let body =
        |lines: usize| with_header(&format!("fn f(\n) {{\n{}}}\n", "    g();\n".repeat(lines)));
    finds(budget::check, &[("kms/src/a.rs", &body(71))], &[("kms/src/a.rs", 2)]);
    finds(budget::check, &[("kms/src/a.rs", &body(70))], &[]);
    let python = format!("\"\"\"A file.\"\"\"\n\ndef f():\n{}", "    g()\n".repeat(71));
    finds(budget::check, &[("tests/a.py", &python)], &[("tests/a.py", 3)]);
}

#[test]
fn a_wide_comment_is_found() {
    let wide = with_header(&format!("// {}\n", "word ".repeat(25)));
    finds(budget::check, &[("kms/src/a.rs", &wide)], &[("kms/src/a.rs", 2)]);
}

#[test]
fn unfinished_work_is_found() {
    let code = with_header(concat!("fn f() { to", "do!() }\n// FIX", "ME later\n"));
    finds(words::check, &[("kms/src/a.rs", &code)], &[("kms/src/a.rs", 2), ("kms/src/a.rs", 3)]);
}

#[test]
fn a_silenced_test_is_found() {
    let code = with_header(concat!("#[ig", "nore]\nfn f() {}\n"));
    finds(words::check, &[("kms/src/a.rs", &code)], &[("kms/src/a.rs", 2)]);
}

#[test]
fn unsafe_outside_its_three_files_is_found() {
    let code = with_header("fn f() { unsafe { g() } }\n");
    finds(words::check, &[("kms/src/a.rs", &code)], &[("kms/src/a.rs", 2)]);
    finds(words::check, &[("kms/src/mem.rs", &code)], &[]);
}

#[test]
fn an_import_upwards_is_found() {
    let code = with_header("use kluis_server::X;\n");
    finds(direction::check, &[("storage/src/a.rs", &code)], &[("storage/src/a.rs", 2)]);
    let manifest = "[dependencies]\nkluis-storage.workspace = true\n";
    finds(direction::check, &[("kms/Cargo.toml", manifest)], &[("kms/Cargo.toml", 2)]);
    finds(direction::check, &[("server/Cargo.toml", manifest)], &[]);
}

#[test]
fn a_layer_of_storage_that_looks_up_is_found() {
    let code = with_header("use crate::{error::Error, meta::Rows};\n");
    finds(
        direction::check,
        &[("storage/src/blob/mod.rs", &code)],
        &[("storage/src/blob/mod.rs", 2)],
    );
    finds(direction::check, &[("storage/src/put.rs", &code)], &[]);
    let code = with_header("use crate::crypt::Open;\n");
    finds(direction::check, &[("storage/src/scrub.rs", &code)], &[("storage/src/scrub.rs", 2)]);
}

#[test]
fn waiting_in_a_pure_file_is_found() {
    let code = with_header("async fn f() {}\n");
    finds(direction::check, &[("kms/src/wrap.rs", &code)], &[("kms/src/wrap.rs", 2)]);
}

#[test]
fn a_file_that_nothing_reaches_is_found() {
    let lib = with_header("mod a;\n");
    let files =
        [("kms/src/lib.rs", lib.as_str()), ("kms/src/a.rs", HEADER), ("kms/src/b.rs", HEADER)];
    finds(dead::check, &files, &[("kms/src/b.rs", 1)]);
    let python =
        [("tests/x.py", "import y\n"), ("tests/y.py", ""), ("scripts/test", "python3 x.py")];
    finds(dead::check, &python, &[]);
    finds(dead::check, &[("tests/z.py", "")], &[("tests/z.py", 1)]);
}

#[test]
fn a_broken_link_is_found() {
    let page = "# Page\n[a](OTHER.md#here) [b](OTHER.md#gone) [c](MISSING.md) [d](#page)\n";
    let files = [("docs/PAGE.md", page), ("docs/OTHER.md", "## Here\n")];
    finds(links::check, &files, &[("docs/PAGE.md", 2), ("docs/PAGE.md", 2)]);
}

#[test]
fn a_pointer_to_a_missing_document_is_found() {
    let code = with_header("// Bytes: docs/GONE.md, run scripts/gone.\n");
    let expected = [("kms/src/a.rs", 2), ("kms/src/a.rs", 2)];
    finds(links::check, &[("kms/src/a.rs", &code)], &expected);
}
