//! A node: open everything, run, drain, close.
//!
//! Owns: the order of opening and closing, and signals. Knows nothing of: what the parts do.
//!
//! Invariants
//! - The keys open before the engine, and a data directory that has data but no keys is refused:
//!   making new keys over it would lose the data for good.
//! - On the way down the engine closes last, after every request has ended.

mod checkpoints;
mod open;
mod signals;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kluis_kms::env::Env;
use kluis_kms::{RemoteStores, ShiftedClock};
use kluis_storage::{DiskKind, Engine};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::auth::creds::Directory;
use crate::auth::sigv4::Authenticator;
use crate::config::Config;
use crate::front::{Front, Observer};
use crate::http::{self, Drain, Handler, OpenBodies, Settings, Shared};
use crate::key_policy::KeyPolicies;
use crate::key_stores;
use crate::kms::KmsApi;
use crate::metrics::{Metrics, UPKEEP_EVERY};
use crate::s3::S3Api;
use crate::s3::door::Door;
use crate::tls::{LOOK_EVERY, Tls, TlsFiles};

pub(crate) use open::{Keys, engine_config, open_keys, root_store};

/// How often the node looks what is due by the clock: rotations, expiries, destructions.
const DUE_EVERY: Duration = Duration::from_secs(5);

/// Why a node does not start. The text says what to do.
#[derive(Debug)]
pub(crate) struct NodeError(String);

impl NodeError {
    /// A failed step and its cause.
    pub(crate) fn new(step: &str, cause: impl fmt::Display) -> Self {
        Self(format!("{step}: {cause}"))
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}

/// What to run.
pub(crate) struct Options {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Whether the passphrase may lie in the data directory.
    pub(crate) dev: bool,
    /// How.
    pub(crate) config: Config,
}

/// What a started node tells whoever started it.
#[derive(Debug, Serialize)]
pub(crate) struct Started {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) data: PathBuf,
    pub(crate) admin_socket: PathBuf,
    pub(crate) admin_endpoint: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) io_backend: &'static str,
    pub(crate) dev: bool,
    pub(crate) pid: u32,
}

struct Listeners {
    s3: TcpListener,
    s3_tls: Option<Arc<Tls>>,
    metrics: Option<TcpListener>,
    admin: Option<(TcpListener, Arc<Tls>)>,
}

/// Runs a node until a signal ends it. `started` is called once requests are answered.
///
/// # Errors
/// A part does not open; the text says which and what to do.
pub(crate) async fn run(options: Options, started: impl FnOnce(&Started)) -> Result<(), NodeError> {
    let Options { data, dev, config } = options;
    let signals = signals::Signals::listen().map_err(|e| NodeError::new("listen to signals", e))?;
    let metrics = Metrics::start().map_err(|e| NodeError::new("start metrics", e))?;
    // Addresses in use and bad certificates are found before any key is made.
    let listeners = bind(&config).await?;
    let env = Env::system();
    open::make_folder(&data)?;
    open::check_volumes(&config)?;
    let keys = open_keys(&data, dev, &config, &env).await?;
    let engine = Engine::open(&data, engine_config(&config)?, keys.kms, env.clone())
        .await
        .map_err(|e| NodeError::new("open the data directory", e))?;
    let socket = admin::bind(&data).map_err(|e| NodeError::new("make the admin socket", e))?;
    let node = Reported { data: &data, config: &config, is_dev: keys.is_dev };
    let report = report(&node, &listeners, &engine)?;

    let drain = Drain::new();
    let open_bodies = OpenBodies::new();
    let cut = open_bodies.clone();
    engine.kms().on_close(Arc::new(move |_, tenant_key| cut.cut(tenant_key)));
    let people = Directory::open(engine.registry(), Arc::clone(engine.kms()), env.clone());
    key_stores::admit_tenants(&keys.stores, &config, (&people, &env));
    let parts = Parts {
        config,
        engine: engine.clone(),
        env,
        metrics,
        is_dev: keys.is_dev,
        dev_clock: keys.dev_clock,
        key_stores: keys.stores,
        drain,
        open_bodies,
    };
    let mut services = JoinSet::new();
    let reloads = parts.start(listeners, socket, &mut services).await;
    tracing::info!(
        endpoint = report.endpoint,
        io_backend = report.io_backend,
        dev = report.dev,
        version = env!("CARGO_PKG_VERSION"),
        "node started"
    );
    if report.dev {
        tracing::warn!("the passphrase lies beside the data: for trying things out only (--dev)");
    }
    started(&report);

    signals.until_stop(|| reloads.iter().for_each(|tls| tls.reload())).await;
    tracing::info!("draining");
    parts.drain.begin();
    tokio::select! {
        () = async { while services.join_next().await.is_some() {} } => {}
        () = signals.until_stop(|| ()) => {
            // The engine recovers from this as from a power cut; whoever signals twice wants it.
            tracing::warn!("second signal: ending at once");
            std::process::exit(1);
        }
    }
    // The engine's lock still keeps other nodes out: once it is gone, the socket of this name may
    // be another node's.
    let _ = std::fs::remove_file(admin::socket_path(&data));
    engine.close().await.map_err(|e| NodeError::new("close the data directory", e))?;
    tracing::info!("node stopped");
    Ok(())
}

