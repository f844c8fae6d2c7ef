//! Subordinate ids (`subuid(5)`): ids that the administrator has given to an ordinary user, who maps them by the
//! programs `newuidmap` and `newgidmap`.
//!
//! # Invariants
//!
//! - One range, the same for users and groups by count, at most as long as the shorter of the two.
//! - The programs are started by their full path, with an empty environment, and waited for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use nix::sys::statvfs::{FsFlags, statvfs};
use rustix::fs::getxattr;

use super::{Block, IDS_PER_SLOT, IDS_PER_SUPERVISOR, NoIds};
use crate::diagnosis::remedy::{Remedy, quoted};

/// Why there are none to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubordinateError {
    /// It takes some milliseconds, which this run does not have.
    #[error("a single run takes the user's own ids")]
    NotTried,
    /// The user has none.
    #[error("{file} has no range for {user}")]
    NoRange {
        /// Where they would be.
        file: &'static str,
        /// Whose.
        user: String,
        /// By which command there are some.
        command: String,
    },
    /// The user has too few for a single slot.
    #[error("{file} gives {user} {count} ids, fewer than the {IDS_PER_SLOT} of a slot")]
    TooShort {
        /// Where they are.
        file: &'static str,
        /// Whose.
        user: String,
        /// How many.
        count: u32,
        /// By which command there are some.
        command: String,
    },
    /// The program is not there.
    #[error("{0} is not there")]
    NoProgram(&'static str),
    /// The program is there, and cannot map anything.
    #[error(
        "{0} is not setuid root, has no capability, or lies on a file system that is mounted nosuid"
    )]
    Powerless(&'static str),
    /// Nothing that is setuid root helps.
    #[error("no_new_privs is set, under which newuidmap cannot work")]
    NoNewPrivileges,
    /// The user is not known.
    #[error("uid {0} has no name in the user database")]
    NoName(u32),
}

impl SubordinateError {
    /// What to do about it, where something should be done.
    pub fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::NotTried => return None,
            Self::NoRange { command, .. } | Self::TooShort { command, .. } => {
                Remedy::as_root(command.clone())
            }
            Self::NoProgram(_) => Remedy::new(
                "as root (on Fedora and Arch the package is shadow-utils)",
                "apt-get install uidmap",
            ),
            Self::Powerless(_) => Remedy::as_root(format!("chmod u+s {NEWUIDMAP} {NEWGIDMAP}")),
            Self::NoNewPrivileges => Remedy::new(
                "in the unit, instead of what newuidmap would do",
                "AmbientCapabilities=CAP_SETUID CAP_SETGID",
            ),
            Self::NoName(uid) => {
                Remedy::as_root(format!("useradd --uid {uid} --no-create-home wpool-{uid}"))
            }
        })
    }
}

const NEWUIDMAP: &str = "/usr/bin/newuidmap";
const NEWGIDMAP: &str = "/usr/bin/newgidmap";

/// Ids that a user is to be given where there are none: what `useradd` gives.
const GIVEN: u64 = 65_536;

/// The first that `useradd` gives.
const GIVEN_FROM: u64 = 100_000;

/// What decides on the subordinate ids of a user.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    uid: u32,
    name: Option<String>,
    /// The texts of `/etc/subuid` and `/etc/subgid`.
    tables: [String; 2],
    /// What `newuidmap` and `newgidmap` can do.
    programs: [Program; 2],
    no_new_privileges: bool,
}

/// A program that maps ids for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Absent,
    Powerless,
    Able,
}

impl Program {
    fn look(path: &str) -> Self {
        let Ok(metadata) = fs::metadata(path) else {
            return Self::Absent;
        };
        let is_setuid = metadata.uid() == 0 && metadata.mode() & 0o4000 != 0;
        let mut value = [0; 64];
        let has_capability = getxattr(path, "security.capability", &mut value).is_ok();
        let is_ignored =
            statvfs(path).is_ok_and(|mount| mount.flags().contains(FsFlags::ST_NOSUID));
        if (is_setuid || has_capability) && !is_ignored {
            Self::Able
        } else {
            Self::Powerless
        }
    }
}

const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

impl Holder {
    /// The user who runs this.
    fn of_this_process() -> Self {
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        Self {
            uid: uid.as_raw(),
            name: user.map(|user| user.name),
            tables: FILES.map(|file| {
                let bytes = fs::read(file).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }),
            programs: [NEWUIDMAP, NEWGIDMAP].map(Program::look),
            no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
        }
    }

