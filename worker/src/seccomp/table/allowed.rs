//! Calls that a job may always make, by group.
//!
//! They act on the job's own processes, memory, descriptors and files, or are checked by the kernel against
//! ids, capabilities and limits that the job does not have. Nothing here depends on arguments.

use super::{Answer, Call, Group, Row, Rule, calls};

pub(super) fn rows() -> impl Iterator<Item = Row> {
    ALLOWED.iter().flat_map(|(group, calls)| {
        calls.iter().map(|call| Row {
            call: *call,
            group: *group,
            rule: Rule::Always(Answer::Allow),
            reason: "",
        })
    })
}

const ALLOWED: &[(Group, &[Call])] = &[
    (Group::Files, FILES),
    (Group::Descriptors, DESCRIPTORS),
    (Group::Events, EVENTS),
    (Group::Memory, MEMORY),
    (Group::Processes, PROCESSES),
    (Group::Signals, SIGNALS),
    (Group::Time, TIME),
    (Group::Sockets, SOCKETS),
    (Group::Ipc, IPC),
    (Group::Identity, IDENTITY),
    (Group::Scheduling, SCHEDULING),
    (Group::Sandboxing, SANDBOXING),
];

const FILES: &[Call] = calls![
    SYS_open SYS_openat SYS_openat2 SYS_creat
    SYS_stat SYS_fstat SYS_lstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs
    SYS_access SYS_faccessat SYS_faccessat2
    SYS_getdents SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir
    SYS_mkdir SYS_mkdirat SYS_rmdir SYS_mknod SYS_mknodat
    SYS_link SYS_linkat SYS_symlink SYS_symlinkat SYS_readlink SYS_readlinkat
    SYS_unlink SYS_unlinkat SYS_rename SYS_renameat SYS_renameat2
    SYS_chmod SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_chown SYS_fchown SYS_lchown SYS_fchownat SYS_umask
    SYS_truncate SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_readahead
    SYS_utime SYS_utimes SYS_futimesat SYS_utimensat
    SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_flock
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr
    SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_inotify_init SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
];

const DESCRIPTORS: &[Call] = calls![
    SYS_read SYS_pread64 SYS_readv SYS_preadv SYS_preadv2
    SYS_write SYS_pwrite64 SYS_writev SYS_pwritev SYS_pwritev2 SYS_lseek
    SYS_close SYS_close_range SYS_dup SYS_dup2 SYS_dup3
    SYS_pipe SYS_pipe2 SYS_copy_file_range
];

const EVENTS: &[Call] = calls![
    SYS_poll SYS_ppoll SYS_select SYS_pselect6
    SYS_epoll_create SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd SYS_eventfd2
];

const MEMORY: &[Call] = calls![
    SYS_brk SYS_munmap SYS_mremap SYS_mprotect SYS_msync SYS_mincore
    SYS_mlock SYS_mlock2 SYS_mlockall SYS_munlock SYS_munlockall SYS_mseal
    SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_membarrier
];

const PROCESSES: &[Call] = calls![
    SYS_fork SYS_vfork SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4 SYS_waitid
    SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_getpgrp SYS_getsid SYS_setpgid SYS_setsid
    SYS_futex SYS_futex_waitv SYS_set_robust_list SYS_get_robust_list SYS_set_tid_address SYS_rseq
    SYS_getrlimit SYS_setrlimit SYS_getrusage SYS_times SYS_sysinfo SYS_uname SYS_getcpu SYS_getrandom
];

const SIGNALS: &[Call] = calls![
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait
    SYS_rt_sigsuspend SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_sigaltstack
    SYS_kill SYS_tkill SYS_tgkill SYS_pidfd_send_signal SYS_signalfd SYS_signalfd4
    SYS_pause SYS_restart_syscall
];

const TIME: &[Call] = calls![
    SYS_gettimeofday SYS_time SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep
    SYS_alarm SYS_getitimer SYS_setitimer
    SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime
    SYS_adjtimex SYS_clock_adjtime
];

const SOCKETS: &[Call] = calls![
    SYS_bind SYS_connect SYS_listen SYS_accept SYS_accept4 SYS_shutdown
    SYS_sendto SYS_sendmsg SYS_sendmmsg SYS_recvfrom SYS_recvmsg SYS_recvmmsg
    SYS_getsockname SYS_getpeername SYS_getsockopt
];

const IPC: &[Call] = calls![
    SYS_shmat SYS_shmdt SYS_shmctl
    SYS_semop SYS_semtimedop SYS_semctl
    SYS_msgsnd SYS_msgrcv SYS_msgctl
    SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr
];

const IDENTITY: &[Call] = calls![
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid
    SYS_setgroups SYS_capget SYS_capset
];

const SCHEDULING: &[Call] = calls![
    SYS_sched_yield SYS_sched_getaffinity
    SYS_sched_getparam SYS_sched_setparam SYS_sched_getscheduler SYS_sched_setscheduler
    SYS_sched_getattr SYS_sched_setattr SYS_sched_rr_get_interval
    SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_getpriority SYS_setpriority SYS_ioprio_get SYS_ioprio_set
];

const SANDBOXING: &[Call] = calls![SYS_landlock_restrict_self];
