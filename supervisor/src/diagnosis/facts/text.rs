//! What the files of a host say.
//!
//! # Invariants
//!
//! - Any text gives an answer: what is not understood is left out.

use super::{Engine, Family, IdSpace, Manager, Proc, Root, Unit, Wsl};

/// Places of `/proc` that hold nothing of their own, so that what lies over them hides nothing (kernel: `is_empty_dir_inode`).
const EMPTY_PLACES: [&str; 3] = ["/sys/fs/binfmt_misc", "/fs/nfsd", "/openprom"];

/// Masks that are named; there can be many.
const MASKS_MAX: usize = 4;

/// The sysctl that limits a kind of namespace.
pub(super) fn limit_path(name: &str) -> String {
    let name = if name == "mount" { "mnt" } else { name };
    format!("/proc/sys/user/max_{name}_namespaces")
}

/// The first two numbers of a kernel's release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A number of `/proc/self/status`.
pub(super) fn field(status: &str, name: &str, radix: u32) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(value.trim(), radix).ok()
}

/// What a map of ids covers.
pub(super) fn id_space(map: Option<&str>) -> IdSpace {
    let Some(map) = map else {
        return IdSpace::Unknown;
    };
    let numbers: Vec<_> = map.split_whitespace().map(str::parse::<u32>).collect();
    match numbers[..] {
        [Ok(0), Ok(0), Ok(u32::MAX)] => IdSpace::Whole,
        _ => IdSpace::Part,
    }
}

/// Which distribution wrote `/etc/os-release`.
pub(super) fn family(os_release: &str) -> Family {
    let named = |word: &str| {
        os_release.lines().any(|line| {
            let value = line
                .strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="));
            let mut words = value.unwrap_or_default().split(['"', '\'', ' ']);
            words.any(|found| found == word)
        })
    };
    if ["debian", "ubuntu"].into_iter().any(named) {
        Family::Debian
    } else if ["fedora", "rhel"].into_iter().any(named) {
        Family::Fedora
    } else {
        Family::Other
    }
}

/// Windows' kernels say so: `5.15.167.4-microsoft-standard-WSL2`, `4.4.0-19041-Microsoft`.
pub(super) fn wsl(release: &str) -> Option<Wsl> {
    let is_old = release.contains("-Microsoft");
    let is_new = release.contains("microsoft-standard") || release.contains("WSL2");
    match (is_old, is_new) {
        (_, true) => Some(Wsl::Two),
        (true, false) => Some(Wsl::One),
        (false, false) => None,
    }
}

/// What container this is, by the marks that engines leave.
pub(super) fn container(read: &dyn Fn(&str) -> Option<String>) -> Option<Engine> {
    if read("/var/run/secrets/kubernetes.io/serviceaccount/namespace").is_some() {
        return Some(Engine::Kubernetes);
    }
    if read("/run/.containerenv").is_some() {
        return Some(Engine::Podman);
    }
    if read("/.dockerenv").is_some() {
        return Some(Engine::Docker);
    }
    // systemd's own note, and what it makes it of (the container interface of systemd.io).
    let environment = read("/proc/1/environ").unwrap_or_default();
    let said = environment
        .split('\0')
        .find_map(|line| line.strip_prefix("container="));
    let noted = read("/run/systemd/container");
    match noted.as_deref().map(str::trim).or(said)? {
        "" | "wsl" => None,
        "docker" => Some(Engine::Docker),
        "podman" => Some(Engine::Podman),
        "lxc" | "lxc-libvirt" => Some(Engine::Lxc),
        _ => Some(Engine::Other),
    }
}

/// The service whose cgroup this process is in: of the v2 hierarchy, or of systemd's own.
pub(super) fn unit(cgroup: &str) -> Option<Unit> {
    let path = cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix("name=systemd:")
            .or_else(|| rest.strip_prefix(':'))
    })?;
    let names = path.trim().rsplit('/').filter(|name| is_unit(name));
    let name = names.clone().next()?;
    // A scope is no service, though it is in one.
    let below = path.trim().rsplit('/').take_while(|found| *found != name);
    let is_scope = below
        .filter_map(|name| name.rsplit_once('.'))
        .any(|(_, kind)| kind == "scope");
    let is_manager = name.starts_with("user@");
    let is_users = names.skip(1).any(|name| name.starts_with("user@"));
    (!is_scope && !is_manager).then(|| Unit {
        name: name.to_owned(),
        manager: if is_users {
            Manager::User
        } else {
            Manager::System
        },
    })
}

fn is_unit(name: &str) -> bool {
    let parts = name.rsplit_once('.');
    parts.is_some_and(|(name, kind)| !name.is_empty() && kind == "service")
}

/// What a security module calls this process; a module that is off says nothing.
pub(super) fn label(text: &str) -> Option<String> {
    let label = text.trim_end_matches(['\0', '\n']).trim();
    (!label.is_empty()).then(|| label.to_owned())
}

/// A mount of `/proc/self/mountinfo` (proc(5)).
struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    root: &'a str,
    point: &'a str,
    options: &'a str,
    file_system: &'a str,
    super_options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> + Clone {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (id, parent) = (fields.next()?, fields.next()?);
        let _device = fields.next()?;
        let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let file_system = fields.next()?;
        let _source = fields.next();
        Some(Mount {
            id,
            parent,
            root,
            point,
            options,
            file_system,
            super_options: fields.next().unwrap_or_default(),
        })
    })
}

/// The best `/proc` of a mount namespace.
pub(super) fn proc(mountinfo: &str) -> Proc {
    let mounts = mounts(mountinfo);
    let mut best = Proc::Absent;
    for mount in mounts.clone() {
        if mount.file_system != "proc" || mount.root != "/" {
            continue;
        }
        let is_read_only = [mount.options, mount.super_options]
            .iter()
            .any(|options| options.split(',').any(|option| option == "ro"));
        let over = mounts.clone().filter(|over| over.parent == mount.id);
        let masks = over.filter_map(|over| {
            let place = over.point.strip_prefix(mount.point)?;
            (!EMPTY_PLACES.contains(&place)).then(|| over.point.to_owned())
        });
        let mut masks: Vec<String> = masks.collect();
        masks.sort();
        masks.dedup();
        masks.truncate(MASKS_MAX);
        match (masks.is_empty(), is_read_only) {
            (true, false) => return Proc::Visible,
            (false, _) => best = Proc::Masked(masks),
            (true, true) => best = Proc::ReadOnly,
        }
    }
    best
}

/// Where the root is: of a mount the table tells, of a directory in one it cannot.
pub(super) fn root(mountinfo: &str) -> Root {
    let mut mounts = mounts(mountinfo).peekable();
    if mounts.peek().is_none() || mounts.any(|mount| mount.point == "/") {
        Root::Mount
    } else {
        Root::Directory
    }
}

#[cfg(test)]
mod tests;
