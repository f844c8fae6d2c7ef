//! The config as it is written: every key, optional, with what it is for.
//!
//! The comments of the keys are the reference that people read: they are kept as data ([`Key`]) and docs/CONFIG.md
//! is made of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wpool_protocol::limits::Limits;
use wpool_protocol::quantity::{ByteSize, Millis};

use super::amount::Amount;

/// A size.
pub type Size = Amount<ByteSize>;

/// A duration.
pub type Span = Amount<Millis>;

/// A key, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
}

macro_rules! section {
    (
        $(#[$about:meta])*
        $name:ident {
            $( $(#[doc = $doc:literal])* $key:ident: $value:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: Option<$value>,
            )*
        }

        impl $name {
            /// The keys.
            pub const KEYS: &[Key] = &[
                $( Key { name: stringify!($key), about: concat!($($doc),*) }, )*
            ];

            /// What `over` says, and where that is silent what this says.
            pub(super) fn overlaid(self, over: Self) -> Self {
                Self { $( $key: over.$key.or(self.$key), )* }
            }
        }
    };
}

section! {
    /// `[pool]`: slots, queue, and what happens when workers die.
    PoolSection {
        /// Workers. Default: one for each core that wpool may use (affinity and cgroup quota).
        workers: u16,
        /// Jobs that have not ended, at most. Default 100000.
        queue_jobs: u64,
        /// Bytes of all jobs that have not ended (command, env, stdin, files), at most. Default 1 GiB.
        queue_bytes: Size,
        /// Of how many starts at least one goes to each lower class that waits; 3 or more. Default 10.
        share_period: u32,
        /// Lost workers that a job may cost before it is quarantined, where it does not say so itself; 1 to 100. Default 3.
        attempts_max: u32,
        /// The wait before the second attempt of a job, doubled for each further one. Default 50 ms.
        backoff_min_ms: Span,
        /// The longest such wait. Default 10 s.
        backoff_max_ms: Span,
        /// How often a busy worker is asked whether it is there. Default 1 s.
        ping_interval_ms: Span,
        /// How long a worker may take to answer, or to start a job. Default 5 s.
        silence_max_ms: Span,
        /// How long a worker may take from birth to ready. Default 10 s.
        ready_within_ms: Span,
        /// How long a worker has to report, past its job's wall time and grace. Default 5 s.
        overrun_slack_ms: Span,
        /// Deaths before ready, within `restart_period_ms`, that park a slot. Default 5.
        restart_burst: u32,
        /// See `restart_burst`. Default 30 s.
        restart_period_ms: Span,
        /// How long a parked slot waits before its next try, doubled for each further one. Default 1 s.
        park_min_ms: Span,
        /// The longest such wait. Default 1 min.
        park_max_ms: Span,
        /// Jobs after which a worker is replaced: another stands in for it first. 0 is never. Default 0.
        recycle_jobs: u64,
        /// The age at which a worker is replaced, likewise. 0 is never. Default 0.
        recycle_age_ms: Span,
        /// How long running jobs may go on after SIGTERM; keep it below the unit's `TimeoutStopSec`. Default 20 s.
        shutdown_grace_ms: Span,
        /// What to do about a missing layer of the sandbox: "required" refuses to work; "reduced" works without it, and every outcome says so. Default "required". Changed by a restart only.
        isolation: Isolation,
        /// Whose ids jobs have on the host: "own" refuses to work unless nobody else has them, "best" takes the user's own where there are no others (see `wpool doctor`). Default "best". Changed by a restart only.
        identity: IdentityChoice,
    }
}

section! {
    /// `[limits]` and `[ceilings]`, and the same in a profile: what jobs get, and the most they may ask for.
    LimitsSection {
        /// Wall-clock time. Default 30 s, ceiling 24 h.
        timeout_ms: Span,
        /// Time between SIGTERM and SIGKILL when the wall time is over. Default 0, ceiling 1 min.
        grace_ms: Span,
        /// CPU time of all processes together. Default: wall time times cores.
        cpu_ms: Span,
        /// Time in which all processes together use less than a thousandth of a core. Default: not limited.
        idle_ms: Span,
        /// Memory of all processes together and what they wrote to their tmpfs. Default 512 MiB, ceiling 16 GiB.
        memory_bytes: Size,
        /// Processes and threads. Default 64, ceiling 512: more of them take seconds to end, and without a cgroup cannot be watched meanwhile.
        processes: u32,
        /// Open descriptors of one process. Default 256, ceiling 65536.
        open_files: u32,
        /// Size of one file. Default 64 MiB, ceiling 16 GiB.
        file_size_bytes: Size,
        /// All files of a job together. Default 128 MiB, ceiling 16 GiB.
        disk_bytes: Size,
        /// What is kept of each output stream. Default 1 MiB, ceiling 16 MiB. The ceiling is changed by a restart only.
        output_bytes: Size,
        /// Cores. Default 1, ceiling 1024.
        cpus: u16,
    }
}

section! {
    /// `[retention]`: how long the outcomes of ended jobs are kept. What is oldest goes first.
    RetentionSection {
        /// Outcomes, at most. Default 10000.
        outcomes_count: u64,
        /// How long an outcome is kept. Default 24 h.
        outcomes_age_ms: Span,
        /// Bytes of all outcomes (output, files), at most. Default 256 MiB.
        outcomes_bytes: Size,
    }
}

section! {
    /// `[http]`: what clients of the control socket may take.
    HttpSection {
        /// Connections, at most; when they are all there, the one that has idled longest makes room. Default 1024.
        connections_max: u32,
        /// Connections of one user, at most. Default 256.
        connections_per_peer_max: u32,
        /// Bytes of a request's head. Default 64 KiB, at least 8 KiB.
        header_bytes_max: Size,
        /// How long a client may take to send a request's head, and a connection may idle. Default 30 s.
        header_timeout_ms: Span,
        /// Bytes of a request's body, or of a line of a batch. Default 96 MiB.
        body_bytes_max: Size,
        /// How long a client may take to send a body, and to take in any part of an answer. Default 1 min.
        body_timeout_ms: Span,
        /// Bytes of all bodies of requests and answers that are in the daemon's memory at one time. Default 512 MiB. Changed by a restart only.
        bodies_bytes_max: Size,
        /// Requests that wait for a job's end or follow its output, at most. Default 4096. Changed by a restart only.
        waiters_max: u32,
        /// The longest `?wait=`; a longer one is cut to it. Default 1 h.
        wait_max_ms: Span,
        /// Jobs of one batch whose ends are waited for at one time. Default 1000.
        batch_waiting_max: u32,
        /// The group whose members may submit jobs: it gets the control socket. Default: only the owner and root may. Changed by a restart only.
        group: String,
    }
}

section! {
    /// `[log]`: what is logged on standard error.
    LogSection {
        /// "error", "warn", "info", "debug" or "trace". Default "info". Changed by a restart only.
        level: LogLevel,
        /// "human" or "json". Default "human". Changed by a restart only.
        format: LogFormat,
    }
}

section! {
    /// `[profile.NAME]`: a named sandbox set-up.
    ProfileSection {
        /// Host paths that are visible, read-only: "/opt/venv", or "/data/sets:/srv/data" to appear elsewhere. Changed by a restart only.
        mounts: Vec<String>,
        /// Variables that its jobs have, unless they set them themselves.
        env: BTreeMap<String, String>,
        /// As `[limits]`, for its jobs.
        limits: LimitsSection,
        /// As `[ceilings]`, for its jobs.
        ceilings: LimitsSection,
        /// Directories beneath which its jobs may name host files as input ({"path": …}).
        file_roots: Vec<String>,
        /// The tenants that may use it, like "uid:1000". Default: all.
        users: Vec<String>,
    }
}

section! {
    /// `[tenant.NAME]`: what a tenant may take.
    TenantSection {
        /// Its part of the starts, beside those of the others that wait in the same class; 1 to 1000. Default 1.
        weight: u32,
        /// Jobs that may run at one time. Default: not limited.
        running_max: u32,
        /// Jobs that have not ended, at most. Default: only by `pool.queue_jobs`.
        queue_jobs: u64,
        /// The users whose jobs are this tenant's, by number. Default: none; a user without a tenant is one, like "uid:1000".
        uids: Vec<u32>,
    }
}

/// Everything that may be written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// `[pool]`
    pub pool: PoolSection,
    /// `[limits]`
    pub limits: LimitsSection,
    /// `[ceilings]`
    pub ceilings: LimitsSection,
    /// `[retention]`
    pub retention: RetentionSection,
    /// `[http]`
    pub http: HttpSection,
    /// `[log]`
    pub log: LogSection,
    /// `[profile.NAME]`
    pub profile: BTreeMap<String, ProfileSection>,
    /// `[tenant.NAME]`
    pub tenant: BTreeMap<String, TenantSection>,
}

/// `pool.isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Refuse to work without a layer.
    Required,
    /// Work without it, and say so.
    Reduced,
}

