//! `xtask`: checks of the tree that no compiler makes.
//!
//! Owns: the command line of the checks. Knows nothing of: what they check; that is in [`tidy`].

use std::path::Path;
use std::process::ExitCode;

mod tidy;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let (Some("tidy"), None) = (arguments.next().as_deref(), arguments.next()) {
        run_tidy()
    } else {
        eprintln!("usage: cargo run -p xtask --release -- tidy");
        ExitCode::from(2)
    }
}

fn run_tidy() -> ExitCode {
    match tidy::check(&root()) {
        Err(cause) => {
            eprintln!("tidy: the tree could not be read: {cause}");
            ExitCode::from(2)
        }
        Ok(report) if report.findings.is_empty() => {
            println!("tidy: {} files, nothing to say", report.files);
            ExitCode::SUCCESS
        }
        Ok(report) => {
            for finding in &report.findings {
                println!("{finding}");
            }
            println!("tidy: {} findings in {} files", report.findings.len(), report.files);
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds the workspace.
fn root() -> std::path::PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    package.map_or_else(|| ".".into(), |package| Path::new(&package).join(".."))
}
