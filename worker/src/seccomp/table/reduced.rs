//! Calls that are answered otherwise where a namespace is missing: what it would have kept apart is refused instead.
//!
//! Which namespaces can be missing, and when, is told by [`crate::ground`].

use nix::errno::Errno;
use wpool_sys::namespaces::Namespaces;

use super::checked::{AF_UNIX, EPERM, SOCK_STREAM, SOCK_TYPE, TCP_AND_UDP};
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
        rows.extend(PRIORITIES);
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
        rows.extend(refused(BY_PATH, Group::Files, EPERM, SHARED_FILES));
        rows.extend(refused(OPENAT2, Group::Files, ENOSYS, UNSEEN_MODE));
        rows.extend(MODES);
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
const SOCKETS: &[Call] = calls![SYS_socket SYS_connect SYS_bind SYS_listen];

const SOCKET_WITHOUT_PATHS: Row = Row {
    call: Call::new("SYS_socket", libc::SYS_socket),
    group: Group::Sockets,
    rule: Rule::Check {
        cases: &[
            Case {
                when: &[Test::is(0, &[AF_UNIX])],
                answer: EACCES,
            },
            TCP_AND_UDP,
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

/// The process itself is 0 to these calls.
const ITSELF: &[Case] = &[Case {
    when: &[Test::is(0, &[0])],
    answer: Answer::Allow,
}];

const PRIORITIES: [Row; 5] = [
    own(
        Call::new("SYS_sched_setscheduler", libc::SYS_sched_setscheduler),
        ITSELF,
    ),
    own(
        Call::new("SYS_sched_setparam", libc::SYS_sched_setparam),
        ITSELF,
    ),
    own(
        Call::new("SYS_sched_setattr", libc::SYS_sched_setattr),
        ITSELF,
    ),
    // PRIO_PROCESS.
    own(
        Call::new("SYS_setpriority", libc::SYS_setpriority),
        &[Case {
            when: &[Test::is(0, &[0]), Test::is(1, &[0])],
            answer: Answer::Allow,
        }],
    ),
    // IOPRIO_WHO_PROCESS.
    own(
        Call::new("SYS_ioprio_set", libc::SYS_ioprio_set),
        &[Case {
            when: &[Test::is(0, &[1]), Test::is(1, &[0])],
            answer: Answer::Allow,
        }],
    ),
];

const fn own(call: Call, cases: &'static [Case]) -> Row {
    Row {
        call,
        group: Group::Scheduling,
        rule: Rule::Check {
            cases,
            otherwise: EPERM,
        },
        reason: "one's own priority only: without a pid namespace other numbers are whatever runs as this user",
    }
}

const SHARED_FILES: &str = "without mounts of its own a job would reach files of this user's, which Landlock keeps it from opening but not from changing so";
const BY_PATH: &[Call] = calls![
    SYS_chown SYS_lchown SYS_fchownat SYS_chmod SYS_fchmodat SYS_fchmodat2 SYS_truncate
    SYS_setxattr SYS_lsetxattr SYS_removexattr SYS_lremovexattr SYS_inotify_add_watch
];

const UNSEEN_MODE: &str =
    "its mode lies in memory, where no filter can look; libraries fall back to openat";
const OPENAT2: &[Call] = calls![SYS_openat2];

/// `S_ISUID` and `S_ISGID`.
const SET_ID: u32 = 0o6000;
/// `O_CREAT`, and what of `O_TMPFILE` is not `O_DIRECTORY`.
const CREATES: u32 = 0o100 | 0o20_000_000;

/// The mode is the second argument, or the third.
const SECOND: &[Case] = &[Case {
    when: &[Test::AnyBit {
        argument: 1,
        bits: SET_ID,
    }],
    answer: EPERM,
}];
const THIRD: &[Case] = &[Case {
    when: &[Test::AnyBit {
        argument: 2,
        bits: SET_ID,
    }],
    answer: EPERM,
}];

/// No program that gives ids: whoever else is on the machine can reach a box, and would get those of this user. (mkdir(2) ignores such bits.)
const MODES: [Row; 6] = [
    plain(Call::new("SYS_fchmod", libc::SYS_fchmod), SECOND),
    plain(Call::new("SYS_creat", libc::SYS_creat), SECOND),
    plain(Call::new("SYS_mknod", libc::SYS_mknod), SECOND),
    plain(Call::new("SYS_mknodat", libc::SYS_mknodat), THIRD),
    plain(
        Call::new("SYS_open", libc::SYS_open),
        &[Case {
            when: &[
                Test::AnyBit {
                    argument: 1,
                    bits: CREATES,
                },
                Test::AnyBit {
                    argument: 2,
                    bits: SET_ID,
                },
            ],
            answer: EPERM,
        }],
    ),
    plain(
        Call::new("SYS_openat", libc::SYS_openat),
        &[Case {
            when: &[
                Test::AnyBit {
                    argument: 2,
                    bits: CREATES,
                },
                Test::AnyBit {
                    argument: 3,
                    bits: SET_ID,
                },
            ],
            answer: EPERM,
        }],
    ),
];

const fn plain(call: Call, cases: &'static [Case]) -> Row {
    Row {
        call,
        group: Group::Files,
        rule: Rule::Check {
            cases,
            otherwise: Answer::Allow,
        },
        reason: "no program that gives its owner's ids: without mounts of its own a box can be reached by others",
    }
}
