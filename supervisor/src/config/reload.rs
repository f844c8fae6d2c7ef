//! What a changed config may change while the daemon runs.
//!
//! # Invariants
//!
//! - The config that comes out can be worked by with the workers and the socket that there are.

use super::Config;

/// The outcome of reading the config again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// The config that holds from now on.
    pub config: Config,
    /// The keys that have changed and keep their old value until a restart.
    pub need_restart: Vec<String>,
}

impl Config {
    /// Takes over of `new` what can be changed while the daemon runs.
    pub fn reloaded(&self, mut new: Self) -> Reload {
        let mut need_restart = Vec::new();
        let mut keep = |key: &str, differs: bool| {
            if differs {
                need_restart.push(key.to_owned());
            }
        };
        keep("pool.isolation", self.isolation != new.isolation);
        keep("pool.identity", self.identity != new.identity);
        keep("http.group", self.http.group != new.http.group);
        keep(
            "http.waiters_max",
            self.http.waiters_max != new.http.waiters_max,
        );
        keep(
            "http.bodies_bytes_max",
            self.http.bodies_bytes_max != new.http.bodies_bytes_max,
        );
        keep("log.level", self.log.level != new.log.level);
        keep("log.format", self.log.format != new.log.format);
        new.isolation = self.isolation;
        new.identity = self.identity;
        new.http.group.clone_from(&self.http.group);
        new.http.waiters_max = self.http.waiters_max;
        new.http.bodies_bytes_max = self.http.bodies_bytes_max;
        // Of a body that is larger than all of them together nothing could ever be read.
        new.http.body_bytes_max = new.http.body_bytes_max.min(self.http.bodies_bytes_max);
        new.log = self.log;
        // What workers were told at their birth: names and mounts of profiles, room for output.
        for (name, old) in &self.profiles {
            match new.profiles.get_mut(name) {
                None => {
                    keep(&format!("profile.{name}"), true);
                    new.profiles.insert(name.clone(), old.clone());
                }
                Some(profile) => {
                    keep(
                        &format!("profile.{name}.mounts"),
                        profile.mounts != old.mounts,
                    );
                    profile.mounts.clone_from(&old.mounts);
                }
            }
        }
        new.profiles.retain(|name, _| {
            let is_known = self.profiles.contains_key(name);
            keep(&format!("profile.{name}"), !is_known);
            is_known
        });
        if new.output_bytes_max() > self.output_bytes_max() {
            keep("ceilings.output_bytes", true);
            new.ceilings.output_bytes = self.ceilings.output_bytes;
            for (name, profile) in &mut new.profiles {
                if let Some(old) = self.profiles.get(name) {
                    profile.own_ceilings.output_bytes = old.own_ceilings.output_bytes;
                }
            }
        }
        Reload {
            config: new,
            need_restart,
        }
    }
}
