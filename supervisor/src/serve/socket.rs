//! The control socket's place: where it is, whose, and that there is only one daemon behind it.
//!
//! The first of: what systemd passes (unless somebody named another), `--socket`,
//! `$RUNTIME_DIRECTORY/control.sock`, `$XDG_RUNTIME_DIR/wpool/control.sock`, for root `/run/wpool/control.sock`.
//!
//! # Invariants
//!
//! - Looking whether somebody listens and taking the place happen under one lock, on the directory, held no longer than
//!   that: of two daemons that start together one finds the other.
//! - Only a socket behind which nobody listens is replaced; nothing else ever is.
//! - On exit the socket is removed only if it is still the one that was made here.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName as _};
use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
use interprocess::os::unix::uds_local_socket::tokio::Listener as UdsListener;
use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::http::peer::Access;

/// How long a daemon that listens may take to accept: past it, it is there all the same.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long another daemon may take to start, and with it hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How often the lock is tried: the kernel tells nobody when it is free.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody said where.
    #[error(
        "there is no place for the control socket: name one with --socket, or set XDG_RUNTIME_DIR"
    )]
    NoPlace,
    /// There is another daemon.
    #[error(
        "a daemon listens at {path} already: stop it first, or name another socket with --socket"
    )]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is there and is no socket: remove it, or name another place with --socket")]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// What systemd has passed is of no use.
    #[error(
        "the descriptor that was passed (LISTEN_FDS) is no Unix stream socket that listens: give ListenStream= a path"
    )]
    NoListener,
    /// There is no such group.
    #[error("http.group: there is no group `{name}`: make it, or name another")]
    NoGroup {
        /// Its name.
        name: String,
    },
    /// Somebody holds the lock for too long.
    #[error(
        "another daemon is about to start at {path}: wait for it, or name another socket with --socket"
    )]
    Locked {
        /// The socket.
        path: PathBuf,
    },
    /// There is no directory for it.
    #[error(
        "there is no directory {directory} for the socket: make it, or name another place with --socket"
    )]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// Something else went wrong.
    #[error("failed to {step} {path}")]
    Io {
        /// What failed.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// How.
        #[source]
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io {
        step,
        path,
        source: source.into(),
    }
}

/// The control socket, listening.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Listener,
    access: Access,
    guard: SocketGuard,
}

/// Removes the socket when it goes, if it was made here and is still the same.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    /// Device and inode; `None` if it was not made here.
    made: Option<(u64, u64)>,
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Openness {
    /// The owner and root.
    Private,
    /// The members of this group, too.
    Group(u32),
}

/// Whether this is a Unix stream socket that listens.
fn listens(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(socket) == Ok(true)
}

impl ControlSocket {
    /// Takes the place that was named, or the usual one.
    ///
    /// # Errors
    ///
    /// [`SocketError`] is one line that says what to do.
    pub async fn open(named: Option<PathBuf>, group: Option<&str>) -> Result<Self, SocketError> {
        let group = group.map(group_id).transpose()?;
        if named.is_none()
            && let Some(inherited) = inherited()?
        {
            return Self::adopt(inherited);
        }
        let place = Place::find(named)?;
        let openness = match group {
            Some(group) => Openness::Group(group),
            None => place.openness,
        };
        Self::bind(&place.path, openness).await
    }

