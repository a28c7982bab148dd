//! The documented default is a golden file; refusals name the field.

use std::path::Path;

use super::*;

const GOLDEN: &str = include_str!("default.toml");

fn texts(pairs: &[(&'static str, &str)]) -> Texts {
    pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect()
}

fn load_text(toml: &str, environment: &Texts, flags: &Texts) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kluis.toml");
    std::fs::write(&path, toml).unwrap();
    Config::load(Some(&path), environment, flags)
}

#[track_caller]
fn check_refused(toml: &str, expected: &str) {
    let error = load_text(toml, &Texts::new(), &Texts::new()).unwrap_err().to_string();
    assert!(error.contains(expected), "{toml:?} gave {error:?}, expected {expected:?}");
}

#[test]
fn the_documented_default_is_the_golden_file() {
    let text = Config::documented_default();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/default.toml");
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert!(text == GOLDEN, "run the tests once with UPDATE_GOLDEN=1 and look at the difference");
}

#[test]
fn the_golden_file_reads_as_the_default() {
    let read = load_text(GOLDEN, &Texts::new(), &Texts::new()).unwrap();
    assert_eq!(read, Config::default());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "region = \"file\"\ndrain_seconds = 1\nconnections_max = 5\n";
    let environment = texts(&[("region", "environment"), ("drain_seconds", "2")]);
    let flags = texts(&[("region", "flag")]);
    let config = load_text(file, &environment, &flags).unwrap();
    assert_eq!(
        (config.region.as_str(), config.drain_seconds, config.connections_max),
        ("flag", 2, 5)
    );
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    for (toml, expected) in [
        ("conections_max = 3", "unknown field `conections_max`"),
        ("[limits]\nconnections_max = 3", "unknown field `limits`"),
        ("connections_max = 0", "connections_max: 0 is outside 1 to 1000000"),
        ("connections_max = -1", "invalid value"),
        ("connections_max = \"many\"", "invalid type"),
        ("listen = \"localhost\"", "invalid socket address"),
        ("listen = \"0.0.0.0:9000\"", "is not a loopback address"),
        ("log_level = \"loud\"", "log_level: `loud` is none of error, warn, info, debug, trace"),
        ("tls_key_file = \"k.pem\"", "go together"),
        ("admin_listen = \"127.0.0.1:9001\"", "go together"),
        ("region = \"\"", "region: must not be empty"),
        ("domain = \"s3.example.com:9000\"", "domain: must be a host name"),
        ("metrics_listen = \"127.0.0.1:9000\"", "metrics_listen: must differ"),
        ("drain_seconds = 1\ndrain_seconds = 2", "duplicate key"),
        ("drain_seconds =", "drain_seconds"),
    ] {
        check_refused(toml, expected);
    }
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let none = Texts::new();
    let environment = texts(&[("drain_seconds", "soon")]);
    let error = load_text("", &environment, &none).unwrap_err().to_string();
    assert_eq!(error, "environment variable KLUIS_DRAIN_SECONDS: `soon` is not a whole number");
    let error = load_text("", &none, &texts(&[("listen", "x")])).unwrap_err().to_string();
    assert!(error.starts_with("flag --listen: `x`: "), "{error}");
}

#[test]
fn unknown_variables_are_reported() {
    let variables = [("KLUIS_REGION", "eu"), ("KLUIS_REGIN", "eu"), ("KLUIS_CONFIG", "/")];
    let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let (texts, unknown) = Config::environment(variables.into_iter());
    assert_eq!(texts.get("region").map(String::as_str), Some("eu"));
    assert_eq!(unknown, ["KLUIS_REGIN"]);
}

#[test]
fn public_plain_http_needs_consent() {
    let config = load_text(
        "listen = \"0.0.0.0:9000\"\nallow_plain_http_on_public = true",
        &Texts::new(),
        &Texts::new(),
    )
    .unwrap();
    assert!(!config.serves_metrics_on_main());
}

const TRANSIT: &str = "[[key_stores]]\nname = \"vault\"\nkind = \"transit\"\n\
    url = \"https://vault.example.com\"\ntoken_file = \"/t\"\nca_file = \"/c\"\ntenants = [\"acme\"]\n";

#[test]
fn key_stores_are_read_and_found_by_name() {
    let text = format!(
        "root_store = \"hsm\"\nroot_store_key = \"root\"\n{TRANSIT}[[key_stores]]\n\
         name = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = \"t\"\npin_file = \"/p\"\n\
         timeout_ms = 700\n[[key_stores]]\nname = \"own\"\nkind = \"xks\"\n\
         url = \"http://127.0.0.1:1\"\naccess_key_file = \"/a\"\n"
    );
    let config = load_text(&text, &Texts::new(), &Texts::new()).unwrap();
    let timeout = |name| config.key_store(name).unwrap().timeout_ms();
    assert_eq!((timeout("vault"), timeout("hsm"), timeout("own")), (2_000, 700, 250));
    assert_eq!(config.key_store("vault").unwrap().tenants, ["acme"]);
    assert!(config.key_store("none").is_none());
}

#[test]
fn bad_key_stores_are_refused_with_the_reason() {
    let cases = [
        (format!("{TRANSIT}pin_file = \"/p\""), "`vault` has no use for `pin_file`"),
        (TRANSIT.replace("token_file = \"/t\"\n", ""), "`vault` needs `token_file`"),
        (format!("{TRANSIT}{TRANSIT}"), "two are named `vault`"),
        (TRANSIT.replace("\"vault\"", "\"a b\""), "name: `a b` is not"),
        (TRANSIT.replace("transit", "kmip"), "unknown variant `kmip`"),
        (format!("{TRANSIT}timeout_ms = 1"), "timeout_ms is outside 10 to 30000"),
        (format!("{TRANSIT}pin = \"1234\""), "unknown field `pin`"),
        (format!("root_store = \"vault\"\n{TRANSIT}"), "go together"),
        (
            format!("root_store = \"hsm\"\nroot_store_key = \"k\"\n{TRANSIT}"),
            "no entry of key_stores is named `hsm`",
        ),
        (
            format!(
                "passphrase_file = \"/p\"\nroot_store = \"vault\"\nroot_store_key = \"k\"\n{TRANSIT}"
            ),
            "exclude each other",
        ),
        ("key_store_cache_seconds = 3601".to_owned(), "outside 0 to 3600"),
    ];
    for (toml, expected) in cases {
        check_refused(&toml, expected);
    }
    let error = load_text("", &texts(&[("key_stores", "x")]), &Texts::new()).unwrap_err();
    assert!(error.to_string().contains("in the configuration file only"), "{error}");
}

#[test]
fn a_volume_has_one_directory_or_two() {
    let two = "[[volumes]]\npaths = [\"/d1/kluis\", \"/d2/kluis\"]\n";
    let config = load_text(two, &Texts::new(), &Texts::new()).unwrap();
    assert_eq!(config.volumes[0].paths, [Path::new("/d1/kluis"), Path::new("/d2/kluis")]);
    assert!(load_text("", &Texts::new(), &Texts::new()).unwrap().volumes.is_empty());
    let cases = [
        (format!("{two}{two}"), "2 are given; this build keeps one"),
        ("[[volumes]]\npaths = []".to_owned(), "0 are given, not 1 or 2"),
        ("[[volumes]]\npaths = [\"/a\", \"/b\", \"/c\"]".to_owned(), "3 are given, not 1 or 2"),
        ("[[volumes]]\npaths = [\"d1\"]".to_owned(), "`d1` does not begin with `/`"),
        ("[[volumes]]\npath = \"/d1\"".to_owned(), "unknown field `path`"),
        ("rebuild_bytes_per_second = 1".to_owned(), "outside 1048576"),
    ];
    for (toml, expected) in cases {
        check_refused(&toml, expected);
    }
}
