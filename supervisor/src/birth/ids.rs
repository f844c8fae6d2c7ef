//! Whose ids jobs have on the host: two of their own for every slot, where that can be had, else those of who runs wpool.
//!
//! Where they can come from, the first that there is:
//!
//! - *root*, or any process with `CAP_SETUID` and `CAP_SETGID`: from [`FIRST_ID`] up, which nobody else is given;
//! - an ordinary user with *subordinate ids* (`subuid(5)`), which `newuidmap` maps.
//!
//! All but root put a [`Steward`] between themselves and their workers, which is made once, and give up the capabilities
//! then: what a supervisor cannot do any more nobody can make it do.
//!
//! # Invariants
//!
//! - No job has the host's id 0: the kernel limits no processes of that user (`RLIMIT_NPROC`; kernel: `is_rlimit_overlimit` spares
//!   `INIT_USER`), and files of the host would take it for root.
//! - Two supervisors in one network namespace never give out the same ids at one time: each holds a name that only one can have.
//! - Not root, and once [`Ids::claim`] has returned, this thread has no capability, and neither has what it starts.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{CapabilitySet, CapabilitySets};
use wpool_protocol::id::SlotId;
use wpool_protocol::outcome::Identity;
use wpool_protocol::wire::JOB_ID;
use wpool_sys::birth::IdMap;
use wpool_sys::steward::Steward;

use crate::config::{IdentityChoice, WORKERS_MAX};
use crate::diagnosis::remedy::Remedy;

pub mod subordinate;

use subordinate::SubordinateError;

/// The first id that jobs get where the supervisor may map any: above what systemd gives to containers and services
/// (524288 to 1879048191), below what is reserved from 2³¹ up.
pub const FIRST_ID: u32 = 0x7000_0000;

/// The first of those that supervisors which are not root take.
const FIRST_OF_SERVICES: u32 = 0x7800_0000;

/// One past the last of either.
const END: u32 = 0x8000_0000;

/// The id of an ordinary user, inside.
const ID_INSIDE: u32 = JOB_ID;

/// Ids of a slot: the worker's and the job's.
const IDS_PER_SLOT: u32 = 2;

/// Ids of a supervisor: for as many slots as it can have, and the one that stands in while others are recycled.
const IDS_PER_SUPERVISOR: u32 = (WORKERS_MAX as u32 + 1) * IDS_PER_SLOT;

/// Whether jobs are to have ids of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityPolicy {
    /// Where that can be had.
    Best,
    /// Where that costs nothing: what an ordinary user's `wpool run` cannot wait for is left out.
    Quick,
    /// They must.
    Own,
}

impl From<IdentityChoice> for IdentityPolicy {
    fn from(choice: IdentityChoice) -> Self {
        match choice {
            IdentityChoice::Own => Self::Own,
            IdentityChoice::Best => Self::Best,
        }
    }
}

/// Whose ids jobs have.
#[derive(Debug)]
pub struct Ids {
    source: Source,
    /// Why they are not their own, where that was tried.
    refused: Option<NoIds>,
}

#[derive(Debug)]
enum Source {
    Shared,
    /// Mapped by this process, which keeps the right to: it is root.
    Root(Block),
    Steward(Arc<Steward>, Block),
}

/// Ids that are this supervisor's as long as it lives.
#[derive(Debug)]
struct Block {
    first: u32,
    count: u32,
    _name: UnixListener,
}

/// Why jobs cannot have ids of their own, or what is wrong with those that they would have.
#[derive(Debug, thiserror::Error)]
pub enum NoIds {
    /// Root that may not give its jobs other ids.
    #[error(
        "root without CAP_SETUID and CAP_SETGID cannot give jobs ids of their own, and the kernel limits no processes of root's"
    )]
    RootWithoutIds,
    /// No capability, and no subordinate ids.
    #[error(transparent)]
    Subordinate(#[from] SubordinateError),
    /// All are somebody's.
    #[error("every block of ids from {first} up is held by another process")]
    Taken {
        /// The first.
        first: u32,
    },
    /// A slot beyond what there is.
    #[error(
        "there are {count} ids for slots, which take two each: give the user more subordinate ids, or have fewer workers"
    )]
    Few {
        /// How many.
        count: u32,
    },
    /// A block cannot be taken, and not because somebody has it.
    #[error("failed to take a block of ids (an abstract socket)")]
    Name(#[source] io::Error),
    /// The ids are not there: in a container they need not be.
    #[error("this user namespace has no ids from {FIRST_ID} up")]
    NotMapped,
    /// The namespace cannot be made.
    #[error("failed to make the user namespace of the pool's ids")]
    Steward(#[source] io::Error),
    /// They are still there.
    #[error("failed to give up the capabilities to change ids")]
    Capabilities(#[source] io::Error),
}

impl NoIds {
    /// What to do about it, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        Some(match self {
            Self::Subordinate(refused) => return refused.remedy(),
            Self::RootWithoutIds => Remedy::new(
                "start wpool as an ordinary user, or with both; in a container, by the options",
                "--cap-add SETUID --cap-add SETGID",
            ),
            Self::Taken { .. } => Remedy::new(
                "see by whom, and end those that are not needed",
                "grep wpool-ids- /proc/net/unix",
            ),
            Self::NotMapped => Remedy::new(
                "start wpool outside of the container, or the container without a map of ids of its own; with Docker, by the option",
                "--userns host",
            ),
            Self::Few { .. } | Self::Name(_) | Self::Steward(_) | Self::Capabilities(_) => {
                return None;
            }
        })
    }
}

