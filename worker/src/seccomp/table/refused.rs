//! Sharp calls, which a job is refused whatever the arguments, and why.
//!
//! A call that no list names is refused as well, with `ENOSYS`. It stands here where another answer is right,
//! or where the refusal is a decision that somebody may want to look up.
//!
//! `EPERM` is for what a process without rights is used to being refused; `ENOSYS` is for what libraries
//! probe for and do without.

use nix::errno::Errno;

use super::{Accounting, Answer, Call, Group, Row, Rule, calls};

pub(super) fn rows(accounting: Accounting) -> impl Iterator<Item = Row> {
    let sampling: &[Refusal] = match accounting {
        Accounting::Cgroup => &[],
        Accounting::Sampling => &[UNSEEN_MEMORY, UNSEEN_OBJECTS, UNSEEN_RULES, UNSEEN_PAGES],
    };
    REFUSED.iter().chain(sampling).flat_map(|refusal| {
        refusal.calls.iter().map(|call| Row {
            call: *call,
            group: Group::Sharp,
            rule: Rule::Always(refusal.answer),
            reason: refusal.reason,
        })
    })
}

struct Refusal {
    answer: Answer,
    reason: &'static str,
    calls: &'static [Call],
}

const EPERM: Answer = Answer::Errno(Errno::EPERM);
const EINVAL: Answer = Answer::Errno(Errno::EINVAL);
const ENOSYS: Answer = Answer::Errno(Errno::ENOSYS);

const UNSEEN_MEMORY: Refusal = Refusal {
    answer: ENOSYS,
    reason: "what is written to it belongs to no process, so that sampling would not see it; /dev/shm has a limit",
    calls: calls![SYS_memfd_create],
};

const UNSEEN_OBJECTS: Refusal = Refusal {
    answer: ENOSYS,
    reason: "System V objects hold memory that belongs to no process, without end: sampling would not see it; \
             /dev/shm, /dev/mqueue and semaphores in them have limits",
    calls: calls![SYS_shmget SYS_semget SYS_msgget],
};

const UNSEEN_PAGES: Refusal = Refusal {
    answer: EINVAL,
    reason: "puts whole pages into pipes and sockets that count for a byte there; programs copy instead, as they do between \
             descriptors that these calls do not take",
    calls: calls![SYS_splice SYS_tee SYS_vmsplice SYS_sendfile],
};

const UNSEEN_RULES: Refusal = Refusal {
    answer: ENOSYS,
    reason: "the rules of Landlock rulesets are memory of the kernel's without end, that only a memory controller counts; \
             programs that would restrict themselves further do without, as on older kernels",
    calls: calls![SYS_landlock_create_ruleset SYS_landlock_add_rule],
};

const REFUSED: &[Refusal] = &[
    Refusal {
        answer: EPERM,
        reason: "makes or enters namespaces, where a process has capabilities again",
        calls: calls![SYS_unshare SYS_setns],
    },
    Refusal {
        answer: ENOSYS,
        reason: "its flags lie in memory, where no filter can look; libraries fall back to clone",
        calls: calls![SYS_clone3],
    },
    Refusal {
        answer: EPERM,
        reason: "changes what is mounted where; every mount is made before the job starts",
        calls: calls![SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot],
    },
    Refusal {
        answer: ENOSYS,
        reason: "changes or tells what is mounted where; every mount is made before the job starts",
        calls: &[
            Call::new("SYS_open_tree", libc::SYS_open_tree),
            Call::new("SYS_move_mount", libc::SYS_move_mount),
            Call::new("SYS_mount_setattr", libc::SYS_mount_setattr),
            Call::new("SYS_fsopen", libc::SYS_fsopen),
            Call::new("SYS_fsconfig", libc::SYS_fsconfig),
            Call::new("SYS_fsmount", libc::SYS_fsmount),
            Call::new("SYS_fspick", libc::SYS_fspick),
            Call::new("statmount", 457),
            Call::new("listmount", 458),
            Call::new("open_tree_attr", 467),
        ],
    },
    Refusal {
        answer: EPERM,
        reason: "reaches into another process; jobs of one user are told apart by less than that",
        calls: calls![
            SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
        ],
    },
    Refusal {
        answer: EPERM,
        reason: "opens files by number, past every directory that could forbid it",
        calls: calls![SYS_open_by_handle_at],
    },
    Refusal {
        answer: ENOSYS,
        reason: "tells the numbers by which open_by_handle_at opens files",
        calls: calls![SYS_name_to_handle_at],
    },
    Refusal {
        answer: ENOSYS,
        reason: "keyrings belong to the user, not to the job: what is put there stays for the next one",
        calls: calls![SYS_add_key SYS_request_key SYS_keyctl],
    },
    Refusal {
        answer: EPERM,
        reason: "a large and sharp part of the kernel that no ordinary program needs",
        calls: calls![SYS_bpf SYS_perf_event_open SYS_userfaultfd],
    },
    Refusal {
        answer: ENOSYS,
        reason: "opens files and sockets where no filter sees it; libraries fall back",
        calls: calls![SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register],
    },
    Refusal {
        answer: ENOSYS,
        reason: "all its users share one number of requests (fs.aio-max-nr): one job could use it up for the machine",
        calls: &[
            Call::new("SYS_io_setup", libc::SYS_io_setup),
            Call::new("SYS_io_destroy", libc::SYS_io_destroy),
            Call::new("SYS_io_getevents", libc::SYS_io_getevents),
            Call::new("SYS_io_submit", libc::SYS_io_submit),
            Call::new("SYS_io_cancel", libc::SYS_io_cancel),
            Call::new("io_pgetevents", 333),
        ],
    },
    Refusal {
        answer: ENOSYS,
        reason: "memory that can be neither looked at nor moved out of the way",
        calls: calls![SYS_memfd_secret],
    },
    Refusal {
        answer: ENOSYS,
        reason: "places memory on nodes of the machine; libraries take it for a machine with one",
        calls: calls![
            SYS_mbind SYS_set_mempolicy SYS_get_mempolicy SYS_set_mempolicy_home_node
            SYS_migrate_pages SYS_move_pages
        ],
    },
    Refusal {
        answer: ENOSYS,
        reason: "tells which pages of shared files lie in memory: a clock for watching others",
        calls: &[Call::new("cachestat", 451)],
    },
    Refusal {
        answer: EPERM,
        reason: "watches what others do with shared directories",
        calls: calls![SYS_fanotify_init SYS_fanotify_mark],
    },
    Refusal {
        answer: ENOSYS,
        reason: "segments of the 16-bit past, and holes in the kernel since",
        calls: calls![SYS_modify_ldt],
    },
    Refusal {
        answer: Answer::Pretend,
        reason: "would let a job out of the cores that it was given; whoever pins threads means it as a hint",
        calls: calls![SYS_sched_setaffinity],
    },
    Refusal {
        answer: Answer::Pretend,
        reason: "writes out every disk of the machine; the job's own files are in memory, where there is nothing to write",
        calls: calls![SYS_sync SYS_syncfs],
    },
    Refusal {
        answer: EPERM,
        reason: "administers the machine",
        calls: calls![
            SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
            SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_quotactl_fd SYS_syslog SYS_settimeofday SYS_clock_settime
            SYS_sethostname SYS_setdomainname SYS_iopl SYS_ioperm SYS_vhangup
        ],
    },
    Refusal {
        answer: ENOSYS,
        reason: "obsolete",
        calls: calls![
            SYS_uselib SYS_ustat SYS_sysfs SYS__sysctl SYS_nfsservctl SYS_lookup_dcookie SYS_remap_file_pages
        ],
    },
];
