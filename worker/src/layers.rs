//! The layers of the sandbox by name: which stand, and what to say when one does not.
//!
//! # Invariants
//!
//! - A layer is reported as active only where its absence would have ended the worker or would end a
//!   job before it starts; Landlock and cgroups are looked at.

use std::error::Error;

use wpool_protocol::wire::{LayerReport, LayerState, Refused};
use wpool_sys::namespaces::Namespaces;

use crate::apply::StepError;
use crate::ground::Ground;
use crate::init::with_source;
use crate::landlock;
use crate::plan::Step;
use crate::seccomp::Accounting;

/// Every layer wpool knows, as it stands in this worker.
pub(crate) fn report(accounting: Accounting, ground: &Ground) -> Vec<LayerReport> {
    let namespaces = Namespaces::NAMED.into_iter().map(|(name, _)| name);
    let others = [
        "pivot_root",
        "capabilities",
        "no_new_privs",
        "seccomp",
        "rlimits",
    ];
    let missing = ground.missing();
    let known: Vec<&str> = namespaces.chain(others).collect();
    let stands = known.iter().map(|name| {
        let missing = missing.iter().find(|layer| layer.name == *name);
        missing.cloned().unwrap_or_else(|| active(name))
    });
    let mut layers: Vec<LayerReport> = stands.collect();
    // What goes by no name of a wall: part of one, or a limit.
    let parts = missing.iter();
    layers.extend(
        parts
            .filter(|layer| !known.contains(&&*layer.name))
            .cloned(),
    );
    layers.push(LayerReport {
        name: "landlock".to_owned(),
        state: landlock::state(),
    });
    layers.push(LayerReport {
        name: "cgroup_limits".to_owned(),
        state: match accounting {
            Accounting::Cgroup => LayerState::Active(String::new()),
            Accounting::Sampling => LayerState::Missing {
                reason: "no cgroup v2 controllers are delegated to wpool; memory and CPU are sampled".to_owned(),
                remedy: "run wpool as a systemd service with Delegate=yes, or by: systemd-run --user --scope -p Delegate=yes wpool …".to_owned(),
            },
        },
    });
    layers
}

fn active(name: &str) -> LayerReport {
    LayerReport {
        name: name.to_owned(),
        state: LayerState::Active(String::new()),
    }
}

/// A layer that could not be built by `what`.
pub(crate) fn refused(layer: &str, what: &str, error: &dyn Error) -> Refused {
    Refused {
        layer: layer.to_owned(),
        reason: format!("failed to {what}: {}", with_source(error)),
        remedy: "run `wpool doctor` and see what the host does not allow".to_owned(),
    }
}

/// A layer that could not be built for a step of the plan.
pub(crate) fn refused_step(error: &StepError) -> Refused {
    let (layer, remedy) = match &error.step {
        Step::MountProc { .. } => (
            "pid",
            "the kernel allows a new /proc only where an unmasked one is visible: in a container, run it with an unmasked /proc; in a systemd unit, add ProcSubset=pid where a directive masks /proc",
        ),
        Step::BringUpLoopback => (
            "net",
            "the new network namespace must allow CAP_NET_ADMIN inside; look for an LSM that restricts user namespaces",
        ),
        Step::SetHostname => (
            "uts",
            "in a systemd unit leave out ProtectHostname; else look for an LSM or a seccomp filter that restricts user namespaces",
        ),
        Step::ForbidUserNamespaces | Step::Set { .. } => (
            "user",
            "/proc/sys must be writable for the owner of the new user namespace",
        ),
        Step::MountMqueue { .. } => (
            "ipc",
            "the kernel needs POSIX message queues (CONFIG_POSIX_MQUEUE)",
        ),
        Step::AttachMount { .. } => (
            "mount",
            "a mount of a profile must lead to a place that is not inside a system directory, /proc, /dev or /box",
        ),
        Step::Protect { .. } => ("mount", "Linux 5.12 or later is needed (mount_setattr)"),
        Step::MakePrivate
        | Step::MountTmpfs { .. }
        | Step::MakeDirectory { .. }
        | Step::WriteFile { .. }
        | Step::CopyFile { .. }
        | Step::Link { .. }
        | Step::Bind { .. }
        | Step::AttachFiles { .. }
        | Step::MountPts { .. }
        | Step::Detach { .. }
        | Step::ChangeDirectory { .. }
        | Step::PivotRoot
        | Step::DetachOldRoot => (
            "mount",
            "user namespaces must be allowed to mount: on Ubuntu install the AppArmor profile from packaging/, in a container allow mount and pivot_root in its seccomp profile",
        ),
    };
    Refused {
        layer: layer.to_owned(),
        reason: with_source(error),
        remedy: remedy.to_owned(),
    }
}