    /// Takes a socket that systemd listens on already.
    fn adopt(socket: OwnedFd) -> Result<Self, SocketError> {
        let path = path_of(&socket);
        if !listens(&socket) {
            return Err(SocketError::NoListener);
        }
        let listener = UdsListener::try_from(socket).map_err(failed("adopt", &path))?;
        let openness = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.mode() & 0o020 != 0 => Openness::Group(metadata.gid()),
            Ok(_) | Err(_) => Openness::Private,
        };
        Ok(Self {
            listener: listener.into(),
            access: openness.access(),
            guard: SocketGuard { path, made: None },
        })
    }

    async fn bind(path: &Path, openness: Openness) -> Result<Self, SocketError> {
        let directory = match path.parent() {
            Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
            Some(directory) => directory,
            None => Path::new("/"),
        };
        let lock = lock(directory, path).await?;
        make_room(path).await?;
        let listener = listen(path)?;
        let guard = SocketGuard::new(path)?;
        if let Openness::Group(group) = openness {
            std::os::unix::fs::chown(path, None, Some(group))
                .map_err(failed("give to its group", path))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))
                .map_err(failed("open to its group", path))?;
        }
        drop(lock);
        Ok(Self {
            listener,
            access: openness.access(),
            guard,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.guard.path
    }

    /// The listener, who may connect, and what removes the socket at the end.
    pub fn into_parts(self) -> (Listener, Access, SocketGuard) {
        (self.listener, self.access, self.guard)
    }
}

impl Openness {
    fn access(self) -> Access {
        Access {
            owner: rustix::process::geteuid().as_raw(),
            group: match self {
                Self::Private => None,
                Self::Group(group) => Some(group),
            },
        }
    }
}

/// Where the socket goes that nobody else listens on.
struct Place {
    path: PathBuf,
    openness: Openness,
}

impl Place {
    fn find(named: Option<PathBuf>) -> Result<Self, SocketError> {
        let own_group = Openness::Group(rustix::process::getegid().as_raw());
        if let Some(path) = named {
            return Ok(Self {
                path,
                openness: Openness::Private,
            });
        }
        // systemd.exec(5): several directories are separated by colons.
        let of_service = std::env::var("RUNTIME_DIRECTORY").ok();
        let of_service = of_service.and_then(|dirs| Some(PathBuf::from(dirs.split(':').next()?)));
        if let Some(directory) = of_service.filter(|directory| directory.is_absolute()) {
            return Ok(Self {
                path: directory.join("control.sock"),
                openness: own_group,
            });
        }
        let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(directory) = of_user.filter(|directory| directory.is_absolute()) {
            return Self::made(&directory.join("wpool"), 0o700, Openness::Private);
        }
        if rustix::process::geteuid().is_root() {
            return Self::made(Path::new("/run/wpool"), 0o755, own_group);
        }
        Err(SocketError::NoPlace)
    }

    fn made(directory: &Path, mode: u32, openness: Openness) -> Result<Self, SocketError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(directory)
            .map_err(failed("make", directory))?;
        Ok(Self {
            path: directory.join("control.sock"),
            openness,
        })
    }
}

/// The number of a group, by its name or that number.
pub(crate) fn group_id(name: &str) -> Result<u32, SocketError> {
    let group = nix::unistd::Group::from_name(name).ok().flatten();
    let id = group.map(|group| group.gid.as_raw());
    id.or_else(|| name.parse().ok())
        .ok_or_else(|| SocketError::NoGroup {
            name: name.to_owned(),
        })
}

/// The first socket that systemd passes, if it passes one.
fn inherited() -> Result<Option<OwnedFd>, SocketError> {
    let inherited = || -> io::Result<Option<OwnedFd>> {
        let number = sd_notify::listen_fds()?.next();
        let number = number.and_then(|number| u32::try_from(number).ok());
        number
            .map(wpool_sys::descriptor::take_inherited)
            .transpose()
    };
    inherited().map_err(failed("adopt", Path::new("the socket of LISTEN_FDS")))
}

/// Where a socket is bound.
fn path_of(socket: &OwnedFd) -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let address = rustix::net::getsockname(socket.as_fd()).ok();
    let address = address.and_then(|address| rustix::net::SocketAddrUnix::try_from(address).ok());
    let path = address.and_then(|address| {
        let path = address.path()?;
        Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
    });
    path.unwrap_or_else(|| "the socket of LISTEN_FDS".into())
}

/// Locks the directory, so that nobody else takes a place in it at the same time.
async fn lock(directory: &Path, path: &Path) -> Result<File, SocketError> {
    let file = File::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SocketError::NoDirectory {
            directory: directory.to_owned(),
        },
        _ => failed("open", directory)(error),
    })?;
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(SocketError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(failed("lock", directory)(errno)),
        }
    }
}

