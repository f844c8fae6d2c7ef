//! Sandboxes with a layer less, in workers of the tests' own.
//!
//! A worker knows which by the number of its slot: it has an empty environment and no other arguments.

use wpool_sys::namespaces::Namespaces;
use wpool_worker::blueprint::{Alteration, Blueprint};
use wpool_worker::plan::job::PLACES;
use wpool_worker::plan::{Lockdown, Step};

/// The first slot whose number says what is missing.
const FIRST: u16 = 1_000;

/// Where all jobs of a worker have their files that have none of their own.
const STANDING: &str = "/standing";

/// What can be missing; its place is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// The system call filter.
    Filter,
    /// That, and what forbids further user namespaces.
    FilterAndNamespaceLimit,
    /// The job's own IPC namespace, the filter, Landlock, and the place where its init removes what message queues are left.
    Ipc,
    /// The job's own network namespace; it is in its worker's.
    Net,
    /// The job's own pid namespace; it is in its worker's.
    Pid,
    /// The job's own files: all jobs of a worker have the same.
    Files,
    /// What covers files of /proc.
    Masks,
    /// What leaves out of the root the parts of the host that no program needs.
    SmallRoot,
    /// All that a job does to itself but for its session and descriptors: it has every capability, and no filter.
    Lockdown,
    /// The same, and what makes mounts read-only.
    LockdownAndReadOnly,
    /// What makes mounts read-only, and takes set-user-id bits and devices from them; Landlock stays.
    MountFlags,
    /// The same, and Landlock.
    ReadOnly,
    /// Landlock; the flags of mounts stay.
    Landlock,
    /// The limits of resources.
    ResourceLimits,
    /// The session of its own.
    Session,
    /// The working directory of its own.
    Directory,
}

const ALL: [Removal; 16] = [
    Removal::Filter,
    Removal::FilterAndNamespaceLimit,
    Removal::Ipc,
    Removal::Net,
    Removal::Pid,
    Removal::Files,
    Removal::Masks,
    Removal::SmallRoot,
    Removal::Lockdown,
    Removal::LockdownAndReadOnly,
    Removal::MountFlags,
    Removal::ReadOnly,
    Removal::Landlock,
    Removal::ResourceLimits,
    Removal::Session,
    Removal::Directory,
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
                for steps in &mut whole.job {
                    steps.retain(|step| !matches!(step, Step::MountMqueue { .. }));
                }
                let whole = inside(whole, Namespaces::IPC);
                // Landlock knows queues by where they are mounted.
                without(whole, &[Lockdown::Landlock, Lockdown::Seccomp])
            },
            Self::Net => |mut whole| {
                // `lo` is up there already.
                for steps in &mut whole.job {
                    steps.retain(|step| !matches!(step, Step::BringUpLoopback));
                }
                inside(whole, Namespaces::NET)
            },
            Self::Pid => |whole| inside(whole, Namespaces::PID),
            Self::Files => with_standing_files,
            Self::Masks => |mut whole| {
                for steps in &mut whole.job {
                    steps.retain(
                        |step| !matches!(step, Step::Bind { from, .. } if from.ends_with("/dev/null")),
                    );
                }
                whole
            },
            Self::SmallRoot => with_more_of_the_host,
            Self::Lockdown => |whole| only(whole, &HARMLESS),
            Self::LockdownAndReadOnly => |whole| only(with_plain_mounts(whole), &HARMLESS),
            Self::MountFlags => with_plain_mounts,
            Self::ReadOnly => |whole| without(with_plain_mounts(whole), &[Lockdown::Landlock]),
            Self::Landlock => |whole| without(whole, &[Lockdown::Landlock]),
            Self::ResourceLimits => |whole| without(whole, &[Lockdown::ResourceLimits]),
            Self::Session => |whole| without(whole, &[Lockdown::Session]),
            Self::Directory => |whole| without(whole, &[Lockdown::Directory]),
        }
    }
}

/// What takes no rights from a job.
const HARMLESS: [Lockdown; 4] = [
    Lockdown::Session,
    Lockdown::Descriptors,
    Lockdown::Signals,
    Lockdown::Directory,
];

fn without(mut whole: Blueprint, steps: &[Lockdown]) -> Blueprint {
    whole.lockdown.retain(|step| !steps.contains(step));
    whole
}

fn only(mut whole: Blueprint, steps: &[Lockdown]) -> Blueprint {
    whole.lockdown.retain(|step| steps.contains(step));
    whole
}

/// Jobs are in their worker's namespace of this kind.
fn inside(mut whole: Blueprint, kind: Namespaces) -> Blueprint {
    whole.namespaces = whole.namespaces.without(kind);
    whole
}

fn with_plain_mounts(mut whole: Blueprint) -> Blueprint {
    for steps in whole.job.iter_mut().chain([&mut whole.worker]) {
        steps.retain(|step| !matches!(step, Step::Protect { .. }));
    }
    whole
}

fn with_standing_files(mut whole: Blueprint) -> Blueprint {
    let standing = STANDING.to_owned();
    // As large as the files of one job.
    let limits = wpool_protocol::limits::Limits::DEFAULT;
    whole.worker.extend([
        Step::MakeDirectory {
            at: standing.clone(),
            mode: 0o755,
        },
        Step::MountTmpfs {
            at: standing,
            size: limits.disk_bytes.0,
            inodes: limits.inodes(),
        },
    ]);
    whole
        .worker
        .extend(PLACES.map(|(name, _)| Step::MakeDirectory {
            at: format!("{STANDING}/{name}"),
            mode: 0o777,
        }));
    for step in whole.job.iter_mut().flatten() {
        if let Step::AttachFiles { at } = step {
            *step = Step::Bind {
                from: STANDING.to_owned(),
                at: at.clone(),
            };
        }
    }
    whole
}

fn with_more_of_the_host(mut whole: Blueprint) -> Blueprint {
    let after = |step: &Step, end: &str| match step {
        Step::MakeDirectory { at, .. } => at.strip_suffix(end).map(str::to_owned),
        _ => None,
    };
    let bind = |from: &str, root: &str| Step::Bind {
        from: from.to_owned(),
        at: format!("{root}{from}"),
    };
    whole.worker = whole
        .worker
        .into_iter()
        .flat_map(|step| {
            let mut steps = vec![step.clone()];
            if let Some(root) = after(&step, "/run") {
                steps.push(bind("/run", &root));
                steps.push(Step::MakeDirectory {
                    at: format!("{root}/sys"),
                    mode: 0o755,
                });
                steps.push(bind("/sys", &root));
            }
            if let Some(root) = after(&step, "/dev") {
                steps.push(Step::WriteFile {
                    at: format!("{root}/dev/console"),
                    text: String::new(),
                });
                // Any device of the host's: not all have a console.
                steps.push(Step::Bind {
                    from: "/dev/null".to_owned(),
                    at: format!("{root}/dev/console"),
                });
            }
            steps
        })
        .collect();
    whole
}

/// What a worker with this first argument (`slot=N`) makes of its sandbox.
pub(crate) fn of_worker(slot: Option<&str>) -> Alteration {
    let number = slot.and_then(|slot| slot.strip_prefix("slot=")?.parse::<u16>().ok());
    let place = number.and_then(|number| number.checked_sub(FIRST));
    let removal = place.and_then(|place| ALL.get(usize::from(place)));
    removal.map_or(|whole| whole, |removal| removal.alteration())
}
