//! Subordinate ids (`subuid(5)`): ids that the administrator has given to an ordinary user, who maps them by the
//! programs `newuidmap` and `newgidmap`.
//!
//! # Invariants
//!
//! - One range, the same for users and groups by count, at most as long as the shorter of the two.
//! - The programs are started by their full path, with an empty environment, and waited for.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::{Block, IDS_PER_SLOT, IDS_PER_SUPERVISOR, NoIds};

/// Why there are none to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubordinateError {
    /// It takes some milliseconds, which this run does not have.
    #[error("a single run takes the user's own ids")]
    NotTried,
    /// The user has none.
    #[error(
        "{file} has no range for {user}: as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    )]
    NoRange {
        /// Where they would be.
        file: &'static str,
        /// Whose.
        user: String,
    },
    /// The program is not there.
    #[error("{0} is not there: install the package uidmap (shadow-utils on Fedora and Arch)")]
    NoProgram(&'static str),
    /// Nothing that is setuid root helps.
    #[error(
        "no_new_privs is set, under which newuidmap cannot work: give wpool CAP_SETUID and CAP_SETGID instead"
    )]
    NoNewPrivileges,
    /// The user is not known.
    #[error("uid {0} has no name in the user database")]
    NoName(u32),
}

const NEWUIDMAP: &str = "/usr/bin/newuidmap";
const NEWGIDMAP: &str = "/usr/bin/newgidmap";

/// The subordinate ids of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    first_uid: u32,
    first_gid: u32,
    count: u32,
}

impl Ranges {
    /// Those of the user who runs this.
    pub(super) fn of_this_user() -> Result<Self, SubordinateError> {
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let user = user.ok_or(SubordinateError::NoName(uid.as_raw()))?;
        let range = |file: &'static str| {
            let table = fs::read_to_string(file).unwrap_or_default();
            let none = || SubordinateError::NoRange {
                file,
                user: user.name.clone(),
            };
            range_of(&table, &user.name, uid.as_raw()).ok_or_else(none)
        };
        let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
        for program in [NEWUIDMAP, NEWGIDMAP] {
            if !Path::new(program).exists() {
                return Err(SubordinateError::NoProgram(program));
            }
        }
        if rustix::thread::no_new_privs().unwrap_or(false) {
            return Err(SubordinateError::NoNewPrivileges);
        }
        Ok(Self {
            first_uid: uids.0,
            first_gid: gids.0,
            count: uids.1.min(gids.1),
        })
    }

    /// A part of them that no other supervisor of this user holds.
    pub(super) fn claim(&self) -> Result<Block, NoIds> {
        let count = self.count.min(IDS_PER_SUPERVISOR) / IDS_PER_SLOT * IDS_PER_SLOT;
        let blocks = (0..self.count / count.max(1)).map(|number| self.first_uid + number * count);
        Block::first_free(blocks, count)?.ok_or(NoIds::Taken {
            first: self.first_uid,
        })
    }

    /// Maps this user to 0, and the ids of a block to 1 and up, in the user namespace of a process.
    pub(super) fn map(&self, pid: u32, first: u32, count: u32) -> io::Result<()> {
        let offset = first - self.first_uid;
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        call(NEWUIDMAP, pid, user, first, count)?;
        call(NEWGIDMAP, pid, group, self.first_gid + offset, count)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no child of a slot: a program of the host's that is waited for"
)]
fn call(program: &str, pid: u32, own: u32, first: u32, count: u32) -> io::Result<()> {
    let arguments = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
    let said = Command::new(program).args(arguments).env_clear().output()?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr);
    Err(io::Error::other(why.trim().to_owned()))
}

/// The largest range of `name` or `uid` in the text of `/etc/subuid` or `/etc/subgid`: (first, how many).
pub fn range_of(table: &str, name: &str, uid: u32) -> Option<(u32, u32)> {
    let uid = uid.to_string();
    let ranges = table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_usable =
            count >= IDS_PER_SLOT && first > 0 && u32::checked_add(first, count).is_some();
        (!owner.is_empty() && (owner == name || owner == uid) && is_usable)
            .then_some((first, count))
    });
    ranges.max_by_key(|&(_, count)| count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_or_uid() {
        let table = "ada:5:4\nada:100000:65536\n1001:165536:65536\n:5:5\nbert:x:y\nbert:0:10\nbert:7:1\nbert:4294967000:1000\n";
        assert_eq!(range_of(table, "ada", 1), Some((100_000, 65_536)));
        assert_eq!(range_of(table, "somebody", 1001), Some((165_536, 65_536)));
        assert_eq!(range_of(table, "bert", 7), None);
        assert_eq!(range_of(table, "", 7), None);
    }

    #[test]
    fn a_small_range_is_one_block_and_a_large_one_several() {
        let ranges = |first_uid, count| Ranges {
            first_uid,
            first_gid: first_uid,
            count,
        };
        // Names of the test's own.
        let small = ranges(3_200_000_000, 5).claim().unwrap();
        assert_eq!((small.first, small.count), (3_200_000_000, 4));
        let large = ranges(3_300_000_000, 65_536);
        let blocks = [(); 2].map(|()| large.claim().unwrap());
        assert_eq!(blocks[0].count, IDS_PER_SUPERVISOR);
        assert_eq!(blocks[1].first, 3_300_000_000 + IDS_PER_SUPERVISOR);
    }
}