    fn ranges(&self) -> Result<Ranges, SubordinateError> {
        let user = self
            .name
            .as_deref()
            .ok_or(SubordinateError::NoName(self.uid))?;
        let [uids, gids] = [0, 1].map(|index| self.range(index, user));
        let (uids, gids) = (uids?, gids?);
        for (path, program) in [NEWUIDMAP, NEWGIDMAP].into_iter().zip(self.programs) {
            match program {
                Program::Absent => return Err(SubordinateError::NoProgram(path)),
                Program::Powerless => return Err(SubordinateError::Powerless(path)),
                Program::Able => {}
            }
        }
        if self.no_new_privileges {
            return Err(SubordinateError::NoNewPrivileges);
        }
        Ok(Ranges {
            first_uid: uids.0,
            first_gid: gids.0,
            count: uids.1.min(gids.1),
        })
    }

    fn range(&self, index: usize, user: &str) -> Result<(u32, u32), SubordinateError> {
        let (table, file) = (&self.tables[index], FILES[index]);
        let found = range_of(table, user, self.uid);
        let command = || self.command(user);
        match found {
            Some((first, count)) if count >= IDS_PER_SLOT => Ok((first, count)),
            Some((_, count)) => Err(SubordinateError::TooShort {
                file,
                user: user.to_owned(),
                count,
                command: command(),
            }),
            None => Err(SubordinateError::NoRange {
                file,
                user: user.to_owned(),
                command: command(),
            }),
        }
    }

    /// The command that gives a user ids that nobody has, in the tables where there are none.
    fn command(&self, user: &str) -> String {
        let first = first_free(&self.tables);
        let last = first + GIVEN - 1;
        let options = self.tables.iter().zip(["--add-subuids", "--add-subgids"]);
        let missing = options.filter(|(table, _)| {
            let range = range_of(table, user, self.uid);
            range.is_none_or(|(_, count)| count < IDS_PER_SLOT)
        });
        let missing: Vec<_> = missing
            .map(|(_, option)| format!("{option} {first}-{last}"))
            .collect();
        format!("usermod {} {}", missing.join(" "), quoted(user))
    }
}

/// The first ids that no line of these tables gives to anybody.
fn first_free(tables: &[String]) -> u64 {
    let lines = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let (first, count) = line.trim().split_once(':')?.1.split_once(':')?;
            Some((first.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
        });
    let mut taken: Vec<_> = lines
        .map(|(first, count)| (u64::from(first), u64::from(count)))
        .collect();
    taken.sort_unstable();
    taken.into_iter().fold(GIVEN_FROM, |free, (first, count)| {
        if first >= free + GIVEN {
            free
        } else {
            free.max(first + count)
        }
    })
}

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
        Holder::of_this_process().ranges()
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
        let is_usable = count > 0 && first > 0 && u32::checked_add(first, count).is_some();
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
        assert_eq!(range_of(table, "bert", 7), Some((7, 1)));
        assert_eq!(range_of(table, "", 7), None);
    }

    fn holder(tables: [&str; 2]) -> Holder {
        Holder {
            uid: 1000,
            name: Some("ada".to_owned()),
            tables: tables.map(str::to_owned),
            programs: [Program::Able; 2],
            no_new_privileges: false,
        }
    }

    #[test]
    fn what_is_missing_is_given_from_what_nobody_has() {
        let refused = |holder: &Holder| {
            let refused = holder.ranges().unwrap_err();
            (
                refused.to_string(),
                refused.remedy().unwrap().paste.into_owned(),
            )
        };
        let bert = "bert:100000:65536\nada:7:1\nx\n:::\n";
        let both = "usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ada".to_owned();
        assert_eq!(
            refused(&holder([bert, ""])),
            (
                "/etc/subuid gives ada 1 ids, fewer than the 2 of a slot".to_owned(),
                both
            )
        );
        let groups = "usermod --add-subgids 300000-365535 ada".to_owned();
        assert_eq!(
            refused(&holder(["ada:100000:200000", "bert:99999:5"])),
            ("/etc/subgid has no range for ada".to_owned(), groups)
        );
        let odd = Holder {
            name: Some("a'b c".to_owned()),
            ..holder(["", "x:165536:9"])
        };
        let quoted = "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 'a'\\''b c'";
        assert_eq!(refused(&odd).1, quoted);
    }

    #[test]
    fn programs_that_cannot_map_are_told_from_those_that_are_not_there() {
        let whole = || holder(["ada:100000:65536"; 2]);
        assert!(whole().ranges().is_ok());
        let with = |programs| {
            Holder {
                programs,
                ..whole()
            }
            .ranges()
            .unwrap_err()
        };
        assert_eq!(
            with([Program::Able, Program::Absent]),
            SubordinateError::NoProgram(NEWGIDMAP)
        );
        assert_eq!(
            with([Program::Powerless, Program::Absent]),
            SubordinateError::Powerless(NEWUIDMAP)
        );
        let bound = Holder {
            no_new_privileges: true,
            ..whole()
        };
        assert_eq!(bound.ranges(), Err(SubordinateError::NoNewPrivileges));
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
