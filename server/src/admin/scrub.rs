//! The routes about scrubbing and what it found.
//!
//! Owns: how both are told. Knows nothing of: what is read.

use kluis_storage::{DamagePlace, ScrubStats};

use super::audit::Asker;
use super::routes::{Page, invalid};
use super::types::{Damage, DamagedExtent, Scrub, ScrubAsked};
use super::{Admin, Reply, ok};

impl Admin {
    pub(super) fn scrub_state(&self) -> Reply {
        ok(&state(&self.engine.stats().scrub))
    }

    /// Begins a pass at full speed, and does not wait for its end.
    pub(super) fn scrub_now(&self, who: Asker) -> Reply {
        let number = self.engine.scrub_now()?;
        tracing::info!(?who, number, "a pass of scrubbing was asked for");
        ok(&ScrubAsked { number })
    }

    pub(super) async fn list_damage(&self, query: &str) -> Reply {
        let page = Page::read(query)?;
        let after = page.after.as_deref().map(|text| {
            DamagePlace::parse(text)
                .ok_or_else(|| invalid("after: give what `next` said".to_owned()))
        });
        let (found, next) = self.engine.damage(after.transpose()?, page.limit).await?;
        let damage = found.into_iter().map(|it| DamagedExtent {
            kind: it.kind.as_str().to_owned(),
            tenant_id: it.tenant.to_string(),
            namespace: it.id.ns.to_string(),
            stream: it.id.stream.to_string(),
            extent: it.id.number,
            segment: it.place.segment,
            offset: it.place.offset,
            found_ms: it.found_ms,
        });
        ok(&Damage { damage: damage.collect(), next: next.map(|place| place.to_string()) })
    }
}

fn state(stats: &ScrubStats) -> Scrub {
    Scrub {
        pass: stats.pass,
        phase: stats.phase.to_owned(),
        segments_done: stats.segments_done,
        segments: stats.segments,
        bytes: stats.bytes,
        started_ms: stats.started_ms,
        ended_ms: stats.ended_ms,
        repaired: stats.repaired,
        unrepaired: stats.unrepaired,
        dead_damaged: stats.dead_damaged,
        metadata_faults: stats.metadata_faults,
        checkpoint_faults: stats.checkpoint_faults,
        damaged: stats.damaged,
        unlisted: stats.unlisted,
        answered: stats.answered,
    }
}
