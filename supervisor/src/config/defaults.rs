//! What holds where nothing is said.

use std::collections::BTreeMap;
use std::time::Duration;

use wpool_pool::settings::{Settings, TenantRules};
use wpool_protocol::limits::Limits;
use wpool_protocol::wire::IsolationPolicy;

use super::{Config, DEFAULT_PROFILE, HttpBounds, IdentityChoice, LogSettings, Profile, Retention};

impl Config {
    /// What holds where nothing is said, with so many workers.
    pub fn default_for(workers: u16) -> Self {
        Self {
            pool: Settings::default_for(workers),
            grace: Duration::from_secs(20),
            attempts_max: 3,
            isolation: IsolationPolicy::Required,
            identity: IdentityChoice::Best,
            retention: Retention::default(),
            http: HttpBounds::default(),
            log: LogSettings::default(),
            tenants: TenantRules::default(),
            tenant_by_uid: BTreeMap::new(),
            profiles: BTreeMap::from([(DEFAULT_PROFILE.to_owned(), Profile::default())]),
            limits: Limits::DEFAULT,
            ceilings: Limits::CEILING,
        }
    }
}
