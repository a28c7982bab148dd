//! What each route of the operator's API does.
//!
//! Owns: the way from a request to the directory and back. Knows nothing of: HTTP.

use std::sync::Arc;

use http::StatusCode;
use kluis_kms::TenantId;
use kluis_storage::EngineStats;
use zeroize::Zeroize as _;

use super::audit::{self, Asker};
use super::types::{
    AccessKey, AccessKeys, AdvanceClock, AuditEvents, CreateAccessKey, CreateTenants, CreateUser,
    CreatedAccessKey, CreatedTenant, CreatedTenants, Done, PAGE_ENTRIES_MAX, Space,
    TENANTS_PER_REQUEST_MAX, Tenant, Tenants, User, Users,
};
use super::{Admin, Refused, Reply, ok, with_status};
use crate::audit_event;
use crate::auth::canonical;
use crate::auth::creds::{NewTenant, TenantInfo, UserInfo};

/// The user that a tenant begins with.
const ROOT_USER: &str = "root";

impl Admin {
    /// Moves the keys' clock on, and does what that makes due before it answers.
    pub(super) async fn advance_clock(&self, who: Asker, asked: AdvanceClock) -> Reply {
        let Some(clock) = &self.dev_clock else {
            let message = "the clock moves on a node with --dev only";
            return Err(Refused::new(StatusCode::FORBIDDEN, "refused", message));
        };
        clock.advance_ms(asked.advance_ms);
        tracing::warn!(?who, ms = asked.advance_ms, "the keys' clock was moved on (--dev)");
        self.engine.run_due().await?;
        ok(&Done {})
    }

    pub(super) fn status(&self) -> Reply {
        ok(&self.observer.health())
    }

    /// What segments hold, and what reclaiming did.
    pub(super) fn space(&self) -> Reply {
        ok(&space(&self.engine.stats()))
    }

    /// Cleans every segment that is worth it, and answers when that is done.
    pub(super) async fn reclaim(&self) -> Reply {
        self.engine.reclaim_now().await?;
        self.space()
    }

    pub(super) fn list_tenants(&self, query: &str) -> Reply {
        let page = Page::read(query)?;
        let found = self.directory.list_tenants(page.after.as_deref(), page.limit)?;
        let next = page.next(found.len(), found.last().map(|tenant| tenant.name.as_str()));
        ok(&Tenants { tenants: found.into_iter().map(tenant).collect(), next })
    }

    pub(super) fn show_tenant(&self, name: &str) -> Reply {
        ok(&tenant(self.directory.show(name)?))
    }

    pub(super) async fn create_tenants(&self, who: Asker, asked: CreateTenants) -> Reply {
        let names = asked.names;
        if names.is_empty() || names.len() > TENANTS_PER_REQUEST_MAX {
            let message = format!("give 1 to {TENANTS_PER_REQUEST_MAX} names");
            return Err(Refused::new(StatusCode::BAD_REQUEST, "invalid", message));
        }
        self.directory.check_tenant_names(&names)?;
        let tenants: Vec<_> =
            names.into_iter().map(|name| (self.directory.reserve_tenant_id(), name)).collect();
        let ids: Vec<TenantId> = tenants.iter().map(|(id, _)| *id).collect();
        self.engine.create_namespaces(&ids).await?;
        let made = self.directory.create_tenants(&tenants).await?;
        for tenant in &made {
            let (id, access_key_id) = (tenant.tenant_id, &tenant.access_key_id);
            audit::record_given(who, "tenant created", id, access_key_id);
        }
        let mut answer = CreatedTenants { tenants: made.into_iter().map(created).collect() };
        let reply = with_status(StatusCode::CREATED, &answer);
        for tenant in &mut answer.tenants {
            tenant.secret_access_key.zeroize();
        }
        reply
    }

    pub(super) async fn set_suspended(&self, who: Asker, name: &str, is_suspended: bool) -> Reply {
        if is_suspended {
            self.directory.suspend(name).await?;
        } else {
            self.directory.resume(name).await?;
        }
        let info = self.directory.show(name)?;
        let change = if is_suspended { "tenant suspended" } else { "tenant resumed" };
        audit::record_change(who, change, info.tenant_id);
        ok(&tenant(info))
    }

    pub(super) fn list_users(&self, tenant: &str, query: &str) -> Reply {
        let page = Page::read(query)?;
        let found = self.directory.list_users(tenant, page.after.as_deref(), page.limit)?;
        let next = page.next(found.len(), found.last().map(|user| user.name.as_str()));
        ok(&Users { users: found.into_iter().map(user).collect(), next })
    }

    pub(super) async fn create_user(&self, who: Asker, tenant: &str, asked: CreateUser) -> Reply {
        let tenant_id = self.directory.show(tenant)?.tenant_id;
        let made = self.directory.create_user(tenant, &asked.name).await?;
        audit::record_change(who, "user created", tenant_id);
        with_status(StatusCode::CREATED, &user(made))
    }

