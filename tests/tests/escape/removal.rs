//! Sandboxes with a layer less, in workers of the tests' own.
//!
//! A worker knows which by the number of its slot: it has an empty environment and no other arguments.

use wpool_sys::namespaces::Namespaces;
use wpool_worker::blueprint::{Alteration, Blueprint};
use wpool_worker::plan::{Lockdown, Step};

/// The first slot whose number says what is missing.
const FIRST: u16 = 1_000;

/// What can be missing; its place is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The system call filter.
    Filter,
    /// That, and what forbids further user namespaces.
    FilterAndNamespaceLimit,
    /// The job's own IPC namespace; it is in its worker's.
    Ipc,
    /// The job's own network namespace; it is in its worker's.
    Net,
    /// What covers files of /proc.
    Masks,
    /// All that a job does to itself but for its session and descriptors: it is root inside, with every capability.
    Lockdown,
    /// What makes mounts read-only, and Landlock.
    ReadOnly,
    /// Landlock.
    Landlock,
    /// The limits of resources.
    ResourceLimits,
}

const ALL: [Removal; 9] = [
    Removal::Filter,
    Removal::FilterAndNamespaceLimit,
    Removal::Ipc,
    Removal::Net,
    Removal::Masks,
    Removal::Lockdown,
    Removal::ReadOnly,
    Removal::Landlock,
    Removal::ResourceLimits,
];

impl Removal {
    /// The slot whose worker lacks it.
    pub(crate) fn slot(self) -> u16 {
        let place = (0u16..).zip(ALL).find(|(_, one)| *one == self);
        FIRST + place.map_or(0, |(place, _)| place)
    }

    const fn alteration(self) -> Alteration {
        match self {
            Self::Filter => |whole| without(whole, &[Lockdown::Seccomp]),
            Self::FilterAndNamespaceLimit => |mut whole| {
                whole
                    .worker
                    .retain(|step| *step != Step::ForbidUserNamespaces);
                without(whole, &[Lockdown::Seccomp])
            },
            Self::Ipc => |mut whole| {
                whole.namespaces = whole.namespaces.without(Namespaces::IPC);
                whole
            },
            Self::Net => |mut whole| {
                whole.namespaces = whole.namespaces.without(Namespaces::NET);
                // `lo` is up there, and belongs to nobody of the job's.
                for steps in &mut whole.job {
                    steps.retain(|step| !matches!(step, Step::BringUpLoopback));
                }
                whole
            },
            Self::Masks => |mut whole| {
                for steps in &mut whole.job {
                    steps.retain(
                        |step| !matches!(step, Step::Bind { from, .. } if from.ends_with("/dev/null")),
                    );
                }
                whole
            },
            Self::Lockdown => |mut whole| {
                whole.lockdown = vec![
                    Lockdown::Session,
                    Lockdown::Descriptors,
                    Lockdown::Signals,
                    Lockdown::Directory,
                ];
                whole
            },
            Self::ReadOnly => |mut whole| {
                whole
                    .worker
                    .retain(|step| !matches!(step, Step::Protect { .. }));
                without(whole, &[Lockdown::Landlock])
            },
            Self::Landlock => |whole| without(whole, &[Lockdown::Landlock]),
            Self::ResourceLimits => |whole| without(whole, &[Lockdown::ResourceLimits]),
        }
    }
}

fn without(mut whole: Blueprint, steps: &[Lockdown]) -> Blueprint {
    whole.lockdown.retain(|step| !steps.contains(step));
    whole
}

/// What a worker with this first argument (`slot=N`) makes of its sandbox.
pub(crate) fn of_worker(slot: Option<&str>) -> Alteration {
    let number = slot.and_then(|slot| slot.strip_prefix("slot=")?.parse::<u16>().ok());
    let place = number.and_then(|number| number.checked_sub(FIRST));
    let removal = place.and_then(|place| ALL.get(usize::from(place)));
    removal.map_or(|whole| whole, |removal| removal.alteration())
}
