//! What to do, in words that can be pasted: where, and there what.
//!
//! # Invariants
//!
//! - What comes from the host (names, paths) is quoted as a shell wants it, or left out.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::facts::{Engine, Facts, Family, Manager, Unit};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// Where, or as whom.
    pub place: Cow<'static, str>,
    /// What to type or to write there.
    pub paste: Cow<'static, str>,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.paste)
    }
}

impl Remedy {
    /// Something to paste at a place.
    pub(crate) fn new(
        place: impl Into<Cow<'static, str>>,
        paste: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            place: place.into(),
            paste: paste.into(),
        }
    }

    /// A command of root's.
    pub(crate) fn as_root(paste: impl Into<Cow<'static, str>>) -> Self {
        Self::new("as root", paste)
    }
}

/// A sysctl, now and after the next boot.
pub(super) fn sysctl(facts: &Facts, name: &str, value: &str) -> Remedy {
    let place = match facts.container {
        Some(_) => "as root, on the host of the container",
        None => "as root",
    };
    let file = "/etc/sysctl.d/60-wpool.conf";
    Remedy::new(
        place,
        format!("echo {name}={value} >>{file} && sysctl -p {file}"),
    )
}

/// A parameter of the kernel's command line.
pub(super) fn kernel_parameter(facts: &Facts, parameter: &str) -> Remedy {
    if facts.wsl.is_some() {
        return Remedy::new(
            "in Windows, below [wsl2] in %UserProfile%\\.wslconfig, and then wsl --shutdown",
            format!("kernelCommandLine={parameter}"),
        );
    }
    if facts.container.is_some() {
        let place = "on the host of the container, on the kernel's command line";
        return Remedy::new(place, parameter.to_owned());
    }
    match facts.family {
        Family::Debian => Remedy::as_root(format!(
            "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {parameter}\"' >>/etc/default/grub.d/wpool.cfg && update-grub && reboot"
        )),
        Family::Fedora => Remedy::as_root(format!(
            "grubby --update-kernel=ALL --args='{parameter}' && reboot"
        )),
        Family::Other => Remedy::new("on the kernel's command line", parameter.to_owned()),
    }
}

/// Lines for the unit that wpool runs in.
pub(super) fn in_unit(unit: &Unit, lines: &str) -> Remedy {
    let name = quoted(&unit.name);
    let (place, folder, systemctl) = match unit.manager {
        Manager::System => ("as root", "/etc/systemd/system", "systemctl"),
        Manager::User => ("as this user", "~/.config/systemd/user", "systemctl --user"),
    };
    Remedy::new(
        place,
        format!(
            "mkdir -p {folder}/{name}.d && printf '[Service]\\n{lines}\\n' >{folder}/{name}.d/wpool.conf && {systemctl} daemon-reload && {systemctl} restart {name}"
        ),
    )
}

/// How the container around wpool is to be started, or what else has confined it.
pub(super) fn of_surroundings(facts: &Facts) -> Remedy {
    let needs = [
        ("seccomp", facts.is_filtered()),
        (
            "proc",
            facts.proc.as_ref().is_some_and(|proc| !proc.is_visible()),
        ),
        ("apparmor", facts.is_confined()),
    ];
    let needed = needs
        .into_iter()
        .filter(|(_, is_needed)| *is_needed)
        .map(|(name, _)| name);
    let options =
        |option: fn(&str) -> &'static str| needed.clone().map(option).collect::<Vec<_>>().join(" ");
    match (facts.container, &facts.unit) {
        (Some(Engine::Docker), _) => Remedy::new(
            "add to the options of docker run",
            options(|need| match need {
                "seccomp" => "--security-opt seccomp=unconfined",
                "proc" => "--security-opt systempaths=unconfined",
                _ => "--security-opt apparmor=unconfined",
            }),
        ),
        (Some(Engine::Podman), _) => Remedy::new(
            "add to the options of podman run",
            options(|need| match need {
                "seccomp" => "--security-opt seccomp=unconfined",
                "proc" => "--security-opt unmask=ALL",
                _ => "--security-opt apparmor=unconfined",
            }),
        ),
        (Some(Engine::Kubernetes), _) => Remedy::new(
            "in the pod's spec `hostUsers: false`, and in the container's securityContext",
            "{procMount: Unmasked, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}",
        ),
        (Some(Engine::Lxc), _) => Remedy::new(
            "on the host of the container, with its name there",
            "lxc config set NAME security.nesting=true && lxc restart NAME",
        ),
        (Some(Engine::Other), _) => Remedy::new(
            "where the container is set up",
            "no seccomp filter on clone3, mount and seccomp, and nothing mounted over /proc",
        ),
        (None, Some(unit)) => in_unit(
            unit,
            &options(|need| match need {
                "seccomp" => "RestrictNamespaces=no\\nSystemCallFilter=",
                "proc" => "ProcSubset=pid",
                _ => "AppArmorProfile=",
            })
            .replace(' ', "\\n"),
        ),
        (None, None) => Remedy::new(
            "start wpool outside of what confines it; what that is, its parents show",
            "pstree -aps $$",
        ),
    }
}

/// The profile by which `AppArmor` lets wpool make user namespaces: that of `packaging/apparmor/wpool`, for the program where it is.
pub(super) fn apparmor_profile(program: &Path) -> Remedy {
    let path = program.to_str().filter(|path| {
        // Other characters mean something in a profile, or in a shell.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
        path.starts_with('/') && path.chars().all(is_plain)
    });
    let Some(path) = path else {
        return Remedy::as_root(
            "install wpool as /usr/bin/wpool, and packaging/apparmor/wpool as /etc/apparmor.d/wpool; then apparmor_parser -r /etc/apparmor.d/wpool",
        );
    };
    Remedy::as_root(format!(
        "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile wpool {path} flags=(unconfined) {{\\n  userns,\\n}}\\n' >/etc/apparmor.d/wpool && apparmor_parser -r /etc/apparmor.d/wpool"
    ))
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@:,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}
