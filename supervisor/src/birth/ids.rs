//! Whose ids jobs have on the host: a range of their own for every slot, where it may be mapped, else those of who runs wpool.
//!
//! # Invariants
//!
//! - No job has the host's id 0: the kernel limits no processes of that user (`RLIMIT_NPROC`; kernel: `is_rlimit_overlimit` spares
//!   `INIT_USER`), and files of the host would take it for root.

use std::fs;

use wpool_protocol::id::SlotId;
use wpool_protocol::outcome::Identity;
use wpool_sys::birth::IdMap;

use crate::config::WORKERS_MAX;

/// The first id of the range that jobs get where the supervisor may map ids: above what systemd gives to
/// containers and services (524288 to 1879048191), below what is reserved from 2³¹ up.
pub const FIRST_ID: u32 = 0x7000_0000;

/// Ids of one slot: as many as a user namespace usually has.
pub const IDS_PER_SLOT: u32 = 1 << 16;

/// The id of an ordinary user, inside.
const ID_INSIDE: u32 = 1000;

/// Slots whose ranges fit between [`FIRST_ID`] and 2³¹.
const MAPPED_SLOTS: u16 = 4_096;

const _: () = assert!(WORKERS_MAX < MAPPED_SLOTS);
const _: () = assert!(FIRST_ID + MAPPED_SLOTS as u32 * IDS_PER_SLOT <= 1 << 31);

/// Root that may not give its jobs other ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "root without CAP_SETUID and CAP_SETGID cannot give jobs ids of their own, and the kernel limits no processes of root's: \
     give wpool both capabilities, or run it as an ordinary user"
)]
pub struct RootWithoutIds;

/// Whose ids jobs can have here.
///
/// # Errors
///
/// [`RootWithoutIds`] if they would be root's.
pub fn identity() -> Result<Identity, RootWithoutIds> {
    let (uids, gids) = (map("uid_map"), map("gid_map"));
    if may_map() && has_range(&uids) && has_range(&gids) {
        Ok(Identity::Own)
    } else if rustix::process::geteuid().is_root() && is_whole(&uids) {
        Err(RootWithoutIds)
    } else {
        Ok(Identity::Shared)
    }
}

/// The ids of a slot.
pub(super) fn of_slot(identity: Identity, slot: SlotId) -> IdMap {
    match identity {
        Identity::Own => IdMap::Range {
            first: FIRST_ID + u32::from(slot.0 % MAPPED_SLOTS) * IDS_PER_SLOT,
            count: IDS_PER_SLOT,
        },
        Identity::Shared => IdMap::Single { inside: ID_INSIDE },
    }
}

/// Whether this process may map ranges of ids: root, or a service with both capabilities.
fn may_map() -> bool {
    use rustix::thread::CapabilitySet as Set;

    rustix::thread::capabilities(None)
        .is_ok_and(|held| held.effective.contains(Set::SETUID | Set::SETGID))
}

/// The ids that there are in our own user namespace: (first, how many), of one line each.
fn map(name: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    parse(&text)
}

fn parse(text: &str) -> Vec<(u64, u64)> {
    let lines = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (inside, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some((inside.ok()?, count.ok()?))
    });
    lines.collect()
}

/// Whether all slots' ranges are there: in a container they need not be.
fn has_range(map: &[(u64, u64)]) -> bool {
    let first = u64::from(FIRST_ID);
    let end = first + u64::from(MAPPED_SLOTS) * u64::from(IDS_PER_SLOT);
    map.iter()
        .any(|&(inside, count)| inside <= first && end <= inside.saturating_add(count))
}

/// Whether this is the map of the host itself: in any other namespace root is somebody else outside.
fn is_whole(map: &[(u64, u64)]) -> bool {
    map == [(0, u64::from(u32::MAX))]
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
    fn slots_have_different_ids() {
        let first = |slot| match of_slot(Identity::Own, SlotId(slot)) {
            IdMap::Range { first, count } => (first, first + count),
            IdMap::Single { inside } => panic!("{inside}"),
        };
        assert_eq!(first(0).1, first(1).0);
        assert_eq!(first(0).0, FIRST_ID);
    }
}
