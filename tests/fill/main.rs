//! `fill`: millions of small objects straight through the engine, for suites that need many.
//!
//! `fill DATA TENANT BUCKET OBJECTS WRITERS` opens the data directory of a stopped `--dev` node,
//! stores objects `o/0000000000` on in an existing bucket of the tenant, and ends *without* closing
//! anything, as a process that was killed: whoever opens the directory next recovers. A body is
//! the object's number, in decimal.
//!
//! Owns: the spread over writers, the progress. Knows nothing of: HTTP, rows, bytes on disk.
//!
//! Invariants
//! - An object that is counted in the last line was acknowledged.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kluis_kms::{Env, Kms, PassphraseStore, Purpose, Reason, Rights, TenantId};
use kluis_storage::{
    BucketInfo, BucketName, BytesBody, Conditions, Engine, EngineConfig, ObjectHeaders, ObjectKey,
    PutRequest, SseChoice, Tags,
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Where a `--dev` node keeps its passphrase.
const PASSPHRASE: &str = "keys/dev-passphrase";
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

struct Plan {
    data: PathBuf,
    tenant: TenantId,
    bucket: BucketName,
    objects: u64,
    writers: u64,
}

fn main() -> ExitCode {
    let told = plan().and_then(|plan| tokio::runtime::Runtime::new()?.block_on(fill(plan)));
    if let Err(error) = told {
        let _ = writeln!(std::io::stderr(), "fill: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn plan() -> Outcome<Plan> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, tenant, bucket, objects, writers] = arguments.as_slice() else {
        return Err("usage: fill DATA TENANT BUCKET OBJECTS WRITERS".into());
    };
    let tenant = kluis_kms::parse_id(tenant)?;
    Ok(Plan {
        data: data.into(),
        tenant: TenantId::from_bytes(tenant),
        bucket: BucketName::new(bucket)?,
        objects: objects.parse()?,
        writers: writers.parse::<u64>()?.max(1),
    })
}

async fn open(data: &Path) -> Outcome<Engine> {
    let env = Env::system();
    let store = PassphraseStore::from_file(&data.join(PASSPHRASE), Arc::clone(&env.rng))?;
    let kms = Arc::new(Kms::open(data, &store, env.clone())?);
    Ok(Engine::open(data, EngineConfig::default(), kms, env).await?)
}

async fn fill(plan: Plan) -> Outcome<()> {
    let engine = open(&plan.data).await?;
    let purpose = Arc::new(Purpose {
        tenant: plan.tenant,
        principal: "root".into(),
        reason: Reason::CustomerInitiated,
        request_id: "fill".into(),
        action: "s3:PutObject",
        rights: Rights::of_tenant(),
    });
    let bucket = Arc::new(engine.head_bucket(&purpose, &plan.bucket).await?);
    let stored = Arc::new(AtomicU64::new(0));
    let begun = tokio::time::Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..plan.writers {
        let (engine, purpose, bucket) = (engine.clone(), purpose.clone(), Arc::clone(&bucket));
        let (stored, objects, step) = (Arc::clone(&stored), plan.objects, plan.writers);
        tasks.spawn(async move {
            for number in (first..objects).step_by(usize::try_from(step)?) {
                put(&engine, &purpose, &bucket, number).await?;
                stored.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Ok(())
        });
    }
    let mut tell = tokio::time::interval(TELL_EVERY);
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(done) => done??,
                None => break,
            },
            _ = tell.tick() => say("stored", &stored, begun),
        }
    }
    say("all stored", &stored, begun);
    // As if killed: nothing is closed, and no destructor tidies up.
    std::process::exit(0);
}

async fn put(engine: &Engine, purpose: &Purpose, bucket: &BucketInfo, number: u64) -> Outcome<()> {
    let object_key = ObjectKey::new(&format!("o/{number:010}"))?;
    let request = PutRequest {
        bucket,
        object_key: &object_key,
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        sse: SseChoice::default(),
        conditions: Conditions::default(),
        body: Box::new(BytesBody::new(number.to_string(), &[])),
    };
    engine.put(purpose, request).await?;
    Ok(())
}

fn say(what: &str, stored: &AtomicU64, begun: tokio::time::Instant) {
    let (stored, seconds) = (stored.load(Ordering::Relaxed), begun.elapsed().as_secs());
    let rate = stored / seconds.max(1);
    let _ = writeln!(std::io::stdout(), "{what} {stored} in {seconds} s ({rate}/s)");
}
