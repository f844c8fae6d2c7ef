//! From what is written to what it means.
//!
//! # Invariants
//!
//! - Whatever comes out of here can be worked by: no zero that would stop everything, no default above its
//!   ceiling, no path that is not absolute, no number that the rest of the daemon would have to check again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wpool_pool::settings::TenantRule;
use wpool_protocol::limits::LimitsRequest;
use wpool_protocol::wire::{IsolationPolicy, MountSetup};

use super::amount::Amount;
use super::raw::{
    HttpSection, Isolation, LimitsSection, PoolSection, ProfileSection, RawConfig,
    RetentionSection, Size, Span, TenantSection,
};
use super::{
    Config, ConfigError, DEFAULT_PROFILE, DEFAULT_TENANT, HttpBounds, LogSettings, Profile,
    Retention,
};

/// Slots: as many as there are ids of their own for, but for one that stands in while another is recycled.
pub const WORKERS_MAX: u16 = 4_095;

impl Config {
    /// What `raw` means on a machine that gives us so many cores.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Impossible`] names the first key that cannot be.
    pub fn from_raw(raw: RawConfig, cores: u16) -> Result<Self, ConfigError> {
        let workers = raw.pool.workers.unwrap_or(cores.max(1));
        let mut config = Self::default_for(workers);
        config.take_pool(&raw.pool)?;
        config.limits = raw.limits.over(&config.limits);
        config.ceilings = raw.ceilings.over(&config.ceilings);
        check_limits("", &raw.limits, &raw.ceilings, &config, &Profile::default())?;
        config.retention = retention(&raw.retention);
        config.http = http(raw.http)?;
        config.log = LogSettings {
            level: raw.log.level.unwrap_or_default(),
            format: raw.log.format.unwrap_or_default(),
        };
        for (name, section) in raw.profile {
            let profile = profile(&name, section)?;
            check_limits(
                &format!("profile.{name}."),
                &profile.own_limits,
                &profile.own_ceilings,
                &config,
                &profile,
            )?;
            config.profiles.insert(name, profile);
        }
        for (name, section) in raw.tenant {
            config.take_tenant(&name, section)?;
        }
        Ok(config)
    }

    fn take_tenant(&mut self, name: &str, section: TenantSection) -> Result<(), ConfigError> {
        if name.is_empty() || name.len() > 255 || name.contains(char::is_control) {
            return impossible(
                "tenant",
                "a tenant's name has 1 to 255 bytes, none of them a control character",
            );
        }
        let key = |key: &str| format!("tenant.{name}.{key}");
        let mut rule = TenantRule::default();
        take(&mut rule.weight, section.weight);
        rule.running_max = section.running_max;
        rule.queue_jobs = section.queue_jobs;
        between(&key("weight"), rule.weight, 1, 1_000)?;
        between(
            &key("running_max"),
            rule.running_max.unwrap_or(1),
            1,
            u32::MAX,
        )?;
        let uids = section.uids.unwrap_or_default();
        if name == DEFAULT_TENANT {
            if !uids.is_empty() {
                return impossible(
                    key("uids"),
                    "this is the rule of all other tenants, and nobody's name: choose another for these users",
                );
            }
            self.tenants.default = rule;
            return Ok(());
        }
        for uid in uids {
            if let Some(other) = self.tenant_by_uid.insert(uid, name.into()) {
                let problem = format!("user {uid} is of tenant `{other}` already: name them once");
                return impossible(key("uids"), problem);
            }
        }
        self.tenants.named.insert(name.into(), rule);
        Ok(())
    }