    pub(super) fn list_access_keys(&self, tenant: &str, query: &str) -> Reply {
        let name = field(query, "user")?.unwrap_or_else(|| ROOT_USER.to_owned());
        let found = self.directory.list_access_keys(tenant, &name)?;
        let access_keys = found
            .into_iter()
            .map(|it| AccessKey {
                access_key_id: it.access_key_id,
                created_ms: it.created_ms,
                active: it.is_active,
            })
            .collect();
        ok(&AccessKeys { access_keys })
    }

    /// What a tenant's keys were used for, as far as an operator may see it.
    pub(super) async fn list_audit_events(&self, tenant: &str, query: &str) -> Reply {
        let page = Page::read(query)?;
        let after = page.after.as_deref().unwrap_or("0").parse::<u64>();
        let after = after.map_err(|_| invalid("after: give the number of an event".to_owned()))?;
        let tenant = self.directory.show(tenant)?.tenant_id;
        let log = Arc::clone(self.engine.kms().audit_log());
        let read = move || log.headers(tenant, after, page.limit);
        let unavailable = |error: &dyn std::fmt::Display| {
            let message = format!("read the audit log: {error}");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        };
        let found = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|error| unavailable(&error))?;
        let next = found.last().filter(|_| found.len() >= page.limit).map(|it| it.sequence);
        ok(&AuditEvents { events: found.iter().map(audit_event::header).collect(), next })
    }

    pub(super) async fn create_access_key(
        &self,
        who: Asker,
        tenant: &str,
        asked: CreateAccessKey,
    ) -> Reply {
        let tenant_id = self.directory.show(tenant)?.tenant_id;
        let made = self.directory.create_access_key(tenant, &asked.user).await?;
        audit::record_given(who, "access key created", tenant_id, &made.access_key_id);
        let mut answer = CreatedAccessKey {
            user: asked.user,
            access_key_id: made.access_key_id,
            secret_access_key: made.secret_access_key.expose().to_owned(),
        };
        let reply = with_status(StatusCode::CREATED, &answer);
        answer.secret_access_key.zeroize();
        reply
    }

    pub(super) async fn revoke_access_key(
        &self,
        who: Asker,
        tenant: &str,
        access_key_id: &str,
    ) -> Reply {
        let tenant_id = self.directory.show(tenant)?.tenant_id;
        let credential = self.directory.lookup(access_key_id)?;
        if credential.is_none_or(|it| it.user().tenant != tenant_id) {
            let message = format!("{tenant} has no access key {access_key_id} in force");
            return Err(Refused::not_found(message));
        }
        self.directory.revoke_access_key(access_key_id).await?;
        audit::record_revoked(who, tenant_id, access_key_id);
        ok(&Done {})
    }
}

fn space(stats: &EngineStats) -> Space {
    let (usage, reclaim) = (&stats.usage, &stats.reclaim);
    Space {
        full: stats.full,
        segment_bytes: usage.segment_bytes,
        segments_open: usage.segments_open,
        segments_closing: usage.segments_closing,
        segments_closed: usage.segments_closed,
        segments_free: usage.segments_free,
        allocated_bytes: usage.allocated_bytes,
        written_bytes: usage.written_bytes,
        live_bytes: reclaim.live_bytes,
        reclaimed_segments: reclaim.segments_freed,
        kept_segments: reclaim.segments_kept,
        moved_extents: reclaim.extents_moved,
        moved_bytes: reclaim.bytes_moved,
        cleaning_segment: reclaim.cleaning,
    }
}

fn created(made: NewTenant) -> CreatedTenant {
    CreatedTenant {
        tenant_id: made.tenant_id.to_string(),
        account_id: made.account_id.to_string(),
        name: made.name,
        access_key_id: made.access_key_id,
        secret_access_key: made.secret_access_key.expose().to_owned(),
    }
}

fn tenant(info: TenantInfo) -> Tenant {
    Tenant {
        tenant_id: info.tenant_id.to_string(),
        account_id: info.account_id.to_string(),
        name: info.name,
        created_ms: info.created_ms,
        suspended: info.is_suspended,
    }
}

fn user(info: UserInfo) -> User {
    User {
        user_id: info.user.to_string(),
        name: info.name,
        root: info.is_root,
        created_ms: info.created_ms,
    }
}

/// Which part of a list is asked for.
pub(super) struct Page {
    pub(super) after: Option<String>,
    pub(super) limit: usize,
}

impl Page {
    pub(super) fn read(query: &str) -> Result<Self, Refused> {
        let limit = match field(query, "limit")? {
            None => PAGE_ENTRIES_MAX,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit))
                .ok_or_else(|| invalid(format!("limit: give 1 to {PAGE_ENTRIES_MAX}")))?,
        };
        Ok(Self { after: field(query, "after")?, limit })
    }

    /// Where to go on, if the page is full.
    fn next(&self, count: usize, last: Option<&str>) -> Option<String> {
        last.filter(|_| count >= self.limit).map(str::to_owned)
    }
}

fn field(query: &str, name: &str) -> Result<Option<String>, Refused> {
    let text = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let Some(text) = text else { return Ok(None) };
    decode(text).map(Some).ok_or_else(|| invalid(format!("{name}: not UTF-8")))
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> Option<String> {
    String::from_utf8(canonical::decode(text.as_bytes())).ok()
}

pub(super) fn invalid(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "invalid", message)
}
