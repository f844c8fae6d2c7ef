//! A config held against this machine: what it names must be there.
//!
//! Only what is surely missing counts. Whoever asks need not be the user whom the daemon is to run as, and may see less.

use std::io::ErrorKind;
use std::path::Path;

use super::{Config, ConfigError};
use crate::serve::socket;

impl Config {
    /// Looks for what it names: mounts, roots of files, the group of the socket.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Impossible`] names the first that is not there.
    pub fn check_host(&self) -> Result<(), ConfigError> {
        for (name, profile) in &self.profiles {
            let mounts = profile.mounts.iter().map(|(path, _)| ("mounts", path));
            let roots = profile.file_roots.iter().map(|path| ("file_roots", path));
            for (key, path) in mounts.chain(roots) {
                if is_missing(path) {
                    return Err(ConfigError::Impossible {
                        key: format!("profile.{name}.{key}"),
                        problem: format!(
                            "there is no {}: make it, or leave it out",
                            path.display()
                        ),
                    });
                }
            }
        }
        let group = self.http.group.as_deref().map(socket::group_id);
        match group.transpose() {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::Impossible {
                key: "http.group".to_owned(),
                problem: error.to_string().replacen("http.group: ", "", 1),
            }),
        }
    }
}

fn is_missing(path: &Path) -> bool {
    let kind = path.metadata().map_err(|error| error.kind());
    matches!(kind, Err(ErrorKind::NotFound | ErrorKind::NotADirectory))
}