    fn take_pool(&mut self, section: &PoolSection) -> Result<(), ConfigError> {
        let settings = &mut self.pool;
        between("pool.workers", settings.slots, 1, WORKERS_MAX)?;
        take(&mut settings.queue_jobs, section.queue_jobs);
        take(
            &mut settings.queue_bytes,
            section.queue_bytes.map(|it| it.0.0),
        );
        take(&mut settings.share_period, section.share_period);
        take_span(&mut settings.backoff_min, section.backoff_min_ms);
        take_span(&mut settings.backoff_max, section.backoff_max_ms);
        take_span(&mut settings.ping_interval, section.ping_interval_ms);
        take_span(&mut settings.silence_max, section.silence_max_ms);
        take_span(&mut settings.ready_within, section.ready_within_ms);
        take_span(&mut settings.overrun_slack, section.overrun_slack_ms);
        take(&mut settings.restart_burst, section.restart_burst);
        take_span(&mut settings.restart_period, section.restart_period_ms);
        take_span(&mut settings.park_min, section.park_min_ms);
        take_span(&mut settings.park_max, section.park_max_ms);
        settings.recycle_jobs = section.recycle_jobs.filter(|jobs| *jobs > 0);
        let age = section.recycle_age_ms.map(|age| Duration::from(age.0));
        settings.recycle_age = age.filter(|age| !age.is_zero());
        take_span(&mut self.grace, section.shutdown_grace_ms);
        take(&mut self.attempts_max, section.attempts_max);
        self.isolation = match section.isolation {
            None | Some(Isolation::Required) => IsolationPolicy::Required,
            Some(Isolation::Reduced) => IsolationPolicy::Reduced,
        };
        take(&mut self.identity, section.identity);
        between("pool.queue_jobs", settings.queue_jobs, 1, u64::MAX)?;
        between("pool.queue_bytes", settings.queue_bytes, 1, u64::MAX)?;
        between("pool.share_period", settings.share_period, 3, 1_000_000)?;
        between("pool.attempts_max", self.attempts_max, 1, 100)?;
        between("pool.restart_burst", settings.restart_burst, 1, 1_000)?;
        for (key, value) in [
            ("pool.ping_interval_ms", settings.ping_interval),
            ("pool.silence_max_ms", settings.silence_max),
            ("pool.ready_within_ms", settings.ready_within),
            ("pool.overrun_slack_ms", settings.overrun_slack),
            ("pool.park_min_ms", settings.park_min),
        ] {
            between(key, value.as_millis(), 10, u128::from(u64::MAX))?;
        }
        ordered(
            ("pool.backoff_min_ms", settings.backoff_min),
            ("pool.backoff_max_ms", settings.backoff_max),
        )?;
        ordered(
            ("pool.park_min_ms", settings.park_min),
            ("pool.park_max_ms", settings.park_max),
        )
    }
}

fn retention(section: &RetentionSection) -> Retention {
    let mut retention = Retention::default();
    take(&mut retention.count, section.outcomes_count);
    take_span(&mut retention.age, section.outcomes_age_ms);
    take_size(&mut retention.bytes, section.outcomes_bytes);
    retention
}

fn http(section: HttpSection) -> Result<HttpBounds, ConfigError> {
    let mut http = HttpBounds::default();
    let mut header_bytes = u64::try_from(http.header_bytes_max).unwrap_or(u64::MAX);
    take_count(&mut http.connections_max, section.connections_max);
    take_count(
        &mut http.connections_per_peer_max,
        section.connections_per_peer_max,
    );
    take_size(&mut header_bytes, section.header_bytes_max);
    take_span(&mut http.header_timeout, section.header_timeout_ms);
    take_size(&mut http.body_bytes_max, section.body_bytes_max);
    take_span(&mut http.body_timeout, section.body_timeout_ms);
    take_size(&mut http.bodies_bytes_max, section.bodies_bytes_max);
    take_count(&mut http.waiters_max, section.waiters_max);
    take_span(&mut http.wait_max, section.wait_max_ms);
    take_count(&mut http.batch_waiting_max, section.batch_waiting_max);
    http.group = section.group;
    between("http.connections_max", http.connections_max, 4, 1 << 20)?;
    between(
        "http.connections_per_peer_max",
        http.connections_per_peer_max,
        2,
        http.connections_max,
    )?;
    // hyper wants 8 KiB at least.
    between("http.header_bytes_max", header_bytes, 8 << 10, 1 << 20)?;
    http.header_bytes_max = usize::try_from(header_bytes).unwrap_or(usize::MAX);
    between("http.body_bytes_max", http.body_bytes_max, 1_024, 1 << 30)?;
    between(
        "http.bodies_bytes_max",
        http.bodies_bytes_max,
        http.body_bytes_max,
        1 << 40,
    )?;
    between("http.waiters_max", http.waiters_max, 1, 1 << 20)?;
    between("http.batch_waiting_max", http.batch_waiting_max, 1, 1 << 20)?;
    for (key, value) in [
        ("http.header_timeout_ms", http.header_timeout),
        ("http.body_timeout_ms", http.body_timeout),
    ] {
        between(key, value.as_millis(), 10, u128::from(u64::MAX))?;
    }
    Ok(http)
}

