//! Calls that are answered otherwise where a namespace is missing: what it would have kept apart is refused instead.
//!
//! Which namespaces can be missing, and when, is told by [`crate::ground`].

use nix::errno::Errno;
use wpool_sys::namespaces::Namespaces;

use super::checked::{AF_INET, AF_INET6, AF_UNIX, EPERM, SOCK_DGRAM, SOCK_STREAM, SOCK_TYPE};
use super::{Answer, Call, Case, Group, Row, Rule, Test, calls};

const EACCES: Answer = Answer::Errno(Errno::EACCES);
const ENOSYS: Answer = Answer::Errno(Errno::ENOSYS);

/// A type of sockets that `checked` does not tell from others.
const SOCK_SEQPACKET: u32 = 5;
/// What makes an `int` negative.
const SIGN: u32 = 0x8000_0000;

/// Rows that stand in for those of the same calls.
pub(super) fn rows(lacks: Namespaces) -> Vec<Row> {
    let mut rows = Vec::new();
    if lacks.contains(Namespaces::PID) {
        rows.extend(refused(GROUP, Group::Processes, EPERM, STAYS_IN_ITS_GROUP));
        rows.push(KILL);
    }
    if lacks.contains(Namespaces::IPC) {
        rows.extend(refused(OBJECTS, Group::Ipc, ENOSYS, SHARED_OBJECTS));
    }
    if lacks.contains(Namespaces::NET) {
        rows.extend(refused(SOCKETS, Group::Sockets, EACCES, SHARED_NETWORK));
    } else if lacks.contains(Namespaces::MOUNT) {
        rows.push(SOCKET_WITHOUT_PATHS);
    }
    if lacks.contains(Namespaces::NET) || lacks.contains(Namespaces::MOUNT) {
        rows.push(SOCKETPAIR);
    }
    if lacks.contains(Namespaces::MOUNT) {
        rows.extend(refused(OWNERS, Group::Files, EPERM, SHARED_FILES));
    }
    rows
}

fn refused(
    calls: &'static [Call],
    group: Group,
    answer: Answer,
    reason: &'static str,
) -> impl Iterator<Item = Row> {
    calls.iter().map(move |call| Row {
        call: *call,
        group,
        rule: Rule::Always(answer),
        reason,
    })
}

const STAYS_IN_ITS_GROUP: &str = "without a pid namespace a job's processes are held together by their group, which nobody may leave";
const GROUP: &[Call] = calls![SYS_setsid SYS_setpgid];

const KILL: Row = Row {
    call: Call::new("SYS_kill", libc::SYS_kill),
    group: Group::Signals,
    rule: Rule::Check {
        cases: &[Case {
            when: &[Test::AnyBit {
                argument: 0,
                bits: SIGN,
            }],
            answer: EPERM,
        }],
        otherwise: Answer::Allow,
    },
    reason: "one process, or the job's own group as 0: without a pid namespace -1 and other groups are the host's",
};

const SHARED_OBJECTS: &str =
    "without an ipc namespace these belong to the machine, and stay for the next job";
const OBJECTS: &[Call] = calls![
    SYS_shmget SYS_shmat SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink
];

const SHARED_NETWORK: &str = "without a net namespace a socket is one of the machine's";
const SOCKETS: &[Call] = calls![SYS_socket SYS_connect];

const SOCKET_WITHOUT_PATHS: Row = Row {
    call: Call::new("SYS_socket", libc::SYS_socket),
    group: Group::Sockets,
    rule: Rule::Check {
        cases: &[
            Case {
                when: &[Test::is(0, &[AF_UNIX])],
                answer: EACCES,
            },
            Case {
                when: &[
                    Test::is(0, &[AF_INET, AF_INET6]),
                    Test::OneOf {
                        argument: 1,
                        mask: SOCK_TYPE,
                        values: &[SOCK_STREAM, SOCK_DGRAM],
                    },
                    Test::is(2, &[0, 6, 17]),
                ],
                answer: Answer::Allow,
            },
        ],
        otherwise: Answer::Errno(Errno::EAFNOSUPPORT),
    },
    reason: "TCP and UDP; without mounts of its own a local socket would reach the host's services",
};

const SOCKETPAIR: Row = Row {
    call: Call::new("SYS_socketpair", libc::SYS_socketpair),
    group: Group::Sockets,
    rule: Rule::Check {
        cases: &[Case {
            when: &[
                Test::is(0, &[AF_UNIX]),
                Test::OneOf {
                    argument: 1,
                    mask: SOCK_TYPE,
                    values: &[SOCK_STREAM, SOCK_SEQPACKET],
                },
            ],
            answer: Answer::Allow,
        }],
        otherwise: Answer::Errno(Errno::EAFNOSUPPORT),
    },
    reason: "pairs that are connected for good: a datagram socket could send to any path (unix_dgram_sendmsg)",
};

const SHARED_FILES: &str = "without mounts of its own a job would reach files of this user's, which Landlock keeps it from opening but not from giving away";
const OWNERS: &[Call] = calls![
    SYS_chown SYS_lchown SYS_fchownat SYS_setxattr SYS_lsetxattr SYS_removexattr SYS_lremovexattr
];
