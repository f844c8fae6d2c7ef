//! Hosts that lack something a sandbox needs: a command is started so that it finds itself on one, and the machine is left as it is.
//!
//! ```text
//!   setpriv (where the host is an ordinary user's) ─▶ what takes the layer away ─▶ exec of the command
//! ```
//!
//! # Invariants
//!
//! - Nothing outlives the command: filters, namespaces and their mounts go with it.
//! - A command that does not end is ended, and exits with [`HUNG`].

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

use crate::wpool::{binary, program};

/// What a command exits with that has not ended in time.
pub const HUNG: i32 = 137;

/// Somebody with a name and without rights.
const NOBODY: &str = "65534";

/// How long a command has, seconds: no claim of speed.
const PATIENCE: &str = "60";

/// A system call, for a filter.
#[derive(Clone, Copy, Debug)]
pub struct Filtered {
    /// Its number.
    pub call: libc::c_long,
    /// What it answers.
    pub errno: Errno,
}

/// Lets a seccomp filter answer calls with an errno, and becomes a command: `NUMBER:ERRNO,… COMMAND…`.
const FILTER: &str = r#"
import ctypes, os, struct, sys
rules = [rule.split(":") for rule in sys.argv[1].split(",")]
code = [(0x20, 0, 0, 0)]
for number, errno in rules:
    code += [(0x15, 0, 1, int(number)), (0x06, 0, 0, 0x50000 | int(errno))]
code.append((0x06, 0, 0, 0x7fff0000))
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(text)))
for option, value in [(38, 1), (22, 2)]:
    pointer = ctypes.c_void_p(ctypes.addressof(program) if option == 22 else 0)
    if libc.prctl(option, value, pointer, 0, 0) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
"#;

/// A host.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    /// A filter answers calls, as in a container.
    Filter(&'a [Filtered]),
    /// No user namespace may be made: `user.max_user_namespaces` is 0. An ordinary user's.
    NoUserNamespaces,
    /// No namespace of this kind may be made: `user.max_NAME_namespaces` is 0. An ordinary user's.
    Without(&'a str),
    /// No namespace may be made at all, by an ordinary user without a capability.
    WithoutAny,
    /// Something is mounted over this place of `/proc`.
    MaskedProc(&'a str),
    /// The same, and a filter.
    MaskedProcAndFilter(&'a str, &'a [Filtered]),
    /// The same, and a whole `/proc` elsewhere.
    MaskedProcBesideWhole(&'a str),
    /// The root is a directory, not a mount.
    Chroot(&'a Path),
    /// An ordinary user's, with these files in the place of others.
    User(&'a [(&'a Path, &'a str)]),
}

impl Host<'_> {
    /// `wpool` with these arguments on this host.
    pub fn wpool(&self, arguments: &[&str]) -> Command {
        let wpool = binary().to_string_lossy().into_owned();
        let mut words: Vec<String> = ["timeout", "--signal=KILL", PATIENCE]
            .map(String::from)
            .into();
        words.extend(self.prefix(&wpool));
        words.push(match self {
            Self::Chroot(_) => "/wpool".to_owned(),
            _ => wpool,
        });
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let mut command = program(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(std::process::Stdio::null());
        command
    }

    /// What stands before the command.
    fn prefix(&self, wpool: &str) -> Vec<String> {
        let shell = |script: String| {
            ["sh", "-ec", &format!("{script}\nexec \"$@\""), "sh"].map(String::from)
        };
        match self {
            Self::Filter(rules) => {
                let rules = rules
                    .iter()
                    .map(|rule| format!("{}:{}", rule.call, rule.errno as i32));
                let rules = rules.collect::<Vec<_>>().join(",");
                ["python3", "-c", FILTER, &rules].map(String::from).into()
            }
            Self::NoUserNamespaces => Self::Without("user").prefix(wpool),
            Self::Without(name) => {
                let script = format!("echo 0 >/proc/sys/user/max_{name}_namespaces");
                [
                    user(),
                    words("unshare --user --map-root-user"),
                    shell(script).into(),
                ]
                .concat()
            }
            Self::WithoutAny => {
                let script = "echo 0 >/proc/sys/user/max_user_namespaces".to_owned();
                [
                    user(),
                    words("unshare --user --map-root-user"),
                    shell(script).into(),
                    words("setpriv --inh-caps=-all --bounding-set=-all"),
                ]
                .concat()
            }
            Self::MaskedProc(place) => [mounting(), shell(mask(place)).into()].concat(),
            Self::MaskedProcAndFilter(place, rules) => [
                Self::MaskedProc(place).prefix(wpool),
                Self::Filter(rules).prefix(wpool),
            ]
            .concat(),
            Self::MaskedProcBesideWhole(place) => {
                // Any place will do for it.
                let script = format!("{}\nmount -t proc proc /mnt", mask(place));
                [mounting(), shell(script).into()].concat()
            }
            Self::Chroot(directory) => {
                let root = directory.display();
                let script = format!(
                    "for name in usr bin lib lib64 etc dev proc sys; do
                        if [ -L /$name ]; then cp -P /$name {root}/$name
                        elif [ -d /$name ]; then mkdir {root}/$name; mount --rbind /$name {root}/$name; fi
                    done
                    mkdir {root}/tmp; touch {root}/wpool; mount --bind '{wpool}' {root}/wpool"
                );
                let chroot = ["chroot".to_owned(), root.to_string()];
                [mounting(), shell(script).into(), chroot.into()].concat()
            }
            Self::User(files) => {
                let bind = |(from, to): &(&Path, &str)| {
                    format!("mount --bind '{}' {to}\n", from.display())
                };
                let script: String = files.iter().map(bind).collect();
                match files {
                    [] => user(),
                    _ => [mounting(), shell(script).into(), user()].concat(),
                }
            }
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Covers a place of `/proc`.
fn mask(place: &str) -> String {
    if Path::new(place).is_dir() {
        format!("mount -t tmpfs none {place}")
    } else {
        format!("mount --bind /dev/null {place}")
    }
}

/// A mount namespace of one's own. Needs root.
fn mounting() -> Vec<String> {
    words("unshare --mount --propagation private")
}

/// Becomes an ordinary user, if this is none.
fn user() -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    words(&format!(
        "setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    ))
}

/// Whether an ordinary user can execute wpool where it is: a checkout may lie in a folder of root's own.
pub fn is_for_everybody() -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    let is_open = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005)
    };
    binary().ancestors().all(is_open)
}