/// Whether this process can open mounts for its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayMount {
    Yes,
    No,
}

impl Ids {
    /// Finds out whose ids jobs can have here, and makes sure of them. To be called before there are threads: what is given
    /// up is given up by the thread that calls.
    ///
    /// # Errors
    ///
    /// [`NoIds`] if they would be root's, or must be their own and cannot.
    pub fn claim(policy: IdentityPolicy) -> Result<Self, NoIds> {
        let refused = match Self::find(policy) {
            Ok(source) => {
                let refused = None;
                give_up_capabilities()?;
                return Ok(Self { source, refused });
            }
            Err(refused) => refused,
        };
        give_up_capabilities()?;
        match policy {
            _ if is_root_outside() => Err(refused),
            IdentityPolicy::Own => Err(refused),
            IdentityPolicy::Best | IdentityPolicy::Quick => Ok(Self {
                source: Source::Shared,
                refused: Some(refused),
            }),
        }
    }

    fn find(policy: IdentityPolicy) -> Result<Source, NoIds> {
        let is_root = rustix::process::geteuid().is_root();
        if may_map() {
            if !(has_range(&map("uid_map")) && has_range(&map("gid_map"))) {
                return Err(NoIds::NotMapped);
            }
            if is_root {
                return Block::claim(FIRST_ID, FIRST_OF_SERVICES).map(Source::Root);
            }
            let block = Block::claim(FIRST_OF_SERVICES, END)?;
            let steward = Steward::new(|pid| block.map_directly(pid)).map_err(NoIds::Steward)?;
            return Ok(Source::Steward(Arc::new(steward), block));
        }
        if is_root && is_whole(&map("uid_map")) {
            return Err(NoIds::RootWithoutIds);
        }
        if policy == IdentityPolicy::Quick {
            return Err(SubordinateError::NotTried.into());
        }
        let ranges = subordinate::Ranges::of_this_user()?;
        let block = ranges.claim()?;
        let steward = Steward::new(|pid| ranges.map(pid, block.first, block.count))
            .map_err(NoIds::Steward)?;
        Ok(Source::Steward(Arc::new(steward), block))
    }

    /// Whether jobs have ids of their own.
    pub const fn identity(&self) -> Identity {
        match self.source {
            Source::Shared => Identity::Shared,
            Source::Root(_) | Source::Steward(..) => Identity::Own,
        }
    }

    /// Why they have not, where it was tried.
    pub const fn refused(&self) -> Option<&NoIds> {
        self.refused.as_ref()
    }

    /// Where workers are born.
    pub(super) const fn steward(&self) -> Option<&Arc<Steward>> {
        match &self.source {
            Source::Steward(steward, _) => Some(steward),
            Source::Shared | Source::Root(_) => None,
        }
    }

    /// Whether this process can open mounts for its workers: in its own mount namespace only root can.
    pub(super) const fn may_mount(&self) -> MayMount {
        match &self.source {
            Source::Root(_) => MayMount::Yes,
            Source::Shared | Source::Steward(..) => MayMount::No,
        }
    }

    /// The ids of a slot, as they are called where its worker is born.
    ///
    /// # Errors
    ///
    /// [`NoIds::Few`] if there are no more: an ordinary user may have few.
    pub(super) fn of_slot(&self, slot: SlotId) -> Result<IdMap, NoIds> {
        let (block, zero) = match &self.source {
            Source::Shared => return Ok(IdMap::Single { inside: ID_INSIDE }),
            Source::Root(block) => (block, block.first),
            // Its own 0 is the supervisor's id.
            Source::Steward(_, block) => (block, 1),
        };
        let offset = u32::from(slot.0) * IDS_PER_SLOT;
        if offset + IDS_PER_SLOT > block.count {
            return Err(NoIds::Few { count: block.count });
        }
        Ok(IdMap::Pair {
            first: zero + offset,
            job: JOB_ID,
        })
    }
}

impl Block {
    /// The first block between these two that is nobody's.
    fn claim(first: u32, end: u32) -> Result<Self, NoIds> {
        let firsts =
            (first..end).step_by(usize::try_from(IDS_PER_SUPERVISOR).unwrap_or(usize::MAX));
        Self::first_free(firsts, IDS_PER_SUPERVISOR)?.ok_or(NoIds::Taken { first })
    }

