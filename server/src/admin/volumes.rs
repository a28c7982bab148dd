//! The routes about the directories of the volume.
//!
//! Owns: how the mirror's state is told. Knows nothing of: what a member holds.

use std::path::Path;

use http::StatusCode;
use kluis_storage::{ErrorKind, MirrorStatus};

use super::audit::Asker;
use super::types::{Rebuild, ReplaceMember, VolumeMember, Volumes};
use super::{Admin, Refused, Reply, ok};

impl Admin {
    pub(super) fn list_volumes(&self) -> Reply {
        ok(&self.engine.mirror().map_or_else(none, volumes))
    }

    pub(super) async fn replace_member(&self, who: Asker, asked: ReplaceMember) -> Reply {
        self.engine.replace_member(Path::new(&asked.path)).await.map_err(|error| {
            let (status, kind) = match error.kind() {
                ErrorKind::Misuse => (StatusCode::CONFLICT, "invalid"),
                ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            };
            Refused::new(status, kind, error.to_string())
        })?;
        tracing::warn!(?who, path = asked.path, "a member of the mirror is being rebuilt");
        self.list_volumes()
    }
}

/// The volume has one directory.
fn none() -> Volumes {
    Volumes {
        members: Vec::new(),
        degraded: false,
        generation: 0,
        fallback_reads: 0,
        repairs: 0,
        rebuild: None,
    }
}

fn volumes(mirror: MirrorStatus) -> Volumes {
    let degraded = mirror.is_degraded();
    let members = mirror.members.into_iter().map(|member| VolumeMember {
        path: member.path,
        state: member.state.as_str().to_owned(),
        why: member.why,
    });
    Volumes {
        members: members.collect(),
        degraded,
        generation: mirror.generation,
        fallback_reads: mirror.fallback_reads,
        repairs: mirror.repairs,
        rebuild: mirror.rebuild.map(|rebuild| Rebuild {
            path: rebuild.path,
            state: rebuild.state.as_str().to_owned(),
            files: rebuild.files,
            files_done: rebuild.files_done,
            bytes: rebuild.bytes,
            bytes_done: rebuild.bytes_done,
            why: rebuild.why,
        }),
    }
}
