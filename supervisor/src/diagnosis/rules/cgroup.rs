//! Limits that are not the kernel's, because no cgroup is wpool's to divide.

use crate::cgroup::Unavailable;
use crate::diagnosis::Finding;
use crate::diagnosis::facts::{Engine, Facts, Init, Manager};
use crate::diagnosis::remedy::{self, Remedy};

/// What limits need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

pub(super) fn missing(facts: &Facts) -> Option<Finding> {
    let unavailable = facts.cgroup.as_ref()?;
    let reason = format!("{unavailable}: memory, processes and CPU of jobs are sampled");
    Some(Finding::certain(
        "cgroup_limits",
        reason,
        remedy(facts, unavailable),
    ))
}

fn remedy(facts: &Facts, unavailable: &Unavailable) -> Remedy {
    match unavailable {
        Unavailable::Version1 | Unavailable::Hybrid if facts.wsl.is_some() => {
            remedy::kernel_parameter(facts, "cgroup_no_v1=all")
        }
        Unavailable::Version1 | Unavailable::Hybrid => {
            let parameter = match facts.init {
                Init::Systemd(_) => "systemd.unified_cgroup_hierarchy=1",
                Init::Other => "cgroup_no_v1=all",
            };
            remedy::kernel_parameter(facts, parameter)
        }
        _ if facts.container.is_some() => of_container(facts),
        Unavailable::NotMounted => Remedy::as_root("mount -t cgroup2 none /sys/fs/cgroup"),
        Unavailable::Outside { .. } => Remedy::new(
            "start wpool where /sys/fs/cgroup shows its own cgroup; as root",
            "unshare --mount --cgroup sh -c 'mount -t cgroup2 none /sys/fs/cgroup && exec wpool serve'",
        ),
        Unavailable::Controllers { missing, .. } => controllers(facts, missing),
        Unavailable::NotDelegated { .. } | Unavailable::NotAlone { .. } => delegation(facts),
        Unavailable::Failed(_) => match &facts.unit {
            Some(unit) => remedy::in_unit(unit, "Delegate=yes\\nProtectControlGroups=no"),
            None => delegation(facts),
        },
    }
}

/// A cgroup of one's own.
fn delegation(facts: &Facts) -> Remedy {
    if let Some(unit) = &facts.unit {
        return remedy::in_unit(unit, "Delegate=yes");
    }
    match facts.init {
        Init::Systemd(_) if facts.uid == 0 => Remedy::new(
            "install packaging/wpool.service, or",
            "systemd-run --scope -p Delegate=yes wpool serve",
        ),
        Init::Systemd(Some(Manager::User)) => Remedy::new(
            "install packaging/wpool.service, or",
            "systemd-run --user --scope -p Delegate=yes wpool serve",
        ),
        // Without a session there is no manager to ask.
        Init::Systemd(_) => Remedy::new(
            format!("as root `loginctl enable-linger {}`, and then", facts.uid),
            format!(
                "XDG_RUNTIME_DIR=/run/user/{} systemd-run --user --scope -p Delegate=yes wpool serve",
                facts.uid
            ),
        ),
        Init::Other => Remedy::as_root(
            "cd /sys/fs/cgroup && echo '+memory +pids +cpu' >cgroup.subtree_control && mkdir wpool && setfattr -n user.delegate -v 1 wpool && echo $$ >wpool/cgroup.procs && exec wpool serve",
        ),
    }
}

/// Controllers that are there and not passed on, or not there at all.
fn controllers(facts: &Facts, missing: &[&str]) -> Remedy {
    let root = facts.controllers.iter().flatten();
    let is_offered = |name: &&&str| root.clone().any(|offered| offered == **name);
    if !missing.iter().all(|name| is_offered(&name)) && facts.controllers.is_some() {
        return remedy::kernel_parameter(facts, "cgroup_enable=memory");
    }
    match &facts.unit {
        Some(unit) => remedy::in_unit(unit, "Delegate=yes"),
        None => Remedy::as_root(format!(
            "mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate={}\\n' >/etc/systemd/system/user@.service.d/wpool.conf && systemctl daemon-reload; then log in again",
            CONTROLLERS.join(" ")
        )),
    }
}

/// Engines give no container a cgroup that it can write to, unless they are told to.
fn of_container(facts: &Facts) -> Remedy {
    match facts.container {
        Some(Engine::Podman) => Remedy::new(
            "add to the options of podman run",
            "--cgroupns=private --security-opt unmask=ALL",
        ),
        Some(Engine::Docker) => Remedy::new(
            "add to the options of docker run (which trusts the container, and so wpool, with the machine)",
            "--cgroupns=private --privileged",
        ),
        Some(_) | None => Remedy::new(
            "where the container is set up",
            "a cgroup namespace of its own, and /sys/fs/cgroup writable",
        ),
    }
}
