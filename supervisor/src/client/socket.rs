//! Where daemons listen, and how a client gets through to one.
//!
//! A socket that somebody named is the only one that is tried. Otherwise the user's own comes first, then the
//! machine's: `$XDG_RUNTIME_DIR/wpool/control.sock`, `/run/wpool/control.sock`.
//!
//! # Invariants
//!
//! - Only directories that belong to the user or to the system are looked into; never `/tmp`, where
//!   anybody could listen.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName as _};

/// The machine's socket, made by the packaged service.
const OF_THE_MACHINE: &str = "/run/wpool/control.sock";

/// A daemon cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody listens where daemons do.
    #[error("no daemon listens at {}: start one with `wpool serve`, or name its socket with --socket", list(.tried))]
    NoDaemon {
        /// Where one was looked for.
        tried: Vec<PathBuf>,
    },
    /// Somebody listens, and this user may not connect.
    #[error("{path} may not be opened by this user: ask for membership of the group that owns it")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens, and does not accept.
    #[error("the daemon at {path} does not accept connections: see its log")]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// Something else went wrong.
    #[error("failed to connect to {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for (n, path) in paths.iter().enumerate() {
        let before = if n == 0 { "" } else { " or " };
        // Writing to a string cannot fail.
        write!(text, "{before}{}", path.display()).unwrap_or_default();
    }
    text
}

/// A socket behind which a daemon was seen.
#[derive(Clone, Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The socket at `named`, or the first behind which somebody listens.
    ///
    /// # Errors
    ///
    /// [`SocketError`] if there is none.
    pub async fn find(named: Option<PathBuf>) -> Result<Self, SocketError> {
        let candidates = match named {
            Some(path) => vec![path],
            None => usual(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)),
        };
        for path in &candidates {
            match connect(path).await {
                Ok(_) => return Ok(Self { path: path.clone() }),
                Err(SocketError::NoDaemon { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Err(SocketError::NoDaemon { tried: candidates })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new connection.
    ///
    /// # Errors
    ///
    /// [`SocketError`] if the daemon has gone.
    pub async fn connect(&self) -> Result<Stream, SocketError> {
        connect(&self.path).await
    }
}

/// Where a daemon is looked for that nobody named.
fn usual(runtime_dir: Option<PathBuf>) -> Vec<PathBuf> {
    runtime_dir
        // The specification of XDG_RUNTIME_DIR: a relative one is to be ignored.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("wpool/control.sock"))
        .into_iter()
        .chain([PathBuf::from(OF_THE_MACHINE)])
        .collect()
}

async fn connect(path: &Path) -> Result<Stream, SocketError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SocketError::NoDaemon {
            tried: vec![path.to_owned()],
        },
        io::ErrorKind::PermissionDenied => SocketError::Forbidden {
            path: path.to_owned(),
        },
        _ => SocketError::Connect {
            path: path.to_owned(),
            source,
        },
    };
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    tokio::time::timeout(super::CONNECT_PATIENCE, Stream::connect(name))
        .await
        .map_err(|_| SocketError::Silent {
            path: path.to_owned(),
        })?
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_socket_comes_before_the_machines() {
        assert_eq!(
            usual(Some("/run/user/1000".into())),
            [
                PathBuf::from("/run/user/1000/wpool/control.sock"),
                PathBuf::from("/run/wpool/control.sock"),
            ]
        );
    }

    #[test]
    fn a_relative_runtime_directory_is_ignored() {
        assert_eq!(
            usual(Some("run".into())),
            [PathBuf::from("/run/wpool/control.sock")]
        );
    }
}
