//! What lies in a job's sockets: memory of the kernel's that belongs to no process.
//!
//! A socket that was written to and closed holds its bytes until they are read: one process with 200 descriptors
//! put 400 MiB away in 0.1 s so. All that a job's network namespace tells cheaply is how many sockets there
//! are, those included ([`SocketReader::count`]). Each holds [`SOCKET_BYTES_MAX`] at most, since a job cannot
//! have larger buffers. Where that bound is not good enough the kernel is asked for each by `sock_diag`(7)
//! ([`SocketReader::held`]); what it does not list (closed ones, other families) counts as full.
//!
//! # Invariants
//!
//! - The worker is in its own network namespace but for the making of one socket.
//! - A kernel without `sock_diag` lists nothing: then every socket counts as full.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What one socket holds at most, both ways: one more datagram than its buffer of 208 KiB (`wmem_default`), or what
/// [`crate::plan::job`] leaves to TCP.
pub(super) const SOCKET_BYTES_MAX: u64 = 512 << 10;

/// Sockets that are never looked at: an interpreter's own, the worker's, and the kernel's.
const FEW: u64 = 16;

/// Replies come in pieces of at most this.
const REPLY_LEN: usize = 32 << 10;

/// `SOCK_DIAG_BY_FAMILY`, and `NLM_F_REQUEST | NLM_F_DUMP`.
const BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER_LEN: usize = 16;

/// Reads what lies in the sockets of one network namespace.
#[derive(Debug)]
pub(super) struct SocketReader {
    /// `/proc/PID/net/sockstat`, kept open.
    counts: OwnedFd,
    theirs: OwnedFd,
    own: OwnedFd,
    diag: Option<OwnedFd>,
}

/// A family of sockets that is asked for.
struct Family {
    request: &'static [u8],
    /// Bytes of a reply before its attributes.
    reply_len: usize,
    /// The attribute that holds the memory of a socket.
    memory: u16,
}

/// `unix_diag_req`: all states, `UDIAG_SHOW_MEMINFO`, no cookie.
const UNIX: Family = Family {
    request: &[
        1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0x20, 0, 0, 0, 255, 255, 255, 255, 255, 255,
        255, 255,
    ],
    reply_len: 16,
    memory: 5,
};

/// `inet_diag_req_v2`: all states, `INET_DIAG_SKMEMINFO`, any socket.
const fn inet(request: &'static [u8; 56]) -> Family {
    Family {
        request,
        reply_len: 72,
        memory: 7,
    }
}

const fn inet_request(family: u8, protocol: u8) -> [u8; 56] {
    let mut request = [0; 56];
    let (head, _) = request.split_at_mut(8);
    head.copy_from_slice(&[family, protocol, 0x40, 0, 255, 255, 255, 255]);
    request
}

const FAMILIES: [Family; 5] = [
    UNIX,
    inet(&inet_request(2, 6)),
    inet(&inet_request(2, 17)),
    inet(&inet_request(10, 6)),
    inet(&inet_request(10, 17)),
];