fn profile(name: &str, section: ProfileSection) -> Result<Profile, ConfigError> {
    if name.is_empty() || name.len() > 255 {
        return impossible("profile", "a profile's name has 1 to 255 bytes");
    }
    let key = |key: &str| format!("profile.{name}.{key}");
    let mut mounts = Vec::new();
    for text in section.mounts.unwrap_or_default() {
        mounts.push(mount(&key("mounts"), &text)?);
    }
    let places = mounts
        .iter()
        .map(|(_, destination): &(PathBuf, String)| destination.as_str());
    if let Some(place) = MountSetup::met_twice(places) {
        let problem = format!("two of them appear at `{place}`: name another place for one");
        return impossible(key("mounts"), problem);
    }
    let mut file_roots = Vec::new();
    for text in section.file_roots.unwrap_or_default() {
        let root = PathBuf::from(text);
        if !is_plain_absolute(&root) {
            let problem = format!("{} must be an absolute path without `..`", root.display());
            return impossible(key("file_roots"), problem);
        }
        file_roots.push(root);
    }
    let env = section.env.unwrap_or_default();
    for (variable, value) in &env {
        if variable.is_empty() || variable.contains(['=', '\0']) || value.contains('\0') {
            let problem = "a name is empty or holds `=`, or something holds a NUL byte";
            return impossible(key("env"), problem);
        }
    }
    Ok(Profile {
        mounts,
        env,
        file_roots,
        users: section.users,
        own_limits: section.limits.unwrap_or_default(),
        own_ceilings: section.ceilings.unwrap_or_default(),
    })
}

/// `SOURCE` or `SOURCE:DESTINATION`.
fn mount(key: &str, text: &str) -> Result<(PathBuf, String), ConfigError> {
    let (source, destination) = text.split_once(':').unwrap_or((text, text));
    for path in [source, destination] {
        if !is_plain_absolute(Path::new(path)) {
            let problem = format!(
                "`{path}` must be an absolute path without `..`; write \"/SOURCE\" or \"/SOURCE:/DESTINATION\""
            );
            return impossible(key, problem);
        }
    }
    // By its real name too, if it is there: a link to / is / as well.
    let real = std::fs::canonicalize(source).ok();
    let real = real.as_deref().and_then(Path::to_str).unwrap_or(source);
    for name in [source, real] {
        if let Some(reason) = MountSetup::unfit_to_show(name) {
            return impossible(key, format!("`{source}` cannot be shown: {reason}"));
        }
    }
    if let Some(place) = MountSetup::in_the_way(destination) {
        let problem = format!(
            "`{destination}` would hide or be hidden by {place} of the sandbox; write \"{source}:/opt/NAME\""
        );
        return impossible(key, problem);
    }
    Ok((source.into(), destination.to_owned()))
}

fn is_plain_absolute(path: &Path) -> bool {
    use std::path::Component;

    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && components.clone().next().is_some()
        && components.all(|component| matches!(component, Component::Normal(_)))
}