/// `pool.identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityChoice {
    /// Their own, or nothing works.
    Own,
    /// Their own where that can be had.
    Best,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What the operator must see to.
    Error,
    /// What the operator should know.
    Warn,
    /// The life of the daemon, and lost workers.
    #[default]
    Info,
    /// Every job.
    Debug,
    /// Every message.
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl RawConfig {
    /// The sections, by the name that stands in brackets.
    pub const SECTIONS: &[(&'static str, &'static [Key])] = &[
        ("pool", PoolSection::KEYS),
        ("limits", LimitsSection::KEYS),
        ("ceilings", LimitsSection::KEYS),
        ("retention", RetentionSection::KEYS),
        ("http", HttpSection::KEYS),
        ("log", LogSection::KEYS),
        ("profile.NAME", ProfileSection::KEYS),
        ("tenant.NAME", TenantSection::KEYS),
    ];

    /// What `over` says, and where that is silent what this says.
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        for (name, profile) in over.profile {
            let below = self.profile.remove(&name).unwrap_or_default();
            self.profile.insert(name, below.merged(profile));
        }
        for (name, tenant) in over.tenant {
            let below = self.tenant.remove(&name).unwrap_or_default();
            self.tenant.insert(name, below.overlaid(tenant));
        }
        Self {
            pool: self.pool.overlaid(over.pool),
            limits: self.limits.overlaid(over.limits),
            ceilings: self.ceilings.overlaid(over.ceilings),
            retention: self.retention.overlaid(over.retention),
            http: self.http.overlaid(over.http),
            log: self.log.overlaid(over.log),
            profile: self.profile,
            tenant: self.tenant,
        }
    }
}

