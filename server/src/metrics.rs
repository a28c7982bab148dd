//! Prometheus metrics: counted where things happen, and read from the engine when asked for.
//!
//! Owns: names, labels and help texts. Knows nothing of: HTTP.
//!
//! Invariants
//! - No label holds the name of a tenant, bucket or object: labels come from fixed lists, and the
//!   names of key stores from the configuration, so their number is bounded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kluis_kms::StoreStats;
use kluis_storage::{DiskKind, EngineStats, MemberState, MirrorStatus};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::health::Health;
use crate::process;

/// Upper bounds of the request duration buckets, in seconds.
const DURATION_BOUNDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// How often samples of histograms are to be folded into buckets; until then they take memory.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What is counted is counted for the process: the macros that count know no other place.
static STARTED: Mutex<Option<Metrics>> = Mutex::new(None);

/// The metrics of the process.
#[derive(Clone)]
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Makes this process count, if it does not yet.
    pub(crate) fn start() -> Result<Self, metrics_exporter_prometheus::BuildError> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*started {
            return Ok(metrics.clone());
        }
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full("kluis_http_request_duration_seconds".to_owned()),
                &DURATION_BOUNDS,
            )?
            .build_recorder();
        let metrics = Self(recorder.handle());
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::debug!("metrics are counted elsewhere already");
        }
        describe();
        *started = Some(metrics.clone());
        Ok(metrics)
    }

    /// Folds samples; to be called every [`UPKEEP_EVERY`].
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// The text for Prometheus.
    pub(crate) fn render(
        &self,
        stats: &EngineStats,
        key_stores: &[(String, StoreStats)],
        health: Health,
    ) -> String {
        record_node(health);
        for (name, stats) in key_stores {
            record_key_store(name, stats);
        }
        record_engine(stats);
        self.0.render()
    }
}

/// One answered request.
pub(crate) struct Answered {
    /// The operation's name.
    pub(crate) operation: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// Bytes of the request's body, with framing.
    pub(crate) received_bytes: u64,
    /// Bytes of the answer's body.
    pub(crate) sent_bytes: u64,
    /// From the header to the end of the answer.
    pub(crate) duration: Duration,
}

impl Answered {
    /// Counts it.
    pub(crate) fn record(&self) {
        let operation = self.operation;
        let status = self.status.to_string();
        counter!("kluis_http_requests_total", "operation" => operation, "status" => status)
            .increment(1);
        counter!("kluis_http_received_bytes_total").increment(self.received_bytes);
        counter!("kluis_http_sent_bytes_total").increment(self.sent_bytes);
        histogram!("kluis_http_request_duration_seconds", "operation" => operation)
            .record(self.duration);
    }
}

/// Counters, with their units and help texts.
#[rustfmt::skip]
const COUNTERS: &[(&str, Unit, &str)] = &[
    ("kluis_http_requests_total", Unit::Count, "Requests answered."),
    ("kluis_http_received_bytes_total", Unit::Bytes, "Bytes of request bodies."),
    ("kluis_http_sent_bytes_total", Unit::Bytes, "Bytes of answer bodies."),
    ("kluis_io_operations_total", Unit::Count, "Disk operations that succeeded."),
    ("kluis_io_bytes_total", Unit::Bytes, "Bytes that disk operations moved."),
    ("kluis_io_errors_total", Unit::Count, "Disk operations that failed."),
    ("kluis_io_batches_total", Unit::Count, "Batches handed to the kernel by the ring."),
    ("kluis_buffer_waits_total", Unit::Count, "Times a task had to wait for a disk buffer."),
    ("kluis_key_store_calls_total", Unit::Count, "Calls of a key store, by what became of them."),
    ("kluis_key_store_wait_microseconds_total", Unit::Microseconds, "Time waited for calls that were sent."),
    ("kluis_commits_total", Unit::Count, "Metadata commits made durable."),
    ("kluis_commit_batches_total", Unit::Count, "Synced batches that commits shared."),
    ("kluis_mirror_fallback_reads_total", Unit::Count, "Reads that one member of the mirror refused and the other answered."),
    ("kluis_mirror_repairs_total", Unit::Count, "Ranges put right from the other member of the mirror."),
    ("kluis_commit_conflicts_total", Unit::Count, "Commits whose conditions did not hold."),
    ("kluis_reclaim_segments_total", Unit::Count, "Segments emptied, or kept because of damage."),
    ("kluis_reclaim_extents_total", Unit::Count, "Extents moved, or copied in vain."),
    ("kluis_reclaim_bytes_total", Unit::Bytes, "Bytes of extents moved."),
    ("kluis_scrub_bytes_total", Unit::Bytes, "Bytes read by scrubbing."),
    ("kluis_scrub_repaired_total", Unit::Count, "Ranges that scrubbing put right from the other copy."),
];

