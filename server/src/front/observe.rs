//! Health and metrics over HTTP.
//!
//! Owns: their paths, and where the numbers come from. Knows nothing of: S3.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kluis_kms::RemoteStores;
use kluis_storage::{EngineStats, MirrorStatus};

use crate::health::Health;
use crate::http::{Answer, Drain, Handler, Peer, ResponseBody};
use crate::limits::RequestBody;
use crate::metrics::Metrics;

/// Reads how the engine stands.
pub(crate) type ReadStats = Box<dyn Fn() -> EngineStats + Send + Sync>;

/// Answers the paths of health and metrics.
pub(crate) struct Observer {
    /// Reads how the engine stands.
    pub(crate) stats: ReadStats,
    /// Tenants' own key stores. None is asked anything for this.
    pub(crate) key_stores: Arc<RemoteStores>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Whether the passphrase lies beside the data.
    pub(crate) is_dev: bool,
    /// Whether the node is on its way down.
    pub(crate) drain: Drain,
}

impl Observer {
    /// The health of the node.
    pub(crate) fn health(&self) -> Health {
        self.health_of(&(self.stats)())
    }

    /// Answers a request for one of the paths; `None` for any other request.
    ///
    /// The paths could be those of objects in buckets `health` and `metrics`: whoever signs a
    /// request means those.
    pub(crate) fn answer(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        if !matches!(parts.method, Method::GET | Method::HEAD)
            || parts.headers.contains_key(http::header::AUTHORIZATION)
            || parts.uri.query().is_some()
        {
            return None;
        }
        let json = HeaderValue::from_static("application/json");
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        match parts.uri.path() {
            "/health/live" => Some(reply(StatusCode::OK, json, "{\"status\":\"live\"}".to_owned())),
            "/health/ready" => {
                let health = self.health();
                Some(reply(health.status_code(), json, health.to_json()))
            }
            "/metrics" => {
                let stats = (self.stats)();
                let rendered =
                    self.metrics.render(&stats, &self.key_stores.stats(), self.health_of(&stats));
                Some(reply(StatusCode::OK, text, rendered))
            }
            _ => None,
        }
    }

    fn health_of(&self, stats: &EngineStats) -> Health {
        let failing = self.key_stores.stats().iter().filter(|(_, store)| store.is_open).count();
        let is_degraded = stats.mirror.as_ref().is_some_and(MirrorStatus::is_degraded);
        let health = Health::new(stats.fenced, stats.full, self.is_dev);
        let health = health.with_failing_key_stores(failing).with_degraded(is_degraded);
        let health = health.with_damaged(stats.scrub.damaged + stats.scrub.unlisted);
        if self.drain.has_begun() { health.draining() } else { health }
    }
}

/// The listener of `metrics_listen`.
impl Handler for Observer {
    fn handle(self: Arc<Self>, request: Request<RequestBody>, _: Peer) -> Answer {
        Box::pin(async move {
            let (parts, _) = request.into_parts();
            self.answer(&parts).unwrap_or_else(|| {
                let text = HeaderValue::from_static("text/plain");
                let paths = "/health/live\n/health/ready\n/metrics\n";
                reply(StatusCode::NOT_FOUND, text, paths.to_owned())
            })
        })
    }
}

fn reply(status: StatusCode, content_type: HeaderValue, text: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