struct Parts {
    config: Config,
    engine: Engine,
    env: Env,
    metrics: Metrics,
    is_dev: bool,
    dev_clock: Option<Arc<ShiftedClock>>,
    key_stores: Arc<RemoteStores>,
    drain: Drain,
    open_bodies: OpenBodies,
}

impl Parts {
    /// Starts every listener. Gives the certificates that SIGHUP reloads.
    async fn start(
        &self,
        listeners: Listeners,
        socket: UnixListener,
        services: &mut JoinSet<()>,
    ) -> Vec<Arc<Tls>> {
        let engine = self.engine.clone();
        let observer = Arc::new(Observer {
            stats: Box::new(move || engine.stats()),
            key_stores: Arc::clone(&self.key_stores),
            metrics: self.metrics.clone(),
            is_dev: self.is_dev,
            drain: self.drain.clone(),
        });
        let env = &self.env;
        let directory =
            Directory::open(self.engine.registry(), Arc::clone(self.engine.kms()), env.clone());
        let region = self.config.region.clone();
        let authenticator =
            Authenticator::new(directory.clone(), region.clone(), Arc::clone(&env.clock));
        let key_policies = KeyPolicies::new(self.engine.kms(), &region, env.clone());
        let etag_rule = kluis_storage::ETagRule::default();
        let api = S3Api::new(self.engine.clone(), region, etag_rule, Arc::clone(&key_policies));
        let on_main = self.config.serves_metrics_on_main().then(|| Arc::clone(&observer));
        let door = Door::new(api, self.config.xml_bytes_max);
        let region = self.config.region.clone();
        let kms = KmsApi::new(self.engine.clone(), key_policies, env.clone(), region);
        let front = Front::new(&self.config, authenticator, (door, kms), on_main, &*env.rng);

        let s3 = self.shared(Arc::new(front)).await;
        services.spawn(http::serve(listeners.s3, listeners.s3_tls.clone(), s3));
        if let Some(listener) = listeners.metrics {
            let shared = self.shared(Arc::<Observer>::clone(&observer)).await;
            services.spawn(http::serve(listener, None, shared));
        }
        let admin = Arc::new(
            Admin::new(self.engine.clone(), directory, observer)
                .with_dev_clock(self.dev_clock.clone()),
        );
        let shared = self.shared(admin).await;
        let drain = self.drain.clone();
        services.spawn(admin::serve_socket(socket, Arc::clone(&shared), drain));
        let mut reloads: Vec<_> = listeners.s3_tls.into_iter().collect();
        if let Some((listener, tls)) = listeners.admin {
            services.spawn(http::serve(listener, Some(Arc::clone(&tls)), shared));
            reloads.push(tls);
        }
        self.start_upkeep(&reloads);
        reloads
    }