/// Gauges, with their units and help texts.
#[rustfmt::skip]
const GAUGES: &[(&str, Unit, &str)] = &[
    ("kluis_build_info", Unit::Count, "Always 1; the label is the version."),
    ("kluis_dev_mode", Unit::Count, "1 if the passphrase lies beside the data."),
    ("kluis_metadata_checkpoint_seconds", Unit::Seconds, "When the last checkpoint of the metadata was made, in Unix time."),
    ("kluis_fenced", Unit::Count, "1 if a write or flush failed and only reads are left."),
    ("kluis_full", Unit::Count, "1 if free space is below the reserve."),
    ("kluis_resident_bytes", Unit::Bytes, "Resident memory of the process."),
    ("kluis_key_store_failing", Unit::Count, "1 if calls of a key store are held back because it did not answer."),
    ("kluis_tenants", Unit::Count, "Tenants with a namespace."),
    ("kluis_io_backend", Unit::Count, "1 for the backend in use."),
    ("kluis_io_direct", Unit::Count, "1 if the page cache is bypassed."),
    ("kluis_buffer_bytes", Unit::Bytes, "Disk buffers in use."),
    ("kluis_buffer_bytes_max", Unit::Bytes, "Memory for disk buffers."),
    ("kluis_buffer_waiting", Unit::Count, "Tasks waiting for a disk buffer."),
    ("kluis_segments", Unit::Count, "Segment files by state."),
    ("kluis_degraded", Unit::Count, "1 if a member of the mirror is out or being rebuilt."),
    ("kluis_mirror_members", Unit::Count, "Members of the mirror by state."),
    ("kluis_mirror_rebuild_bytes", Unit::Bytes, "Bytes that the rebuild of a member has to copy."),
    ("kluis_mirror_rebuild_bytes_done", Unit::Bytes, "Bytes that it has copied."),
    ("kluis_volume_allocated_bytes", Unit::Bytes, "Bytes of all segment files."),
    ("kluis_volume_written_bytes", Unit::Bytes, "Bytes that records take."),
    ("kluis_volume_live_bytes", Unit::Bytes, "Bytes of records that rows name."),
    ("kluis_reclaim_running", Unit::Count, "1 while a segment is emptied."),
    ("kluis_damaged_extents", Unit::Count, "Extents that cannot be read, as far as it is known."),
    ("kluis_scrub_segments", Unit::Count, "Segments of the pass of scrubbing."),
    ("kluis_scrub_segments_done", Unit::Count, "Segments that it has read."),
    ("kluis_scrub_last_pass_seconds", Unit::Seconds, "When the last whole pass ended, in Unix time; 0 for never."),
    ("kluis_scrub_metadata_faults", Unit::Count, "Damaged families of the metadata and files of its checkpoints, of the last pass."),
];

fn describe() {
    for (name, unit, help) in COUNTERS {
        describe_counter!(*name, *unit, *help);
    }
    for (name, unit, help) in GAUGES {
        describe_gauge!(*name, *unit, *help);
    }
    describe_histogram!(
        "kluis_http_request_duration_seconds",
        Unit::Seconds,
        "From the header of a request to the end of its answer."
    );
}

