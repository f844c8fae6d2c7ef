//! What of the host a job may see: looked at once, before any plan is made.
//!
//! Of `/etc` only what programs need to start, each with its reason; everything else of it, and all of
//! `/home`, `/root`, `/run`, `/srv` and `/var`, is absent.
//!
//! # Invariants
//!
//! - What is not there is left out; nothing is followed out of the lists below.

use std::fs;
use std::path::Path;

/// The system directories of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries of the root: `/usr`, and what stands beside it or is a link into it.
    pub system: Vec<(String, Entry)>,
    /// Files and directories of `/etc` that are shown.
    pub etc: Vec<(String, Entry)>,
    /// Files of `/proc` that tell of the machine or of others, and are masked.
    pub masked: Vec<String>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link, and what it says.
    Link(String),
}

/// The system directories. `/bin` and its like are links into `/usr` on most systems, and stay links.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What programs need of `/etc` to start.
const ETC: &[&str] = &[
    "alternatives", // Debian's cc, awk, java, editor are links through it
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies", // Fedora's OpenSSL reads it at start
    "debian_version",
    "fonts", // matplotlib, java
    "gai.conf",
    "host.conf",
    "inputrc",
    "java",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache", // the dynamic loader
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types", // python's mimetypes
    "networks",
    "octave",
    "os-release",
    "perl",
    "pki",       // Fedora's certificates
    "protocols", // getprotobyname
    "python3",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "R",
    "rpc",
    "services", // getservbyname
    "ssl",      // OpenSSL's config and certificates; its private/ is readable by root alone
    "system-release",
    "terminfo",
    "timezone",
    "vulkan",
];

/// What of `/proc` is covered with nothing: the machine's memory, keys, locks and symbols.
const MASKED: [&str; 12] = [
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "locks", // a channel between jobs: who holds which lock
    "modules",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
];

impl Layout {
    /// Looks at the host as this process sees it.
    pub fn look() -> Self {
        Self {
            system: SYSTEM.iter().filter_map(|name| entry("/", name)).collect(),
            etc: ETC.iter().filter_map(|name| entry("/etc", name)).collect(),
            masked: MASKED
                .iter()
                .filter(|name| Path::new("/proc").join(name).exists())
                .map(|name| (*name).to_owned())
                .collect(),
        }
    }
}

/// What `name` is in `directory`; `None` if it is not there or nothing that can be shown.
fn entry(directory: &str, name: &str) -> Option<(String, Entry)> {
    let path = Path::new(directory).join(name);
    let kind = fs::symlink_metadata(&path).ok()?.file_type();
    let entry = if kind.is_symlink() {
        Entry::Link(fs::read_link(&path).ok()?.to_str()?.to_owned())
    } else if kind.is_dir() {
        Entry::Directory
    } else if kind.is_file() {
        // What the user who runs wpool may not read, a job may not either.
        fs::File::open(&path).ok()?;
        Entry::File
    } else {
        return None;
    };
    Some((name.to_owned(), entry))
}