/// Removes a socket behind which nobody listens.
async fn make_room(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    let name = path
        .to_fs_name::<GenericFilePath>()
        .map_err(failed("name", path))?;
    let taken = || SocketError::Taken {
        path: path.to_owned(),
    };
    match tokio::time::timeout(CONNECT_PATIENCE, Stream::connect(name)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "a stale socket is replaced");
            fs::remove_file(path).map_err(failed("remove the stale socket", path))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Err(taken()),
        Ok(Err(error)) => Err(failed("connect to", path)(error)),
        // Somebody accepted, or is too busy to.
        Ok(Ok(_)) | Err(_) => Err(taken()),
    }
}

fn listen(path: &Path) -> Result<Listener, SocketError> {
    let name = path
        .to_fs_name::<GenericFilePath>()
        .map_err(failed("name", path))?;
    ListenerOptions::new()
        .name(name)
        // It is opened to a group only when it is theirs.
        .mode(0o600)
        // By path, it would remove a successor's socket.
        .reclaim_name(false)
        .create_tokio()
        .map_err(failed("listen at", path))
}

impl SocketGuard {
    fn new(path: &Path) -> Result<Self, SocketError> {
        let metadata = fs::symlink_metadata(path).map_err(failed("look at", path))?;
        Ok(Self {
            path: path.to_owned(),
            made: Some((metadata.dev(), metadata.ino())),
        })
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok();
        let now = now.map(|metadata| (metadata.dev(), metadata.ino()));
        if now.is_some()
            && now == self.made
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_live_daemon_is_left_alone_and_a_stale_socket_replaced() {
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let open = || ControlSocket::open(Some(path.clone()), None);
            let first = open().await.unwrap();
            assert_eq!(mode(&path), 0o600);
            let second = open().await.unwrap_err();
            assert!(matches!(second, SocketError::Taken { .. }), "{second}");
            // As if it had been killed: nobody listens, and the socket is still there.
            let ControlSocket {
                listener,
                mut guard,
                ..
            } = first;
            guard.made = None;
            drop((listener, guard));
            assert!(path.exists());
            let third = open().await.unwrap();
            drop(third);
            assert!(!path.exists(), "it was made here, and goes");
        });
    }

    #[test]
    fn of_many_that_start_together_one_gets_the_place() {
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "a stale one");
            let open = || ControlSocket::open(Some(path.clone()), None);
            let opened = tokio::join!(open(), open(), open(), open());
            let opened = [opened.0, opened.1, opened.2, opened.3];
            assert_eq!(opened.iter().filter(|socket| socket.is_ok()).count(), 1);
        });
    }

    #[test]
    fn what_is_no_socket_is_not_replaced_and_what_is_no_longer_ours_not_removed() {
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            fs::write(&path, "precious").unwrap();
            let error = ControlSocket::open(Some(path.clone()), None).await;
            assert!(matches!(error, Err(SocketError::NotASocket { .. })));
            assert_eq!(fs::read(&path).unwrap(), b"precious");
            fs::remove_file(&path).unwrap();
            let socket = ControlSocket::open(Some(path.clone()), None).await.unwrap();
            fs::rename(&path, dir.path().join("elsewhere")).unwrap();
            fs::write(&path, "a successor's").unwrap();
            drop(socket);
            assert!(path.exists());
        });
    }

    #[test]
    fn a_group_gets_the_socket_and_an_unknown_one_is_named() {
        block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let own = rustix::process::getegid().as_raw();
            let socket = ControlSocket::open(Some(path.clone()), Some(&own.to_string()))
                .await
                .unwrap();
            assert_eq!(mode(&path), 0o660);
            assert_eq!(socket.access.group, Some(own));
            let other = dir.path().join("other.sock");
            let error = ControlSocket::open(Some(other), Some("no-such-group")).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains("`no-such-group`"), "{error}");
        });
    }
}