impl SocketReader {
    /// For the namespace of the process `init` in `proc`; the caller's own is that of `own_pid`.
    pub(super) fn new(proc: BorrowedFd<'_>, init: u32, own_pid: u32) -> Result<Self, Errno> {
        let open = |path: String| {
            rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        Ok(Self {
            counts: open(format!("{init}/net/sockstat"))?,
            theirs: open(format!("{init}/ns/net"))?,
            own: open(format!("{own_pid}/ns/net"))?,
            diag: None,
        })
    }

    /// How many sockets there are, in whatever state.
    pub(super) fn count(&self) -> io::Result<u64> {
        let mut text = [0; 64];
        let len = rustix::io::pread(&self.counts, &mut text, 0)?;
        // "sockets: used 5", and more lines.
        let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
        let first = text.lines().next().unwrap_or_default();
        let count = first
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse().ok());
        count.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Bytes that lie in `count` sockets; of a few, none.
    pub(super) fn held(&mut self, count: u64) -> io::Result<u64> {
        if count <= FEW {
            return Ok(0);
        }
        let (mut listed, mut bytes) = (0, 0);
        for family in &FAMILIES {
            match self.ask(family, &mut listed, &mut bytes) {
                // Not in this kernel.
                Ok(()) | Err(Errno::NOENT | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let unlisted = count.saturating_sub(listed + FEW);
        Ok(bytes + unlisted * SOCKET_BYTES_MAX)
    }

    fn ask(&mut self, family: &Family, listed: &mut u64, bytes: &mut u64) -> Result<(), Errno> {
        let diag = match self.diag.take() {
            Some(diag) => diag,
            None => self.connect()?,
        };
        let asked = dump(diag.as_fd(), family, listed, bytes);
        // After an error there may be more to come, which would be taken for the next answer.
        self.diag = asked.is_ok().then_some(diag);
        asked
    }

    /// Makes a socket in the job's namespace.
    fn connect(&self) -> Result<OwnedFd, Errno> {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.theirs.as_fd(), network)?;
        let made = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        );
        move_into_link_name_space(self.own.as_fd(), network)?;
        made
    }
}

/// Asks for one family and adds up what is answered.
fn dump(
    diag: BorrowedFd<'_>,
    family: &Family,
    listed: &mut u64,
    bytes: &mut u64,
) -> Result<(), Errno> {
    let mut request = Vec::with_capacity(HEADER_LEN + family.request.len());
    let len = u32::try_from(HEADER_LEN + family.request.len()).unwrap_or(0);
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(family.request);
    rustix::net::send(diag, &request, SendFlags::empty())?;
    let mut reply = vec![0; REPLY_LEN];
    loop {
        let (len, _) = rustix::net::recv(diag, &mut reply[..], RecvFlags::empty())?;
        let mut rest = reply.get(..len).unwrap_or_default();
        while let Some((kind, body, after)) = message(rest) {
            rest = after;
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let errno = word(body, 0).unwrap_or(0).cast_signed().wrapping_neg();
                    return Err(Errno::from_raw_os_error(errno));
                }
                _ => {
                    *listed += 1;
                    *bytes += memory(body, family).unwrap_or(SOCKET_BYTES_MAX);
                }
            }
        }
    }
}

/// The first message of a reply: its kind, what it says, and what follows.
fn message(reply: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = usize::try_from(word(reply, 0)?).ok()?;
    let kind = half(reply, 4)?;
    let body = reply.get(HEADER_LEN..len)?;
    Some((
        kind,
        body,
        reply.get(len.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

/// What a socket holds, as `sk_get_meminfo` of the kernel tells it.
fn memory(body: &[u8], family: &Family) -> Option<u64> {
    let mut attributes = body.get(family.reply_len..)?;
    loop {
        let len = usize::from(half(attributes, 0)?);
        if half(attributes, 2)? == family.memory {
            let figures = attributes.get(4..len)?;
            let figure = |index: usize| word(figures, 4 * index).map(u64::from);
            // What came in; what goes out, counted when it is sent (0 to 2) or when it is queued (5).
            return Some(figure(0)? + figure(2)?.max(figure(5)?));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_lies_in_a_socket_is_seen() {
        let family = AddressFamily::NETLINK;
        let diag = rustix::net::socket(family, SocketType::RAW, Some(netlink::SOCK_DIAG)).unwrap();
        let held = || {
            let (mut listed, mut bytes) = (0, 0);
            for family in &FAMILIES {
                if dump(diag.as_fd(), family, &mut listed, &mut bytes).is_err() {
                    return None;
                }
            }
            Some((listed, bytes))
        };
        let Some((listed, before)) = held() else {
            println!("skipped: this kernel has no sock_diag");
            return;
        };
        assert!(before <= listed * (64 << 20));
        // Others on this machine have sockets, too: enough is written to stand out.
        let pairs: Vec<_> = (0..200).map(|_| UnixStream::pair().unwrap()).collect();
        for (one, _) in &pairs {
            one.set_nonblocking(true).unwrap();
            let mut one = one;
            while one.write(&[0; 8 << 10]).is_ok() {}
        }
        let (_, after) = held().unwrap();
        assert!(after >= before + (10 << 20), "{before}, then {after}");
        let proc = File::open("/proc").unwrap();
        let own = std::process::id();
        let reader = SocketReader::new(proc.as_fd(), own, own).unwrap();
        assert!(reader.count().unwrap() >= 400);
    }

    #[test]
    fn a_reply_that_is_cut_short_is_no_message() {
        assert!(message(&[]).is_none());
        assert!(message(&[200, 0, 0, 0, 20, 0, 0, 0]).is_none());
        assert_eq!(memory(&[0; 16], &UNIX), None);
        assert_eq!(memory(&[0; 20], &UNIX), None);
    }
}
