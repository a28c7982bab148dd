//! Arguments, and what is printed.

use super::*;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("kluis").chain(arguments.iter().copied()))
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_examples() {
    fn check(command: &clap::Command) {
        let name = command.get_name().to_owned();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        if command.get_subcommands().next().is_none() {
            assert!(help.contains("Examples:"), "{name} has no examples");
        }
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
}

#[test]
fn serve_takes_every_field_as_a_flag() {
    let cli = parse(&[
        "serve",
        "dir",
        "--dev",
        "--listen",
        "127.0.0.1:1",
        "--allow-plain-http-on-public",
        "--access-log=false",
        "--drain-seconds",
        "3",
    ]);
    let Command::Serve(serve) = cli.unwrap().command else { panic!("another command") };
    let flags = format!("{serve:?}");
    for part in [
        "\"listen\": \"127.0.0.1:1\"",
        "\"allow_plain_http_on_public\": \"true\"",
        "\"access_log\": \"false\"",
        "\"drain_seconds\": \"3\"",
    ] {
        assert!(flags.contains(part), "{flags}");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for arguments in [
        &["serve"][..],
        &["serve", "dir", "--no-such-flag"],
        &["tenant", "create", "--data-dir", "d"],
        &["tenant", "create", "x", "--count", "3", "--prefix", "p", "--data-dir", "d"],
        &["tenant", "create", "--count", "3", "--data-dir", "d"],
        &["user", "create", "alice", "--data-dir", "d"],
        &["backup", "--to", "r"],
        &["backup", "--data-dir", "d"],
        &["backup", "prune", "--from", "r", "--keep", "0"],
        &["backup", "list", "--to", "r"],
        &["restore", "--from", "r"],
        &["config"],
        &["completions", "no-such-shell"],
    ] {
        assert!(parse(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn json_is_understood_everywhere() {
    for arguments in [
        &["--json", "tenant", "list", "--data-dir", "d"][..],
        &["tenant", "list", "--json", "--data-dir", "d"],
        &["check", "d", "--json"],
        &["backup", "--to", "r", "--data-dir", "d", "--json"],
        &["backup", "verify", "--from", "r", "--json"],
    ] {
        assert!(parse(arguments).unwrap().json, "{arguments:?}");
    }
}

#[test]
fn times_are_rfc_3339() {
    for (unix_ms, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59Z"),
        (4_102_444_800_000, "2100-01-01T00:00:00Z"),
    ] {
        assert_eq!(output::time(unix_ms), expected);
    }
}