impl ProfileSection {
    fn merged(mut self, mut over: Self) -> Self {
        let limits = self.limits.take().unwrap_or_default();
        let ceilings = self.ceilings.take().unwrap_or_default();
        let limits = limits.overlaid(over.limits.take().unwrap_or_default());
        let ceilings = ceilings.overlaid(over.ceilings.take().unwrap_or_default());
        Self {
            limits: Some(limits),
            ceilings: Some(ceilings),
            ..self.overlaid(over)
        }
    }
}

impl LimitsSection {
    /// These limits, and where they are silent the others.
    pub fn over(&self, others: &Limits) -> Limits {
        Limits {
            timeout_ms: self.timeout_ms.map_or(others.timeout_ms, |it| it.0),
            grace_ms: self.grace_ms.map_or(others.grace_ms, |it| it.0),
            cpu_ms: self.cpu_ms.map_or(others.cpu_ms, |it| it.0),
            idle_ms: self.idle_ms.map(|it| it.0).or(others.idle_ms),
            memory_bytes: self.memory_bytes.map_or(others.memory_bytes, |it| it.0),
            processes: self.processes.unwrap_or(others.processes),
            open_files: self.open_files.unwrap_or(others.open_files),
            file_size_bytes: self
                .file_size_bytes
                .map_or(others.file_size_bytes, |it| it.0),
            disk_bytes: self.disk_bytes.map_or(others.disk_bytes, |it| it.0),
            output_bytes: self.output_bytes.map_or(others.output_bytes, |it| it.0),
            cpus: self.cpus.unwrap_or(others.cpus),
        }
    }

    /// All of these limits, written out.
    pub fn of(limits: &Limits) -> Self {
        Self {
            timeout_ms: Some(Amount(limits.timeout_ms)),
            grace_ms: Some(Amount(limits.grace_ms)),
            cpu_ms: Some(Amount(limits.cpu_ms)),
            idle_ms: limits.idle_ms.map(Amount),
            memory_bytes: Some(Amount(limits.memory_bytes)),
            processes: Some(limits.processes),
            open_files: Some(limits.open_files),
            file_size_bytes: Some(Amount(limits.file_size_bytes)),
            disk_bytes: Some(Amount(limits.disk_bytes)),
            output_bytes: Some(Amount(limits.output_bytes)),
            cpus: Some(limits.cpus),
        }
    }
}