    /// The first of these that is nobody's. Whoever has its name has the block: an abstract socket, which goes with the last
    /// descriptor of it, whatever ends its process.
    fn first_free(firsts: impl Iterator<Item = u32>, count: u32) -> Result<Option<Self>, NoIds> {
        for first in firsts {
            let name = format!("wpool-ids-{first}");
            let bound = SocketAddr::from_abstract_name(name)
                .and_then(|address| UnixListener::bind_addr(&address));
            match bound {
                Ok(name) => {
                    return Ok(Some(Self {
                        first,
                        count,
                        _name: name,
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(NoIds::Name(error)),
            }
        }
        Ok(None)
    }

    /// Maps it into the user namespace of a process, by right of capabilities.
    fn map_directly(&self, pid: u32) -> io::Result<()> {
        let write = |name: &str, own: u32| {
            let text = format!("0 {own} 1\n1 {} {}\n", self.first, self.count);
            fs::write(format!("/proc/{pid}/{name}"), text)
        };
        write("uid_map", rustix::process::geteuid().as_raw())?;
        write("gid_map", rustix::process::getegid().as_raw())
    }
}

/// Whether this process may map any ids: root, or a service with both capabilities.
fn may_map() -> bool {
    let wanted = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::thread::capabilities(None).is_ok_and(|held| held.effective.contains(wanted))
}

/// Gives up every capability for good, unless this is root: with them go the ambient ones (capabilities(7)).
fn give_up_capabilities() -> Result<(), NoIds> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let given_up = rustix::thread::set_no_new_privs(true)
        .and_then(|()| rustix::thread::set_capabilities(None, none));
    given_up.map_err(|error| NoIds::Capabilities(error.into()))
}

/// A line of a map of ids: from which on inside, from which on outside, how many.
type Line = (u64, u64, u64);

/// The ids that there are in our own user namespace.
fn map(name: &str) -> Vec<Line> {
    let text = fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
    parse(&text)
}

fn parse(text: &str) -> Vec<Line> {
    let lines = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some((inside.ok()?, outside.ok()?, count.ok()?))
    });
    lines.collect()
}

/// Whether all ids that may be given out are there.
fn has_range(map: &[Line]) -> bool {
    map.iter().any(|&(inside, _, count)| {
        inside <= u64::from(FIRST_ID) && u64::from(END) <= inside.saturating_add(count)
    })
}

/// Whether this is the map of the host itself: in any other namespace root may be somebody else outside.
fn is_whole(map: &[Line]) -> bool {
    map == [(0, 0, u64::from(u32::MAX))]
}

/// Whether whoever runs this is root outside of our own user namespace, as far as can be seen: then jobs must not have the same id.
fn is_root_outside() -> bool {
    let uid = rustix::process::geteuid().as_raw();
    is_root_by(&map("uid_map"), u64::from(uid))
}

/// An id that no line tells of is taken for root if it is called so inside.
fn is_root_by(map: &[Line], uid: u64) -> bool {
    let outside = map.iter().find_map(|&(inside, outside, count)| {
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        Some(outside.saturating_add(offset))
    });
    outside.unwrap_or(uid) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_there_on_the_host_and_not_in_a_small_container() {
        let host = parse("         0          0 4294967295\n");
        assert!(has_range(&host) && is_whole(&host));
        let container =
            parse("         0       1000          1\n         1     100000      65536\n");
        assert!(!has_range(&container) && !is_whole(&container));
        assert!(!has_range(&[]) && !is_whole(&[]));
    }

    #[test]
    fn root_is_known_by_what_it_is_outside() {
        for (text, uid, is_root) in [
            ("0 0 4294967295", 0, true),
            ("0 0 4294967295", 1000, false),
            ("0 0 1", 0, true),
            ("1000 0 1", 1000, true),
            ("0 1000 1", 0, false),
            ("0 100000 65536", 0, false),
            ("", 0, true),
            ("", 1000, false),
        ] {
            assert_eq!(is_root_by(&parse(text), uid), is_root, "{text} {uid}");
        }
    }

    #[test]
    fn blocks_of_ids_are_one_supervisors_as_long_as_it_lives() {
        // Names of the test's own.
        let firsts = || (3_000_000_000..3_000_000_004).step_by(2);
        let first = Block::first_free(firsts(), 2).unwrap().unwrap();
        let second = Block::first_free(firsts(), 2).unwrap().unwrap();
        assert_eq!((first.first, second.first), (3_000_000_000, 3_000_000_002));
        assert!(Block::first_free(firsts(), 2).unwrap().is_none());
        drop(first);
        let again = Block::first_free(firsts(), 2).unwrap().unwrap();
        assert_eq!(again.first, 3_000_000_000);
    }

    #[test]
    fn slots_have_different_ids_and_none_beyond_the_block() {
        let firsts = std::iter::once(3_100_000_000);
        let ids = Ids {
            source: Source::Root(Block::first_free(firsts, 6).unwrap().unwrap()),
            refused: None,
        };
        let first = |slot| match ids.of_slot(SlotId(slot)) {
            Ok(IdMap::Pair { first, .. }) => Some(first),
            Ok(IdMap::Single { .. } | IdMap::Same) | Err(_) => None,
        };
        let seen = [0, 1, 2, 3].map(first);
        assert_eq!(
            seen,
            [
                Some(3_100_000_000),
                Some(3_100_000_002),
                Some(3_100_000_004),
                None
            ]
        );
    }
}