    async fn shared(&self, handler: Arc<dyn Handler>) -> Arc<Shared> {
        let settings = Settings::new(&self.config);
        let shared = Shared::new(handler, settings, self.drain.clone()).await;
        Arc::new(shared.with_open_bodies(self.open_bodies.clone()))
    }

    /// Tasks that run beside the services and end with the process.
    fn start_upkeep(&self, reloads: &[Arc<Tls>]) {
        for tls in reloads {
            tokio::spawn(Arc::clone(tls).follow(LOOK_EVERY));
        }
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                metrics.upkeep();
            }
        });
        checkpoints::start(&self.engine, &self.config, &self.drain);
        let (engine, drain) = (self.engine.clone(), self.drain.clone());
        tokio::spawn(async move {
            while !drain.has_begun() {
                if let Err(error) = engine.run_due().await {
                    tracing::warn!(%error, "what is due on keys is not done; again later");
                }
                tokio::time::sleep(DUE_EVERY).await;
            }
        });
    }
}

async fn bind(config: &Config) -> Result<Listeners, NodeError> {
    let s3_tls = tls(config.tls_certificate_file.as_ref(), config.tls_key_file.as_ref(), None)?;
    let s3 = listen("listen", config.listen).await?;
    let metrics = match config.metrics_listen {
        Some(address) => Some(listen("metrics_listen", address).await?),
        None => None,
    };
    let files = (
        config.admin_certificate_file.as_ref(),
        config.admin_key_file.as_ref(),
        config.admin_client_ca_file.as_ref(),
    );
    let admin = match (config.admin_listen, tls(files.0, files.1, files.2)?) {
        (Some(address), Some(tls)) => Some((listen("admin_listen", address).await?, tls)),
        _ => None,
    };
    Ok(Listeners { s3, s3_tls, metrics, admin })
}

fn tls(
    certificate: Option<&PathBuf>,
    private_key: Option<&PathBuf>,
    client_ca: Option<&PathBuf>,
) -> Result<Option<Arc<Tls>>, NodeError> {
    let (Some(certificate), Some(private_key)) = (certificate, private_key) else {
        return Ok(None);
    };
    let files = TlsFiles {
        certificate: certificate.clone(),
        private_key: private_key.clone(),
        client_ca: client_ca.cloned(),
    };
    Tls::open(files).map(Some).map_err(|e| NodeError::new("read certificates", e))
}

async fn listen(field: &str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| NodeError::new(&format!("{field}: listen on {address}"), e))
}

/// What [`report`] has to know beside the parts.
struct Reported<'a> {
    data: &'a PathBuf,
    config: &'a Config,
    is_dev: bool,
}

fn report(
    node: &Reported<'_>,
    listeners: &Listeners,
    engine: &Engine,
) -> Result<Started, NodeError> {
    let address = |listener: &TcpListener| {
        listener.local_addr().map_err(|e| NodeError::new("read the address of a listener", e))
    };
    let scheme = if node.config.speaks_tls() { "https" } else { "http" };
    let endpoint = format!("{scheme}://{}", address(&listeners.s3)?);
    let metrics = match &listeners.metrics {
        Some(listener) => Some(format!("http://{}/metrics", address(listener)?)),
        None => node.config.serves_metrics_on_main().then(|| format!("{endpoint}/metrics")),
    };
    let admin_endpoint = match &listeners.admin {
        Some((listener, _)) => Some(format!("https://{}", address(listener)?)),
        None => None,
    };
    let io_backend = match engine.stats().disk.kind {
        DiskKind::Ring => "ring",
        DiskKind::Sim => "sim",
        DiskKind::Threads => "threads",
    };
    Ok(Started {
        endpoint,
        region: node.config.region.clone(),
        data: node.data.clone(),
        admin_socket: admin::socket_path(node.data),
        admin_endpoint,
        metrics,
        io_backend,
        dev: node.is_dev,
        pid: std::process::id(),
    })
}
