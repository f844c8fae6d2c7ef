//! Calls whose answer depends on their arguments.
//!
//! Every argument looked at is one that the kernel itself reads as 32 bits: `int`, `unsigned int`, `pid_t`,
//! or flags of which only low bits exist.

use nix::errno::Errno;

use super::{Accounting, Answer, Call, Case, Group, Row, Rule, Test};

pub(super) fn rows(accounting: Accounting) -> impl Iterator<Item = Row> {
    let varying: &[Row] = match accounting {
        Accounting::Cgroup => &[
            LANDLOCK_CREATE_RULESET,
            LANDLOCK_ADD_RULE,
            PRCTL,
            MMAP,
            MEMFD_CREATE,
            SHMGET,
            SEMGET,
            MSGGET,
            SPLICE,
            TEE,
            VMSPLICE,
            SENDFILE,
            SETSOCKOPT,
        ],
        Accounting::Sampling => &[PRCTL_SAMPLING, MMAP_SAMPLING, SETSOCKOPT_SAMPLING],
    };
    CHECKED.iter().chain(varying).copied()
}

pub(super) const EPERM: Answer = Answer::Errno(Errno::EPERM);
const EINVAL: Answer = Answer::Errno(Errno::EINVAL);

/// The namespaces of clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME shares
/// its bit with the exit signal and does not exist there.
const NAMESPACES: u32 = 0x7e02_0000;

/// `sa_family_t`s and types of sockets, as socket(2) takes them.
pub(super) const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
pub(super) const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
const SOCK_PACKET: u32 = 10;
/// The type without `SOCK_CLOEXEC` and `SOCK_NONBLOCK` (`SOCK_TYPE_MASK`).
pub(super) const SOCK_TYPE: u32 = 0xf;

/// Sockets of the internet: protocol 0 is the usual one of the type; 6 is TCP, 17 UDP.
pub(super) const TCP_AND_UDP: Case = Case {
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
};

/// A row that says when the call is allowed.
const fn row(
    call: Call,
    group: Group,
    cases: &'static [Case],
    otherwise: Answer,
    reason: &'static str,
) -> Row {
    Row {
        call,
        group,
        rule: Rule::Check { cases, otherwise },
        reason,
    }
}

/// A row that is allowed under one way of accounting, and has another rule under the other.
const fn always(call: Call, group: Group) -> Row {
    Row {
        call,
        group,
        rule: Rule::Always(Answer::Allow),
        reason: "",
    }
}

