//! The node's configuration: one struct, read from a TOML file, then the environment, then flags.
//!
//! The doc comments below are the documentation: `kluis config --print` and `kluis serve --help`
//! are made from them. Owns: defaults, bounds, the order of the layers, what may go with what.
//! Knows nothing of: who uses a field.
//!
//! Invariants
//! - Every field has a default that runs. An unknown field or a value out of bounds is refused, and
//!   the error names the layer it came from.
//! - Units stand in the names. No field holds a secret.

mod field;
mod key_store;
mod volume;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use field::FieldValue;
pub(crate) use field::{Bounds, Field, Kind};
pub(crate) use key_store::{KeyStoreConfig, KeyStoreKind};
pub(crate) use volume::VolumePaths;

/// Defines [`Config`] and [`FIELDS`] from one list, so that neither can miss a field.
macro_rules! config {
    ($( [$section:literal] $(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:expr, $bounds:expr;
    )+ )+) => {
        /// How the node runs.
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Config {
            $($( $(#[doc = $doc])+ pub(crate) $name: $type, )+)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($( $name: $default, )+)+ }
            }
        }

        /// Every field of [`Config`], in the order of the documentation.
        pub(crate) const FIELDS: &[Field] = &[ $($( Field {
            name: stringify!($name),
            section: $section,
            docs: &[$($doc),+],
            kind: <$type as FieldValue>::KIND,
            bounds: $bounds,
            value: |config| config.$name.to_toml(),
        }, )+)+ ];
    };
}

config! {
    ["Listeners"]
    /// Where the S3 API listens: an IP address and a port. Port 0 takes a free one.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9000)), Bounds::Any;
    /// PEM file with the certificate chain of the S3 API. With it and `tls_key_file` the listener
    /// speaks TLS only. Both files are read again on SIGHUP and when they change.
    tls_certificate_file: Option<PathBuf> = None, Bounds::Any;
    /// PEM file with the private key of `tls_certificate_file`.
    tls_key_file: Option<PathBuf> = None, Bounds::Any;
    /// Allows HTTP without TLS on an address that is not loopback. Everything is then readable on
    /// the network. Signatures protect from change only the headers and bodies that are signed: a
    /// client may leave its body unsigned, and answers are not protected at all.
    allow_plain_http_on_public: bool = false, Bounds::Any;
    /// Where `/health/live`, `/health/ready` and `/metrics` are served, in plain HTTP. Unset: on
    /// `listen` if that is a loopback address, and nowhere if it is not.
    metrics_listen: Option<SocketAddr> = None, Bounds::Any;
    /// Where the operator's API listens in addition to `admin.sock` in the data directory. It needs
    /// the three `admin_` files: a client must show a certificate.
    admin_listen: Option<SocketAddr> = None, Bounds::Any;
    /// PEM file with the certificate chain of the operator's API.
    admin_certificate_file: Option<PathBuf> = None, Bounds::Any;
    /// PEM file with the private key of `admin_certificate_file`.
    admin_key_file: Option<PathBuf> = None, Bounds::Any;
    /// PEM file with the certificates that a client of `admin_listen` must be signed by.
    admin_client_ca_file: Option<PathBuf> = None, Bounds::Any;

    ["S3"]
    /// The region that requests are signed for.
    region: String = "us-east-1".to_owned(), Bounds::Any;
    /// The host name that buckets are subdomains of: with `s3.example.com`, the host
    /// `photos.s3.example.com` names the bucket `photos`. Unset: buckets stand in the path only.
    domain: Option<String> = None, Bounds::Any;
    /// The largest XML document of a request, in bytes. CompleteMultipartUpload with 10,000 parts
    /// and a checksum on each takes about 3 MiB.
    xml_bytes_max: u64 = 8 << 20, Bounds::Range(64 << 10, 20 << 20);

    ["Limits"]
    /// Connections to the S3 API at one time. More wait in the listen queue of the system.
    connections_max: u64 = 4_096, Bounds::Range(1, 1_000_000);
    /// The header section of a request, in bytes, with the request line. Beyond it: status 431.
    header_bytes_max: u64 = 32 << 10, Bounds::Range(8 << 10, 256 << 10);
    /// Header fields in one request.
    header_count_max: u64 = 200, Bounds::Range(16, 10_000);
    /// How long a client may take to send a header section, or to finish a TLS handshake, in
    /// seconds.
    header_timeout_seconds: u64 = 15, Bounds::Range(1, 3_600);
    /// How long a connection may stay open between two requests, in seconds.
    idle_timeout_seconds: u64 = 75, Bounds::Range(1, 86_400);
    /// How long a client may stop sending a request body or taking an answer, in seconds. One that
    /// sends less than 8 KiB in this time counts as stopped.
    body_stall_seconds: u64 = 30, Bounds::Range(1, 3_600);
    /// Memory for request bodies that are being received, in bytes. A body takes as much as is held
    /// of it at one time: a document its length, an object 1 MiB, or 17 MiB in signed chunks, at
    /// most. Requests beyond it wait, and are told to slow down (503) after `body_stall_seconds`.
    request_bytes_max: u64 = 256 << 20, Bounds::Range(16 << 20, 1 << 40);
    /// Requests that one HTTP/2 connection may have open.
    http2_streams_max: u64 = 64, Bounds::Range(1, 1_000);
    /// How long requests may take to finish after SIGTERM or SIGINT, in seconds. A second signal
    /// ends the node at once.
    drain_seconds: u64 = 10, Bounds::Range(0, 3_600);

    ["Root key"]
    /// File with the passphrase that seals the root key; `-` reads it from standard input. Unset:
    /// the environment variable KLUIS_PASSPHRASE, then the systemd credential `kluis-passphrase`.
    passphrase_file: Option<PathBuf> = None, Bounds::Any;
    /// The name of an entry of `key_stores` that seals the root key in the passphrase's place. It
    /// must answer when the node starts. Only a new data directory can take it up.
    root_store: Option<String> = None, Bounds::Any;
    /// The id of the key in `root_store`.
    root_store_key: Option<String> = None, Bounds::Any;

    ["Key stores"]
    /// Places outside the node that hold tenants' own keys, each a table `[[key_stores]]` in this
    /// file with `name`, `kind` and `tenants` (names). The kind `transit` (Vault, OpenBao) takes
    /// `url`, `token_file` and perhaps `ca_file`, `mount`; `pkcs11` takes `module`, `token` (its
    /// label), `pin_file`; `xks` takes `url`, `access_key_file` (id and secret, a line each) and
    /// perhaps `ca_file`, `region`. `timeout_ms` bounds a call: 250 for `xks`, else 2000. A store
    /// that is down never keeps the node from starting, unless it is the `root_store`.
    key_stores: Vec<KeyStoreConfig> = Vec::new(), Bounds::Any;
    /// How long what a key store unwrapped is kept in memory, in seconds: a key that its tenant
    /// switches off in its own store stops working within this time. 0 asks the store every time.
    key_store_cache_seconds: u64 = 60, Bounds::Range(0, 3_600);

    ["Logs"]
    /// The least severe messages that are logged to standard error.
    log_level: String = "info".to_owned(),
        Bounds::OneOf(&["error", "warn", "info", "debug", "trace"]);
    /// How log lines look.
    log_format: String = "json".to_owned(), Bounds::OneOf(&["json", "text"]);
    /// Whether every request is logged: one line, without object names and query values.
    access_log: bool = true, Bounds::Any;

    ["Storage"]
    /// Where objects lie, a table `[[volumes]]` in this file with `paths`: one directory, or two on
    /// different disks that are kept alike (`paths = ["/d1/kluis", "/d2/kluis"]`). They must be
    /// there. Unset: the data directory. Metadata and keys stay in the data directory in any case.
    volumes: Vec<VolumePaths> = Vec::new(), Bounds::Any;
    /// How fast `kluis volume replace` fills a directory at most, in bytes a second.
    rebuild_bytes_per_second: u64 = 200 << 20, Bounds::Range(1 << 20, 1 << 40);
    /// How the disk is driven. `auto` takes `ring` (io_uring) where the kernel allows it.
    io_backend: String = "auto".to_owned(), Bounds::OneOf(&["auto", "ring", "threads"]);
    /// Threads of the `threads` backend.
    io_threads: u64 = 16, Bounds::Range(1, 512);
    /// Refuses a file system that cannot be read and written past the page cache.
    require_direct_io: bool = false, Bounds::Any;
    /// Memory for disk buffers, in bytes. Requests wait for a buffer when it is used up.
    buffer_bytes_max: u64 = 64 << 20, Bounds::Range(16 << 20, 64 << 30);
    /// Size of a segment file, in bytes, as a new data directory begins with; an existing one keeps
    /// its own.
    segment_bytes: u64 = 256 << 20, Bounds::Range(16 << 20, 4 << 30);
    /// Whether spare segments are filled with zeros in the background, which makes flushes cheaper
    /// on ext4.
    prewrite_segments: bool = true, Bounds::Any;
    /// What all segments together may take, in bytes; one of them is kept for winning space back.
    /// Unset: all there is.
    volume_bytes_max: Option<u64> = None, Bounds::Range(64 << 20, 1 << 60);
    /// Free space on the disk below which writes are refused (507), in bytes. Reads and deletes go
    /// on.
    reserve_bytes: u64 = 2 << 30, Bounds::Range(64 << 20, 1 << 50);
    /// Whether space of deleted objects is won back by itself. `kluis reclaim` works in any case.
    reclaim: bool = true, Bounds::Any;
    /// Bytes that winning space back may move in a second while there is space; when there is none,
    /// it moves what it can.
    reclaim_bytes_per_second: u64 = 64 << 20, Bounds::Range(1 << 20, 1 << 40);
    /// Percent of the closed segments that may lie idle before space is short: less means more
    /// bytes moved.
    reclaim_waste_percent: u64 = 25, Bounds::Range(5, 90);
    /// Within how many days everything that is stored is read once, so that rot is found while it
    /// can be put right; 0 for never. `kluis scrub now` works in any case.
    scrub_period_days: u64 = 7, Bounds::Range(0, 365);
    /// Memory for the metadata, in bytes: blocks that were read, and rows not yet in a table file.
    metadata_cache_bytes: u64 = 256 << 20, Bounds::Range(32 << 20, 1 << 40);
    /// Objects up to this size are kept in the metadata store, in bytes.
    inline_bytes_max: u64 = 4 << 10, Bounds::Range(0, 32 << 10);
    /// Folder on another disk in which checkpoints of the metadata are kept, with keys and audit
    /// log; made if it is not there. Unset: none are.
    metadata_checkpoint_dir: Option<PathBuf> = None, Bounds::Any;
    /// How often a checkpoint is made, in seconds: what is acknowledged after the last one is lost
    /// with the metadata's disk. Objects up to `inline_bytes_max` have no other copy.
    metadata_checkpoint_seconds: u64 = 300, Bounds::Range(10, 86_400);
    /// Tenants that get a column family of their own; later ones share.
    dedicated_namespaces_max: u64 = 256, Bounds::Range(0, 4_096);
}

/// Why a configuration was refused. The text names the layer and the field.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Variables of the command line's that are no settings of a node.
const OTHER_VARIABLES: [&str; 4] =
    ["KLUIS_CONFIG", "KLUIS_DATA_DIR", "KLUIS_ENDPOINT", "KLUIS_PASSPHRASE"];

/// Settings by field name, as one layer gives them in text.
pub(crate) type Texts = BTreeMap<&'static str, String>;

impl Config {
    /// Reads the layers, later ones over earlier ones, and checks the result.
    ///
    /// # Errors
    /// Names the file, variable or flag, and what is wrong with it.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: &Texts,
        flags: &Texts,
    ) -> Result<Self, ConfigError> {
        let mut table = file.map(read_file).transpose()?.unwrap_or_default();
        for (texts, is_flag) in [(environment, false), (flags, true)] {
            for field in FIELDS {
                let Some(text) = texts.get(field.name) else {
                    continue;
                };
                let value = read_text(field, text).map_err(|problem| {
                    let origin = if is_flag {
                        format!("flag --{}", field.flag_name())
                    } else {
                        format!("environment variable {}", field.environment_name())
                    };
                    ConfigError(format!("{origin}: {problem}"))
                })?;
                table.insert(field.name.to_owned(), value);
            }
        }
        let config: Self = table.try_into().map_err(|error| ConfigError(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// The settings that the environment holds, and the names of variables that look like ours and
    /// are not.
    pub(crate) fn environment(
        variables: impl Iterator<Item = (String, String)>,
    ) -> (Texts, Vec<String>) {
        let (mut texts, mut unknown) = (Texts::new(), Vec::new());
        let is_ours = |name: &str| name.starts_with("KLUIS_") && !OTHER_VARIABLES.contains(&name);
        for (name, text) in variables.filter(|(name, _)| is_ours(name)) {
            match FIELDS.iter().find(|field| field.environment_name() == name) {
                Some(field) => drop(texts.insert(field.name, text)),
                None => unknown.push(name),
            }
        }
        (texts, unknown)
    }

    /// The default configuration as a commented TOML file.
    pub(crate) fn documented_default() -> String {
        use std::fmt::Write as _;
        let default = Self::default();
        let mut text = String::from(
            "# Kluis configuration. Each setting can also be given as an environment variable\n\
             # (KLUIS_ and its name in capitals) or as a flag of `kluis serve`; flags win over the\n\
             # environment, which wins over this file. Values shown are the defaults.\n",
        );
        let mut section = "";
        for field in FIELDS {
            if field.section != section {
                section = field.section;
                let _ = write!(text, "\n##### {section} #####\n");
            }
            text.push('\n');
            for line in field.docs {
                let _ = writeln!(text, "#{line}");
            }
            if let Some(bounds) = field.bounds_text() {
                let _ = writeln!(text, "# {bounds}");
            }
            let _ = match (field.value)(&default) {
                Some(value) => writeln!(text, "{} = {value}", field.name),
                None if field.kind == Kind::Tables => writeln!(text, "#[[{}]]", field.name),
                None if field.kind == Kind::Integer => writeln!(text, "#{} = 0", field.name),
                None => writeln!(text, "#{} = \"\"", field.name),
            };
        }
        text
    }

    /// Whether health and metrics are answered on the S3 listener.
    pub(crate) fn serves_metrics_on_main(&self) -> bool {
        self.metrics_listen.is_none() && self.listen.ip().is_loopback()
    }

    /// Whether the S3 listener speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls_certificate_file.is_some()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |text: &str| Err(ConfigError(text.to_owned()));
        for field in FIELDS {
            if let Some(Err(problem)) = (field.value)(self).map(|value| field.check(&value)) {
                return Err(ConfigError(format!("{}: {problem}", field.name)));
            }
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return refuse("tls_certificate_file and tls_key_file go together: set both or none");
        }
        if !self.listen.ip().is_loopback() && !self.speaks_tls() && !self.allow_plain_http_on_public
        {
            return Err(ConfigError(format!(
                "listen: {} is not a loopback address, and requests would travel in clear. Set \
                 tls_certificate_file and tls_key_file, or allow_plain_http_on_public = true",
                self.listen
            )));
        }
        let admin_files =
            [&self.admin_certificate_file, &self.admin_key_file, &self.admin_client_ca_file];
        if admin_files.iter().any(|file| file.is_some() != self.admin_listen.is_some()) {
            return refuse(
                "admin_listen, admin_certificate_file, admin_key_file and admin_client_ca_file go \
                 together: set all four or none",
            );
        }
        if self.region.is_empty() || self.region.contains('/') {
            return refuse("region: must not be empty and must not contain `/`");
        }
        if let Some(domain) = &self.domain
            && !is_host_name(domain)
        {
            return refuse("domain: must be a host name without port, such as s3.example.com");
        }
        self.check_key_stores()?;
        volume::check(&self.volumes)
            .map_err(|problem| ConfigError(format!("volumes: {problem}")))?;
        if self.listen.port() != 0 && self.metrics_listen == Some(self.listen) {
            return refuse("metrics_listen: must differ from listen; leave it unset instead");
        }
        Ok(())
    }
}

impl Config {
    /// The entry of `key_stores` with this name.
    pub(crate) fn key_store(&self, name: &str) -> Option<&KeyStoreConfig> {
        self.key_stores.iter().find(|store| store.name == name)
    }

    fn check_key_stores(&self) -> Result<(), ConfigError> {
        let refuse = |problem: String| Err(ConfigError(problem));
        for (index, store) in self.key_stores.iter().enumerate() {
            if let Err(problem) = store.check() {
                return refuse(format!("key_stores: {problem}"));
            }
            if self.key_stores.iter().take(index).any(|other| other.name == store.name) {
                return refuse(format!("key_stores: two are named `{}`", store.name));
            }
        }
        match (&self.root_store, &self.root_store_key) {
            (Some(_), None) | (None, Some(_)) => {
                refuse("root_store and root_store_key go together: set both or none".to_owned())
            }
            (Some(name), Some(_)) if self.key_store(name).is_none() => {
                refuse(format!("root_store: no entry of key_stores is named `{name}`"))
            }
            (Some(_), Some(_)) if self.passphrase_file.is_some() => {
                refuse("root_store and passphrase_file exclude each other".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let named = |problem: String| ConfigError(format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    // Read as the struct first: its errors show the line.
    let config: Config = toml::from_str(&text).map_err(|error| named(error.to_string()))?;
    for field in FIELDS {
        if let Some(Err(problem)) = (field.value)(&config).map(|value| field.check(&value)) {
            return Err(named(format!("{}: {problem}", field.name)));
        }
    }
    toml::from_str(&text).map_err(|error| named(error.to_string()))
}

fn read_text(field: &Field, text: &str) -> Result<Value, String> {
    let value = field.parse(text)?;
    field.check(&value)?;
    let mut alone = Table::new();
    alone.insert(field.name.to_owned(), value.clone());
    let read: Result<Config, _> = alone.try_into();
    read.map(|_| value).map_err(|error| format!("`{text}`: {}", error.message()))
}

#[cfg(test)]
mod tests;
