//! What is fresh for every job, laid into its profile's template, which then becomes its root.
//!
//! # Invariants
//!
//! - One tmpfs bears `/box`, `/tmp` and `/dev/shm`, so that one size and one count of inodes hold for all
//!   three together, and is gone with the job.
//! - `/proc` shows the job's own pid namespace; what tells of the machine or of others is masked before
//!   the job's process exists.

use wpool_sys::mount::{MountAttributes, Reach};

use wpool_sys::namespaces::Namespaces;

use super::Step;
use super::host::Layout;
use crate::ground::Ground;

/// The directories of a job's tmpfs, and where they appear.
pub const PLACES: [(&str, &str); 3] = [("box", "/box"), ("tmp", "/tmp"), ("shm", "/dev/shm")];

/// Bytes of a TCP connection's buffers: least, first, most. The kernel's own most are 6 to 32 MiB, for distances that
/// a loopback does not have, and all connections of the machine share one pool (`tcp_mem`).
const TCP: [(&str, &str); 2] = [
    ("tcp_rmem", "4096 131072 262144"),
    ("tcp_wmem", "4096 16384 262144"),
];

/// The steps of a job's init, for the template at `root`.
pub fn plan(layout: &Layout, root: &str, ground: &Ground) -> Vec<Step> {
    let mut steps = if ground.has(Namespaces::MOUNT) {
        fill(layout, root, ground)
    } else {
        Vec::new()
    };
    if ground.has(Namespaces::NET) {
        steps.push(Step::BringUpLoopback);
    }
    steps
}

/// Lays into the template what is fresh, and makes it the root.
fn fill(layout: &Layout, root: &str, ground: &Ground) -> Vec<Step> {
    let files = format!("{root}/mnt");
    let mut steps = vec![Step::AttachFiles { at: files.clone() }];
    steps.extend(PLACES.map(|(name, place)| Step::Bind {
        from: format!("{files}/{name}"),
        at: format!("{root}{place}"),
    }));
    steps.push(Step::Detach { at: files });
    if ground.has(Namespaces::PID) {
        steps.extend(proc(layout, root, ground));
    }
    if ground.has(Namespaces::IPC) {
        steps.push(Step::MountMqueue {
            at: format!("{root}/dev/mqueue"),
        });
    }
    steps.extend([
        Step::MountPts {
            at: format!("{root}/dev/pts"),
        },
        Step::ChangeDirectory {
            to: root.to_owned(),
        },
        Step::PivotRoot,
        Step::DetachOldRoot,
    ]);
    steps
}

/// The job's own processes, and nothing that tells of others.
fn proc(layout: &Layout, root: &str, ground: &Ground) -> Vec<Step> {
    let proc = format!("{root}/proc");
    let mut steps = vec![Step::MountProc { at: proc.clone() }];
    if ground.has(Namespaces::NET) {
        steps.extend(TCP.map(|(name, value)| Step::Set {
            at: format!("{proc}/sys/net/ipv4/{name}"),
            value,
        }));
    }
    steps.extend(layout.masked.iter().map(|name| Step::Bind {
        from: format!("{root}/dev/null"),
        at: format!("{proc}/{name}"),
    }));
    steps.extend([
        Step::Bind {
            from: format!("{proc}/sys"),
            at: format!("{proc}/sys"),
        },
        Step::Protect {
            at: format!("{proc}/sys"),
            attributes: MountAttributes::READ_ONLY,
            reach: Reach::Tree,
        },
    ]);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_a_job() {
        let layout = Layout {
            masked: vec!["kcore".into(), "keys".into()],
            ..Layout::default()
        };
        let steps = plan(&layout, "/profiles/0", &Ground::whole());
        let text = steps
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(
                "
",
            );
        insta::assert_snapshot!(text);
    }
}
