//! Log lines: JSON (or text) to standard error, filtered by the configured level.
//!
//! Owns: format and filter. Knows nothing of: what is logged.
//!
//! Invariants
//! - The level applies to this project's own modules. Libraries are heard from `warn` up, and the
//!   S3 codec not at all: at `debug` it prints whole requests, at `error` the bodies of failed
//!   ones.
//! - What operators do (`kluis::admin`: requests, and changes to who may get in) is logged at every
//!   level.
//! - A second call in one process changes nothing.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::admin;
use crate::config::Config;

/// The target of access log lines.
pub(crate) const ACCESS: &str = "kluis::access";

/// Starts logging as `config` says.
pub(crate) fn start(config: &Config) {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if config.log_format == "json" {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        lines.with_ansi(false).boxed()
    };
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter(config))).try_init();
}

fn filter(config: &Config) -> Targets {
    let level = config.log_level.parse().unwrap_or(LevelFilter::INFO);
    let access = if config.access_log { LevelFilter::INFO } else { LevelFilter::OFF };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(["kluis", "kluis_kms", "kluis_storage"].map(|target| (target, level)))
        .with_target(ACCESS, access)
        // A quiet log must not hide who made an access key.
        .with_target(admin::AUDIT, level.max(LevelFilter::INFO))
        .with_target("s3s", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn changes_to_access_are_logged_at_every_level() {
        let config = Config { log_level: "error".to_owned(), ..Config::default() };
        let filter = filter(&config);
        assert!(filter.would_enable(admin::AUDIT, &Level::WARN));
        assert!(!filter.would_enable("kluis::front", &Level::WARN));
        assert!(!filter.would_enable("s3s", &Level::ERROR));
    }
}