const CHECKED: &[Row] = &[
    row(
        Call::new("SYS_clone", libc::SYS_clone),
        Group::Processes,
        &[Case {
            when: &[Test::AnyBit {
                argument: 0,
                bits: NAMESPACES,
            }],
            answer: EPERM,
        }],
        Answer::Allow,
        "threads and processes, but no namespaces, where a process has capabilities again",
    ),
    row(
        Call::new("SYS_prlimit64", libc::SYS_prlimit64),
        Group::Processes,
        &[Case {
            when: &[Test::is(0, &[0])],
            answer: Answer::Allow,
        }],
        EPERM,
        "one's own limits only, as pid 0 (a filter cannot know the own pid): the kernel would let a process \
         set those of the init above it",
    ),
    row(
        Call::new("SYS_pidfd_open", libc::SYS_pidfd_open),
        Group::Processes,
        &[Case {
            when: &[Test::is(0, &[1])],
            answer: EPERM,
        }],
        Answer::Allow,
        "any process of the job but the init above it",
    ),
    row(
        Call::new("SYS_personality", libc::SYS_personality),
        Group::Processes,
        // Linux, Linux on 32 bits, both with the old version number, and asking what it is.
        &[Case {
            when: &[Test::is(0, &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff])],
            answer: Answer::Allow,
        }],
        EPERM,
        "the plain ones; others switch off address randomisation or make data executable",
    ),
    row(
        Call::new("SYS_socket", libc::SYS_socket),
        Group::Sockets,
        &[
            Case {
                when: &[Test::is(0, &[AF_UNIX])],
                answer: Answer::Allow,
            },
            TCP_AND_UDP,
            Case {
                when: &[
                    Test::is(0, &[AF_INET, AF_INET6]),
                    Test::OneOf {
                        argument: 1,
                        mask: SOCK_TYPE,
                        values: &[SOCK_RAW, SOCK_PACKET],
                    },
                ],
                answer: EPERM,
            },
            Case {
                when: &[Test::is(0, &[AF_INET, AF_INET6])],
                answer: Answer::Errno(Errno::EPROTONOSUPPORT),
            },
        ],
        Answer::Errno(Errno::EAFNOSUPPORT),
        "local sockets, TCP and UDP; other families (netlink, packet, vsock, alg, …) and protocols load kernel \
         code that the machine may never have run before",
    ),
    row(
        Call::new("SYS_socketpair", libc::SYS_socketpair),
        Group::Sockets,
        &[Case {
            when: &[Test::is(0, &[AF_UNIX])],
            answer: Answer::Allow,
        }],
        Answer::Errno(Errno::EAFNOSUPPORT),
        "local sockets, the only family that ordinary programs make pairs of",
    ),
    row(
        Call::new("SYS_ioctl", libc::SYS_ioctl),
        Group::Descriptors,
        &[
            // TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD.
            Case {
                when: &[Test::is(1, &[0x5412, 0x541c, 0x541d, 0x5423])],
                answer: EPERM,
            },
        ],
        Answer::Allow,
        "all but those that type into a terminal or load a line discipline; TIOCSCTTY with 1, which many programs use on a \
         terminal of their own, takes one from another session only with a capability over the machine",
    ),
    row(
        Call::new("SYS_seccomp", libc::SYS_seccomp),
        Group::Sandboxing,
        &[
            // SET_MODE_STRICT, GET_ACTION_AVAIL, GET_NOTIF_SIZES.
            Case {
                when: &[Test::is(0, &[0, 2, 3])],
                answer: Answer::Allow,
            },
            // SET_MODE_FILTER, with any of TSYNC, LOG, SPEC_ALLOW, TSYNC_ESRCH.
            Case {
                when: &[
                    Test::is(0, &[1]),
                    Test::OneOf {
                        argument: 1,
                        mask: !0x17,
                        values: &[0],
                    },
                ],
                answer: Answer::Allow,
            },
        ],
        EINVAL,
        "further filters, which can only refuse more; but no listener, with which one process answers the calls of another",
    ),
    row(
        Call::new("SYS_arch_prctl", libc::SYS_arch_prctl),
        Group::Processes,
        // Thread pointers; the tiles of AMX (0x102x); shadow stacks (0x500x).
        &[Case {
            when: &[Test::is(
                0,
                &[
                    0x1001, 0x1002, 0x1003, 0x1004, 0x1021, 0x1022, 0x1023, 0x1024, 0x1025, 0x5001,
                    0x5002, 0x5003, 0x5004, 0x5005,
                ],
            )],
            answer: Answer::Allow,
        }],
        EINVAL,
        "what the C library and numeric libraries use",
    ),
    row(
        Call::new("SYS_fcntl", libc::SYS_fcntl),
        Group::Descriptors,
        &[Case {
            // F_SETLEASE, F_NOTIFY, F_SETDELEG.
            when: &[Test::is(1, &[1024, 1026, 1040])],
            answer: EINVAL,
        }],
        Answer::Allow,
        "all but what holds up or watches others who open a shared file: a lease makes them wait for 45 s",
    ),
    row(
        Call::new("SYS_madvise", libc::SYS_madvise),
        Group::Memory,
        &[Case {
            when: &[Test::is(2, &[12])], // MADV_MERGEABLE
            answer: EINVAL,
        }],
        Answer::Allow,
        "all but merging equal pages with those of others: how long a write takes would tell what they hold",
    ),
];

const SHMGET: Row = row(
    Call::new("SYS_shmget", libc::SYS_shmget),
    Group::Ipc,
    &[Case {
        when: &[Test::AnyBit {
            argument: 2,
            bits: 0o4000, // SHM_HUGETLB
        }],
        answer: EPERM,
    }],
    Answer::Allow,
    "all but the machine's reserved huge pages, which no account of the job's counts",
);

/// Counted by a memory controller; under sampling refused.
const LANDLOCK_CREATE_RULESET: Row = always(
    Call::new(
        "SYS_landlock_create_ruleset",
        libc::SYS_landlock_create_ruleset,
    ),
    Group::Sandboxing,
);
const LANDLOCK_ADD_RULE: Row = always(
    Call::new("SYS_landlock_add_rule", libc::SYS_landlock_add_rule),
    Group::Sandboxing,
);
const SEMGET: Row = always(Call::new("SYS_semget", libc::SYS_semget), Group::Ipc);
const MSGGET: Row = always(Call::new("SYS_msgget", libc::SYS_msgget), Group::Ipc);
const SPLICE: Row = always(
    Call::new("SYS_splice", libc::SYS_splice),
    Group::Descriptors,
);
const TEE: Row = always(Call::new("SYS_tee", libc::SYS_tee), Group::Descriptors);
const VMSPLICE: Row = always(
    Call::new("SYS_vmsplice", libc::SYS_vmsplice),
    Group::Descriptors,
);
const SENDFILE: Row = always(
    Call::new("SYS_sendfile", libc::SYS_sendfile),
    Group::Descriptors,
);

/// `SOL_SOCKET`; `SO_ATTACH_FILTER`, `SO_ATTACH_BPF` and the same of `SO_REUSEPORT`.
const PROGRAMS: Case = Case {
    when: &[Test::is(1, &[1]), Test::is(2, &[26, 50, 51, 52])],
    answer: EPERM,
};

