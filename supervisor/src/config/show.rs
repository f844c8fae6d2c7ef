//! The config that holds, written out as a file that could be used.

use std::collections::BTreeMap;
use std::time::Duration;

use wpool_protocol::quantity::{ByteSize, Millis};
use wpool_protocol::wire::IsolationPolicy;

use super::amount::Amount;
use super::raw::{
    HttpSection, Isolation, LimitsSection, LogSection, PoolSection, ProfileSection, RawConfig,
    RetentionSection, Span, TenantSection,
};
use super::{Config, DEFAULT_TENANT, Profile};

impl Config {
    /// Every key with the value that holds, as TOML.
    pub fn to_toml(&self) -> String {
        // Nothing in it that TOML could not carry: text, whole numbers, tables.
        toml_edit::ser::to_string_pretty(&self.to_raw()).unwrap_or_default()
    }

    /// Every key with the value that holds.
    pub fn to_raw(&self) -> RawConfig {
        let profiles = self.profiles.iter();
        RawConfig {
            pool: self.pool_section(),
            limits: LimitsSection::of(&self.limits),
            ceilings: LimitsSection::of(&self.ceilings),
            retention: RetentionSection {
                outcomes_count: Some(self.retention.count),
                outcomes_age_ms: Some(span(self.retention.age)),
                outcomes_bytes: Some(Amount(ByteSize(self.retention.bytes))),
            },
            http: self.http_section(),
            log: LogSection {
                level: Some(self.log.level),
                format: Some(self.log.format),
            },
            profile: profiles
                .map(|(name, profile)| (name.clone(), profile.section()))
                .collect(),
            tenant: self.tenant_sections(),
        }
    }

    fn tenant_sections(&self) -> BTreeMap<String, TenantSection> {
        let named = self.tenants.named.iter();
        let default = (&Box::from(DEFAULT_TENANT), &self.tenants.default);
        named
            .chain([default])
            .map(|(name, rule)| {
                let of_tenant = self.tenant_by_uid.iter();
                let uids = of_tenant.filter(|(_, tenant)| ***tenant == **name);
                let uids: Vec<_> = uids.map(|(uid, _)| *uid).collect();
                let section = TenantSection {
                    weight: Some(rule.weight),
                    running_max: rule.running_max,
                    queue_jobs: rule.queue_jobs,
                    uids: (!uids.is_empty()).then_some(uids),
                };
                (name.to_string(), section)
            })
            .collect()
    }

    fn pool_section(&self) -> PoolSection {
        let settings = &self.pool;
        PoolSection {
            workers: Some(settings.slots),
            queue_jobs: Some(settings.queue_jobs),
            queue_bytes: Some(Amount(ByteSize(settings.queue_bytes))),
            share_period: Some(settings.share_period),
            attempts_max: Some(self.attempts_max),
            backoff_min_ms: Some(span(settings.backoff_min)),
            backoff_max_ms: Some(span(settings.backoff_max)),
            ping_interval_ms: Some(span(settings.ping_interval)),
            silence_max_ms: Some(span(settings.silence_max)),
            ready_within_ms: Some(span(settings.ready_within)),
            overrun_slack_ms: Some(span(settings.overrun_slack)),
            restart_burst: Some(settings.restart_burst),
            restart_period_ms: Some(span(settings.restart_period)),
            park_min_ms: Some(span(settings.park_min)),
            park_max_ms: Some(span(settings.park_max)),
            recycle_jobs: Some(settings.recycle_jobs.unwrap_or(0)),
            recycle_age_ms: Some(span(settings.recycle_age.unwrap_or_default())),
            shutdown_grace_ms: Some(span(self.grace)),
            isolation: Some(match self.isolation {
                IsolationPolicy::Required => Isolation::Required,
                IsolationPolicy::Reduced => Isolation::Reduced,
            }),
            identity: Some(self.identity),
        }
    }

    fn http_section(&self) -> HttpSection {
        let http = &self.http;
        let count = |count: usize| Some(u32::try_from(count).unwrap_or(u32::MAX));
        let bytes = |bytes: u64| Some(Amount(ByteSize(bytes)));
        HttpSection {
            connections_max: count(http.connections_max),
            connections_per_peer_max: count(http.connections_per_peer_max),
            header_bytes_max: bytes(u64::try_from(http.header_bytes_max).unwrap_or(u64::MAX)),
            header_timeout_ms: Some(span(http.header_timeout)),
            body_bytes_max: bytes(http.body_bytes_max),
            body_timeout_ms: Some(span(http.body_timeout)),
            bodies_bytes_max: bytes(http.bodies_bytes_max),
            waiters_max: count(http.waiters_max),
            wait_max_ms: Some(span(http.wait_max)),
            batch_waiting_max: count(http.batch_waiting_max),
            group: http.group.clone(),
        }
    }
}

impl Profile {
    fn section(&self) -> ProfileSection {
        let mounts = self.mounts.iter();
        let roots = self.file_roots.iter();
        ProfileSection {
            mounts: Some(
                mounts
                    .map(|(source, destination)| format!("{}:{destination}", source.display()))
                    .collect(),
            ),
            env: Some(self.env.clone()),
            limits: Some(self.own_limits.clone()),
            ceilings: Some(self.own_ceilings.clone()),
            file_roots: Some(roots.map(|root| root.display().to_string()).collect()),
            users: self.users.clone(),
        }
    }
}

fn span(duration: Duration) -> Span {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Amount(Millis(millis))
}