fn record_node(health: Health) {
    gauge!("kluis_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("kluis_dev_mode").set(flag(health.dev));
    gauge!("kluis_fenced").set(flag(health.fenced));
    gauge!("kluis_full").set(flag(health.full));
    if let Some(bytes) = process::resident_bytes() {
        gauge!("kluis_resident_bytes").set(number(bytes));
    }
}

fn record_key_store(name: &str, stats: &StoreStats) {
    let counts = [
        ("answered", stats.answered),
        ("failed", stats.failed),
        ("held_back", stats.held_back),
        ("refused", stats.refused),
    ];
    for (outcome, count) in counts {
        let labels = [("key_store", name.to_owned()), ("outcome", outcome.to_owned())];
        counter!("kluis_key_store_calls_total", &labels).absolute(count);
    }
    let labels = [("key_store", name.to_owned())];
    counter!("kluis_key_store_wait_microseconds_total", &labels).absolute(stats.waited_ns / 1_000);
    gauge!("kluis_key_store_failing", &labels).set(flag(stats.is_open));
}

fn record_engine(stats: &EngineStats) {
    let kind = match stats.disk.kind {
        DiskKind::Ring => "ring",
        DiskKind::Sim => "sim",
        DiskKind::Threads => "threads",
    };
    gauge!("kluis_tenants").set(number(stats.tenants));
    gauge!("kluis_io_backend", "kind" => kind).set(1.0);
    gauge!("kluis_io_direct").set(flag(stats.disk.direct));
    let disk = &stats.disk_stats;
    for (op, count) in [("read", disk.reads), ("sync", disk.syncs), ("write", disk.writes)] {
        counter!("kluis_io_operations_total", "op" => op).absolute(count);
    }
    for (op, bytes) in [("read", disk.read_bytes), ("write", disk.written_bytes)] {
        counter!("kluis_io_bytes_total", "op" => op).absolute(bytes);
    }
    counter!("kluis_io_errors_total").absolute(disk.errors);
    counter!("kluis_io_batches_total").absolute(disk.batches);
    gauge!("kluis_buffer_bytes").set(number(stats.pool.bytes_used));
    gauge!("kluis_buffer_bytes_max").set(number(stats.pool.bytes_max));
    gauge!("kluis_buffer_waiting").set(number(stats.pool.waiting));
    counter!("kluis_buffer_waits_total").absolute(stats.pool.waits);
    let usage = &stats.usage;
    for (state, count) in [
        ("closed", usage.segments_closed),
        ("closing", usage.segments_closing),
        ("free", usage.segments_free),
        ("open", usage.segments_open),
    ] {
        gauge!("kluis_segments", "state" => state).set(number(count));
    }
    gauge!("kluis_volume_allocated_bytes").set(number(usage.allocated_bytes));
    gauge!("kluis_volume_written_bytes").set(number(usage.written_bytes));
    let reclaim = &stats.reclaim;
    gauge!("kluis_volume_live_bytes").set(number(reclaim.live_bytes));
    gauge!("kluis_reclaim_running").set(flag(reclaim.cleaning.is_some()));
    for (outcome, count) in [("freed", reclaim.segments_freed), ("kept", reclaim.segments_kept)] {
        counter!("kluis_reclaim_segments_total", "outcome" => outcome).absolute(count);
    }
    for (outcome, count) in [("lost", reclaim.races_lost), ("moved", reclaim.extents_moved)] {
        counter!("kluis_reclaim_extents_total", "outcome" => outcome).absolute(count);
    }
    counter!("kluis_reclaim_bytes_total").absolute(reclaim.bytes_moved);
    let scrub = &stats.scrub;
    counter!("kluis_scrub_bytes_total").absolute(scrub.read_bytes);
    counter!("kluis_scrub_repaired_total").absolute(scrub.repaired_ever);
    gauge!("kluis_damaged_extents").set(number(scrub.damaged + scrub.unlisted));
    gauge!("kluis_scrub_segments").set(number(scrub.segments));
    gauge!("kluis_scrub_segments_done").set(number(scrub.segments_done));
    gauge!("kluis_scrub_last_pass_seconds").set(number(scrub.ended_ms / 1_000));
    let faults = scrub.metadata_faults + scrub.checkpoint_faults;
    gauge!("kluis_scrub_metadata_faults").set(number(faults));
    if let Some(mirror) = &stats.mirror {
        record_mirror(mirror);
    }
    counter!("kluis_commits_total").absolute(stats.commits);
    counter!("kluis_commit_batches_total").absolute(stats.commit_batches);
    counter!("kluis_commit_conflicts_total").absolute(stats.commit_conflicts);
}

fn record_mirror(mirror: &MirrorStatus) {
    gauge!("kluis_degraded").set(flag(mirror.is_degraded()));
    for state in [MemberState::Current, MemberState::Out, MemberState::Rebuilding] {
        let count = mirror.members.iter().filter(|member| member.state == state).count() as u64;
        gauge!("kluis_mirror_members", "state" => state.as_str()).set(number(count));
    }
    counter!("kluis_mirror_fallback_reads_total").absolute(mirror.fallback_reads);
    counter!("kluis_mirror_repairs_total").absolute(mirror.repairs);
    if let Some(rebuild) = &mirror.rebuild {
        gauge!("kluis_mirror_rebuild_bytes").set(number(rebuild.bytes));
        gauge!("kluis_mirror_rebuild_bytes_done").set(number(rebuild.bytes_done));
    }
}

fn flag(is_set: bool) -> f64 {
    if is_set { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers; 2^53 is enough")]
fn number(count: u64) -> f64 {
    count as f64
}