const SETSOCKOPT: Row = row(
    Call::new("SYS_setsockopt", libc::SYS_setsockopt),
    Group::Sockets,
    &[PROGRAMS],
    Answer::Allow,
    PROGRAMS_REASON,
);

const PROGRAMS_REASON: &str = "all but programs that filter packets: compiled ones lie in one room for all users of the \
     machine (bpf_jit_limit), which every system call filter needs, too";

const SETSOCKOPT_SAMPLING: Row = row(
    Call::new("SYS_setsockopt", libc::SYS_setsockopt),
    Group::Sockets,
    &[
        PROGRAMS,
        Case {
            // SOL_SOCKET; SNDBUF, RCVBUF, SNDBUFFORCE, RCVBUFFORCE.
            when: &[Test::is(1, &[1]), Test::is(2, &[7, 8, 32, 33])],
            answer: Answer::Pretend,
        },
    ],
    Answer::Allow,
    "all but programs that filter packets, and the size of buffers, which stays as it is: sampling can count sockets, \
     not what lies in them",
);

/// `MAP_HUGETLB`.
const HUGE: Case = Case {
    when: &[Test::AnyBit {
        argument: 3,
        bits: 0x4_0000,
    }],
    answer: Answer::Errno(Errno::ENOMEM),
};

const MMAP: Row = row(
    Call::new("SYS_mmap", libc::SYS_mmap),
    Group::Memory,
    &[HUGE],
    Answer::Allow,
    "all but the machine's reserved huge pages, which no account of the job's counts",
);

const MMAP_SAMPLING: Row = row(
    Call::new("SYS_mmap", libc::SYS_mmap),
    Group::Memory,
    &[
        HUGE,
        Case {
            // MAP_SHARED or MAP_SHARED_VALIDATE, with MAP_ANONYMOUS.
            when: &[Test::OneOf {
                argument: 3,
                mask: 0x21,
                values: &[0x21],
            }],
            answer: EPERM,
        },
    ],
    Answer::Allow,
    "all but huge pages, and but shared memory without a file: what of it is unmapped stays, and no process shows it",
);

const MEMFD_CREATE: Row = row(
    Call::new("SYS_memfd_create", libc::SYS_memfd_create),
    Group::Memory,
    &[Case {
        when: &[Test::AnyBit {
            argument: 1,
            bits: 0x4, // MFD_HUGETLB
        }],
        answer: Answer::Errno(Errno::ENOSYS),
    }],
    Answer::Allow,
    "all but the machine's reserved huge pages, which no account of the job's counts",
);

/// Options of prctl(2) that ordinary programs use on themselves.
macro_rules! prctl_options {
    ($($more:literal),*) => {
        &[
            1, 2, // PDEATHSIG
            3, 4, // DUMPABLE
            7, 8, // KEEPCAPS
            13, 14, // TIMING
            15, 16, // NAME
            21, 22, // SECCOMP
            23, 24, // CAPBSET
            25, 26, // TSC
            27, 28, // SECUREBITS
            29, 30, // TIMERSLACK
            36, 37, // CHILD_SUBREAPER
            38, 39, // NO_NEW_PRIVS
            40, // GET_TID_ADDRESS
            42, // GET_THP_DISABLE
            47, // CAP_AMBIENT
            52, 53, // SPECULATION_CTRL
            65, 66, // MDWE
            0x5356_4d41, // SET_VMA
            0x5961_6d61, // SET_PTRACER
            0x4155_5856, // GET_AUXV
            $($more),*
        ]
    };
}

const PRCTL_REASON: &str =
    "options that programs use on themselves; others answer as on a kernel without them";

/// `PR_SET_MM`, which moves what the kernel shows of a process' memory, is an old option: EPERM is its answer.
const PRCTL_SHARP: Case = Case {
    when: &[Test::is(0, &[35])],
    answer: EPERM,
};

const PRCTL: Row = row(
    Call::new("SYS_prctl", libc::SYS_prctl),
    Group::Processes,
    &[
        Case {
            // 41: SET_THP_DISABLE
            when: &[Test::is(0, prctl_options![41])],
            answer: Answer::Allow,
        },
        PRCTL_SHARP,
    ],
    EINVAL,
    PRCTL_REASON,
);

/// Without 41, `PR_SET_THP_DISABLE`: under sampling huge pages are off, and a job may not switch them on.
const PRCTL_SAMPLING: Row = row(
    Call::new("SYS_prctl", libc::SYS_prctl),
    Group::Processes,
    &[
        Case {
            when: &[Test::is(0, prctl_options![])],
            answer: Answer::Allow,
        },
        PRCTL_SHARP,
    ],
    EINVAL,
    PRCTL_REASON,
);
