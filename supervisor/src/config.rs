//! The config: what the operator decides, from all the places where it may be said.
//!
//! ```text
//!   defaults  ◀──  files  ◀──  WPOOL_SECTION_KEY  ◀──  flags          the later one wins, key by key
//!
//!   service:  $CONFIGURATION_DIRECTORY/wpool.toml, then conf.d/*.toml there, by name
//!   as root:  the same in /etc/wpool
//!   others:   $XDG_CONFIG_HOME/wpool/wpool.toml, else ~/.config/wpool/wpool.toml
//!   --config: that file, and none of the above
//! ```
//!
//! `wpool config check` also looks whether what it names is on this machine (`host`).
//!
//! Two layers of types: [`raw`] is what is written, every key optional; [`Config`] is what it means, every
//! value there and checked against the others (`meaning`).
//!
//! # Invariants
//!
//! - An unknown key is an error, and so is a value that cannot be: nothing is guessed or cut.
//! - An error is one line that names the file, the line and the key, and says what to do.
//! - What [`Config::to_toml`] prints reads back as the same config.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wpool_pool::settings::TenantRules;
use wpool_protocol::limits::Limits;
use wpool_protocol::wire::IsolationPolicy;

pub mod amount;
mod bounds;
mod cores;
mod defaults;
mod host;
mod layers;
mod meaning;
pub mod raw;
mod reference;
mod reload;
mod show;

pub use bounds::{HttpBounds, LogSettings, Retention};
pub use cores::usable_cores;
pub use layers::{Flags, Source, load, read};
pub use meaning::WORKERS_MAX;
pub use raw::{IdentityChoice, LogFormat, LogLevel};
pub use reference::reference;
pub use reload::Reload;

/// The config, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the pool works by.
    pub pool: wpool_pool::settings::Settings,
    /// How long running jobs may go on after SIGTERM.
    pub grace: Duration,
    /// Lost workers that a job may cost where it does not say so itself.
    pub attempts_max: u32,
    /// What to do about a missing layer of the sandbox.
    pub isolation: IsolationPolicy,
    /// Whose ids jobs must have.
    pub identity: IdentityChoice,
    /// How long outcomes are kept.
    pub retention: Retention,
    /// What clients may take of the daemon.
    pub http: HttpBounds,
    /// What is logged.
    pub log: LogSettings,
    /// What tenants may take.
    pub tenants: TenantRules,
    /// The users who are no tenants of their own, and whose jobs theirs are.
    pub tenant_by_uid: BTreeMap<u32, Arc<str>>,
    /// The profiles by name; `default` is always there.
    pub profiles: BTreeMap<String, Profile>,
    /// What `[limits]` and `[ceilings]` say, from which those of the profiles are made.
    pub limits: Limits,
    /// See `limits`.
    pub ceilings: Limits,
}

/// A named sandbox set-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Host paths, and where they appear.
    pub mounts: Vec<(PathBuf, String)>,
    /// Variables that its jobs have.
    pub env: BTreeMap<String, String>,
    /// Directories beneath which its jobs may name files of the host.
    pub file_roots: Vec<PathBuf>,
    /// The tenants that may use it; `None` if all may.
    pub users: Option<Vec<String>>,
    /// Its own words on limits, over those of `[limits]`.
    pub own_limits: raw::LimitsSection,
    /// Its own words on ceilings, over those of `[ceilings]`.
    pub own_ceilings: raw::LimitsSection,
}

/// The profile of a job that names none.
pub const DEFAULT_PROFILE: &str = "default";

/// The name under which the rule of all other tenants is written.
pub const DEFAULT_TENANT: &str = "default";

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("failed to read {path}: make it readable, or name another with --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// Something in it is no config.
    #[error("{place}: {key}{problem}")]
    Malformed {
        /// The file and the line.
        place: String,
        /// The key with a colon, if it is known.
        key: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A value that cannot be, alone or beside the others.
    #[error("{key}: {problem}")]
    Impossible {
        /// The key.
        key: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Config {
    /// The largest output limit that any job may have: what the output stores must hold.
    pub fn output_bytes_max(&self) -> u64 {
        self.profiles
            .values()
            .map(|profile| self.ceilings_of(profile).output_bytes.0)
            .max()
            .unwrap_or(0)
    }

    /// The tenant whose jobs a user's are.
    pub fn tenant_of(&self, uid: u32) -> Arc<str> {
        let mapped = self.tenant_by_uid.get(&uid);
        mapped.map_or_else(|| format!("uid:{uid}").into(), Arc::clone)
    }

    /// The default limits of a profile.
    pub fn limits_of(&self, profile: &Profile) -> Limits {
        profile.own_limits.over(&self.limits)
    }

    /// The ceilings of a profile.
    pub fn ceilings_of(&self, profile: &Profile) -> Limits {
        profile.own_ceilings.over(&self.ceilings)
    }
}

#[cfg(test)]
mod tests;