/// Holds what a section says of limits against what it says of ceilings, or inherits.
///
/// A default that is inherited, not said, may be above a ceiling: the ceiling cuts it.
fn check_limits(
    prefix: &str,
    limits: &LimitsSection,
    ceilings: &LimitsSection,
    config: &Config,
    profile: &Profile,
) -> Result<(), ConfigError> {
    let allowed = LimitsSection::of(&config.ceilings_of(profile));
    let said = [
        (
            "timeout_ms",
            is_above(limits.timeout_ms, allowed.timeout_ms),
        ),
        ("grace_ms", is_above(limits.grace_ms, allowed.grace_ms)),
        ("cpu_ms", is_above(limits.cpu_ms, allowed.cpu_ms)),
        ("idle_ms", is_above(limits.idle_ms, allowed.idle_ms)),
        (
            "memory_bytes",
            is_above(limits.memory_bytes, allowed.memory_bytes),
        ),
        (
            "processes",
            limits.processes.is_some() && limits.processes > allowed.processes,
        ),
        (
            "open_files",
            limits.open_files.is_some() && limits.open_files > allowed.open_files,
        ),
        (
            "file_size_bytes",
            is_above(limits.file_size_bytes, allowed.file_size_bytes),
        ),
        (
            "disk_bytes",
            is_above(limits.disk_bytes, allowed.disk_bytes),
        ),
        (
            "output_bytes",
            is_above(limits.output_bytes, allowed.output_bytes),
        ),
        ("cpus", limits.cpus.is_some() && limits.cpus > allowed.cpus),
    ];
    if let Some((key, _)) = said.into_iter().find(|(_, above)| *above) {
        let problem = format!("it is above its ceiling; raise {prefix}ceilings.{key} or lower it");
        return impossible(format!("{prefix}limits.{key}"), problem);
    }
    for (key, zero) in [
        (
            "timeout_ms",
            ceilings.timeout_ms.map(|it| it.0.0) == Some(0),
        ),
        ("cpu_ms", ceilings.cpu_ms.map(|it| it.0.0) == Some(0)),
        ("processes", ceilings.processes == Some(0)),
        ("cpus", ceilings.cpus == Some(0)),
    ] {
        if zero {
            return impossible(
                format!("{prefix}ceilings.{key}"),
                "with 0 no job could run; leave it out for the default",
            );
        }
    }
    // Whoever asks for nothing gets this.
    let defaults = config.limits_of(profile);
    match LimitsRequest::default().resolve(&defaults, &config.ceilings_of(profile)) {
        Ok(_) => Ok(()),
        Err(error) => impossible(
            format!("{prefix}limits"),
            format!("with them no job could run: {error}"),
        ),
    }
}

fn is_above<Q: Ord + Copy>(said: Option<Amount<Q>>, allowed: Option<Amount<Q>>) -> bool {
    matches!((said, allowed), (Some(said), Some(allowed)) if said.0 > allowed.0)
}

fn impossible<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Impossible {
        key: key.into(),
        problem: problem.into(),
    })
}

fn between<T: Copy + PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value < min {
        return impossible(key, format!("it is {value} and must be at least {min}"));
    }
    if value > max {
        return impossible(key, format!("it is {value} and must be at most {max}"));
    }
    Ok(())
}

fn ordered(low: (&str, Duration), high: (&str, Duration)) -> Result<(), ConfigError> {
    if low.1 > high.1 {
        return impossible(
            low.0,
            format!("it is above {}; lower it or raise that", high.0),
        );
    }
    Ok(())
}

fn take<T>(value: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *value = said;
    }
}

fn take_span(value: &mut Duration, said: Option<Span>) {
    take(value, said.map(|said| said.0.into()));
}

fn take_size(value: &mut u64, said: Option<Size>) {
    take(value, said.map(|said| said.0.0));
}

fn take_count(value: &mut usize, said: Option<u32>) {
    take(
        value,
        said.map(|said| usize::try_from(said).unwrap_or(usize::MAX)),
    );
}

/// The profiles in the order in which workers are told of them: `default` first.
impl Config {
    /// The names of the profiles, in the order in which workers know them.
    pub fn profile_names(&self) -> Vec<&str> {
        let others = self.profiles.keys().map(String::as_str);
        std::iter::once(DEFAULT_PROFILE)
            .chain(others.filter(|name| *name != DEFAULT_PROFILE))
            .collect()
    }
}
