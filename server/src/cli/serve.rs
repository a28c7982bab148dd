//! `kluis serve`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::flags::ConfigFlags;
use super::{EXIT_DONE, Failure, Outcome, output};
use crate::config::Config;
use crate::node::{self, Options, Started};
use crate::{logging, passphrase, process};

const EXAMPLES: &str = "\
The root key is sealed by a passphrase, from (in this order) --passphrase-file, the environment
variable KLUIS_PASSPHRASE, or the systemd credential `kluis-passphrase`. The first start of an
empty directory makes the keys.

Examples:
  kluis serve ./data --dev
  kluis serve /var/lib/kluis --passphrase-file /etc/kluis/passphrase --config /etc/kluis.toml
  kluis serve /var/lib/kluis --listen 0.0.0.0:443 \\
      --tls-certificate-file cert.pem --tls-key-file key.pem";

/// Runs a node on a data directory until SIGTERM or SIGINT.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The data directory; made if it is not there.
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// Keeps a passphrase in the data directory, for trying things out: whoever can read the disk
    /// can then read the objects.
    #[arg(long)]
    dev: bool,
    /// TOML file with the configuration; `kluis config --print` writes one.
    #[arg(long, value_name = "FILE", env = "KLUIS_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

impl Serve {
    pub(super) fn run(self, json: bool) -> Outcome {
        let config = load(self.config.as_deref(), &self.flags)?;
        process::harden().map_err(Failure::could_not_run)?;
        let options = Options { data: self.data, dev: self.dev, config };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Failure::could_not_run)?;
        runtime.block_on(node::run(options, |started| announce(started, json)))?;
        Ok(EXIT_DONE)
    }
}

/// Reads the configuration and starts logging as it says.
pub(super) fn load(file: Option<&Path>, flags: &ConfigFlags) -> Result<Config, Failure> {
    let variables = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    let (environment, unknown) = Config::environment(variables);
    let config = Config::load(file, &environment, &flags.0).map_err(Failure::could_not_run)?;
    logging::start(&config);
    for name in unknown {
        tracing::warn!(name, "this variable looks like a setting of Kluis and is none");
    }
    Ok(config)
}

fn announce(started: &Started, json: bool) {
    // A closed standard output is no reason to stop a node that runs.
    let _ = if json { output::json(started) } else { output::line(&banner(started)) };
}

fn banner(started: &Started) -> String {
    let mut lines = vec![
        format!("Kluis {} is running.", env!("CARGO_PKG_VERSION")),
        format!("  S3 endpoint   {} (region {})", started.endpoint, started.region),
        format!("  data          {}", started.data.display()),
        format!("  admin socket  {}", started.admin_socket.display()),
    ];
    if let Some(endpoint) = &started.admin_endpoint {
        lines.push(format!("  admin API     {endpoint}"));
    }
    if let Some(metrics) = &started.metrics {
        lines.push(format!("  metrics       {metrics}"));
    }
    lines.push(format!("  disk backend  {}", started.io_backend));
    if started.dev {
        lines.push(String::new());
        lines.push(format!(
            "  DEVELOPMENT MODE: the passphrase lies beside the data, in {}.\n  \
             Whoever can read this disk can read the objects.",
            passphrase::dev_file(&started.data).display()
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "Make a tenant:  kluis tenant create NAME --data-dir {}",
        started.data.display()
    ));
    lines.join("\n")
}
