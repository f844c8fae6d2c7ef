//! Who is at the other end of a connection, and what they may do.
//!
//! # Invariants
//!
//! - It is decided from what the kernel says of the peer (`SO_PEERCRED`), once per connection, before anything is
//!   read from it. A peer of whom nothing is known may do nothing.

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::StreamCommon as _;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::request::{Caller, Role};

/// Who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whose daemon it is: they administer it, and root does.
    pub owner: u32,
    /// The group whose members may submit.
    pub group: Option<u32>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Their effective user id.
    pub uid: u32,
    /// Their effective group id.
    pub gid: u32,
}

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) caller: Caller,
}

impl Credentials {
    /// What the kernel says of the other end of a stream.
    pub fn of(stream: &Stream) -> Option<Self> {
        let creds = stream.peer_creds().ok()?;
        Some(Self {
            uid: creds.euid()?,
            gid: creds.egid()?,
        })
    }
}

impl Access {
    /// What somebody may do; `None` if nothing. May ask the user database, and wait for it.
    pub fn role(self, credentials: Credentials) -> Option<Role> {
        if self.administers(credentials) {
            return Some(Role::Admin);
        }
        let group = self.group?;
        let is_member =
            credentials.gid == group || groups(credentials).is_some_and(|it| it.contains(&group));
        is_member.then_some(Role::Submitter)
    }

    /// Whether somebody may do everything.
    pub fn administers(self, credentials: Credentials) -> bool {
        credentials.uid == 0 || credentials.uid == self.owner
    }
}

/// The groups of a user, by the database: the kernel tells only of the one that the process has.
fn groups(credentials: Credentials) -> Option<Vec<u32>> {
    let user = User::from_uid(Uid::from_raw(credentials.uid)).ok()??;
    let name = std::ffi::CString::new(user.name).ok()?;
    let groups = getgrouplist(&name, Gid::from_raw(credentials.gid)).ok()?;
    Some(groups.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_root_administer_the_group_submits_and_others_do_nothing() {
        let access = Access {
            owner: 1000,
            group: Some(50),
        };
        let of = |uid, gid| access.role(Credentials { uid, gid });
        assert_eq!(of(0, 0), Some(Role::Admin));
        assert_eq!(of(1000, 1000), Some(Role::Admin));
        assert_eq!(of(54_321, 50), Some(Role::Submitter));
        assert_eq!(of(54_321, 54_321), None);
        let private = Access {
            group: None,
            ..access
        };
        assert_eq!(
            private.role(Credentials {
                uid: 54_321,
                gid: 50
            }),
            None
        );
    }
}
