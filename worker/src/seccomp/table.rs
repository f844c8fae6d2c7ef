//! What a job's process is answered, call by call.
//!
//! Three lists hold the rows: [`allowed`](self) calls by group, calls that depend on their arguments,
//! and refused calls with the reason. A [`Table`] is all of them, ordered by number, and the plain
//! meaning of the filter: [`Table::judge`] is what the compiled program must agree with.
//!
//! # Invariants
//!
//! - No number stands in two rows.
//! - Arguments are compared as the kernel reads them: every checked one is 32 bits wide there, so that
//!   only the low word counts. A check of 64 bits on such an argument could be passed by setting a
//!   high bit that the kernel throws away.
//! - Arguments that are pointers are never looked at: what they point to may change after the check.

mod allowed;
mod checked;
mod reduced;
mod refused;

use std::fmt;

use nix::errno::Errno;

use crate::ground::Ground;

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
compile_error!("the syscall table of this architecture has still to be written");

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`: the architecture whose numbers these are.
pub const ARCHITECTURE: u32 = 0xc000_003e;

/// From here on numbers are those of x32, which shares the architecture's name (`__X32_SYSCALL_BIT`).
pub const FOREIGN_FROM: u32 = 0x4000_0000;

/// What is said to calls that no row names.
pub const DEFAULT: Answer = Answer::Errno(Errno::ENOSYS);

/// How the memory of jobs is accounted for, on which some answers depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accounting {
    /// By a cgroup's memory controller: it sees everything.
    Cgroup,
    /// By looking at the processes: memory that belongs to none of them is refused.
    Sampling,
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it.
    Allow,
    /// It fails.
    Errno(Errno),
    /// It returns 0 without having done anything.
    Pretend,
    /// The process dies of SIGSYS: said to calls by the numbers of another architecture, and to no other.
    ///
    /// Which number it was, the kernel tells nobody who may be told (looked at on 6.18):
    ///
    /// - its parent hears of the signal alone: `si_syscall` is in the `siginfo` of the process itself, which the kernel keeps from its
    ///   handlers and from a tracer (`force_sig_seccomp`, `SA_IMMUTABLE`), and which only a core file shows; the process' own
    ///   entry in /proc has no stack any more when it can be waited for;
    /// - the audit record lies in the log of the kernel, which needs `CAP_SYSLOG`, is limited in rate, and is the machine's;
    /// - `SECCOMP_RET_TRAP` would tell the process, which could live on;
    /// - `SECCOMP_RET_USER_NOTIF` would tell init. But whoever holds its listener may let any such call through, the caller waits
    ///   until it is answered, only one filter of a process may have a listener (a container's may be there already), and
    ///   what then ends the process is SIGKILL, by number.
    ///
    /// So an outcome says what SIGSYS means, which is this one thing, and not the number.
    Kill,
}

/// What a call is for; only for readers of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Opening, reading and changing files and directories.
    Files,
    /// Descriptors and what flows through them.
    Descriptors,
    /// Waiting for events.
    Events,
    /// The process' own address space.
    Memory,
    /// Threads, processes, and what they say about themselves.
    Processes,
    /// Signals.
    Signals,
    /// Clocks and timers.
    Time,
    /// Sockets.
    Sockets,
    /// System V and POSIX IPC.
    Ipc,
    /// User and group ids, capabilities.
    Identity,
    /// Scheduling and priorities.
    Scheduling,
    /// Restricting oneself further.
    Sandboxing,
    /// Reaching out of the sandbox, or deep into the kernel.
    Sharp,
}

/// A syscall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name, as in syscalls(2).
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: u32,
}

impl Call {
    /// From the name and value of a `libc::SYS_…`, or a bare name and a number that libc does not know yet.
    const fn new(constant: &'static str, number: i64) -> Self {
        assert!(number >= 0 && number < 0x4000_0000, "no such syscall");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the assertion above has just excluded both"
        )]
        let number = number as u32;
        let name = match constant.as_bytes() {
            [b'S', b'Y', b'S', b'_', ..] => constant.split_at(4).1,
            _ => constant,
        };
        Self { name, number }
    }
}

/// `calls![SYS_read SYS_write]`: the calls of these constants of libc.
macro_rules! calls {
    ($($name:ident)*) => {
        &[$($crate::seccomp::table::Call::new(stringify!($name), libc::$name)),*]
    };
}
use calls;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The call.
    pub call: Call,
    /// What it is for.
    pub group: Group,
    /// What it is answered.
    pub rule: Rule,
    /// Why, where it is not simply allowed.
    pub reason: &'static str,
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always the same.
    Always(Answer),
    /// What the first case that fits says.
    Check {
        /// The cases, in order.
        cases: &'static [Case],
        /// The answer where none fits.
        otherwise: Answer,
    },
}

/// A condition on the arguments of a call, and the answer where it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// All of these hold.
    pub when: &'static [Test],
    /// The answer.
    pub answer: Answer,
}

/// A condition on the low word of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Under this mask it is one of these values.
    OneOf {
        /// Which argument, from 0.
        argument: u8,
        /// The bits that count.
        mask: u32,
        /// The values, at least one.
        values: &'static [u32],
    },
    /// At least one of these bits is set.
    AnyBit {
        /// Which argument, from 0.
        argument: u8,
        /// The bits.
        bits: u32,
    },
}

impl Test {
    /// The low word of the argument is one of these values.
    pub(super) const fn is(argument: u8, values: &'static [u32]) -> Self {
        Self::OneOf {
            argument,
            mask: u32::MAX,
            values,
        }
    }

    /// Whether it holds for these arguments.
    pub fn holds(self, arguments: &[u64; 6]) -> bool {
        let low_word = |argument: u8| {
            let [a, b, c, d, ..] = arguments
                .get(usize::from(argument))
                .copied()
                .unwrap_or_default()
                .to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        match self {
            Self::OneOf {
                argument,
                mask,
                values,
            } => values.contains(&(low_word(argument) & mask)),
            Self::AnyBit { argument, bits } => low_word(argument) & bits != 0,
        }
    }
}

/// The whole table, for one way of accounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// The rows that hold under this accounting.
    ///
    /// # Panics
    ///
    /// If two rows name the same call, which the tests of this module exclude.
    pub fn new(accounting: Accounting) -> Self {
        let rows: Vec<Row> = allowed::rows()
            .chain(checked::rows(accounting))
            .chain(refused::rows(accounting))
            .collect();
        Self::sorted(rows)
    }

    /// The rows that hold on this ground: where a namespace is missing, some calls are refused in its place.
    pub fn on(ground: &Ground, accounting: Accounting) -> Self {
        let instead = reduced::rows(ground.lacks());
        let mut rows = Self::new(accounting).rows;
        rows.retain(|row| {
            !instead
                .iter()
                .any(|other| other.call.number == row.call.number)
        });
        rows.extend(instead);
        Self::sorted(rows)
    }

    fn sorted(mut rows: Vec<Row>) -> Self {
        rows.sort_by_key(|row| row.call.number);
        assert!(
            rows.is_sorted_by(|a, b| a.call.number < b.call.number),
            "a call stands in two rows"
        );
        Self { rows }
    }

    /// The rows, by number.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What a call is answered.
    pub fn judge(&self, architecture: u32, number: u32, arguments: &[u64; 6]) -> Answer {
        // -1 is no call of any architecture: programs use it to ask for an ENOSYS.
        let foreign = number >= FOREIGN_FROM && number != u32::MAX;
        if architecture != ARCHITECTURE || foreign {
            return Answer::Kill;
        }
        let found = self
            .rows
            .binary_search_by_key(&number, |row| row.call.number)
            .ok()
            .and_then(|index| self.rows.get(index));
        match found.map(|row| row.rule) {
            None => DEFAULT,
            Some(Rule::Always(answer)) => answer,
            Some(Rule::Check { cases, otherwise }) => cases
                .iter()
                .find(|case| case.when.iter().all(|test| test.holds(arguments)))
                .map_or(otherwise, |case| case.answer),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.pad("allow"),
            Self::Errno(errno) => f.pad(&format!("{errno:?}")),
            Self::Pretend => f.pad("pretend"),
            Self::Kill => f.pad("kill"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf {
                argument,
                mask,
                values,
            } => {
                write!(f, "arg{argument}")?;
                if *mask != u32::MAX {
                    write!(f, " & {mask:#x}")?;
                }
                f.write_str(" in")?;
                values.iter().try_for_each(|value| write!(f, " {value:#x}"))
            }
            Self::AnyBit { argument, bits } => write!(f, "arg{argument} has any of {bits:#x}"),
        }
    }
}

/// The table as people read it: one line a row, one more for each case.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let Row {
                call,
                group,
                rule,
                reason,
            } = row;
            let head = format!("{:>3} {:<22} {group:?}", call.number, call.name);
            match rule {
                Rule::Always(Answer::Allow) => writeln!(f, "{head:<40} allow")?,
                Rule::Always(answer) => writeln!(f, "{head:<40} {answer}: {reason}")?,
                Rule::Check { cases, otherwise } => {
                    writeln!(f, "{head:<40} {otherwise}, unless a case fits: {reason}")?;
                    for Case { when, answer } in *cases {
                        let tests: Vec<String> = when.iter().map(ToString::to_string).collect();
                        writeln!(f, "      {answer} if {}", tests.join(" and "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wpool_sys::namespaces::Namespaces;

    use super::*;

    #[test]
    fn the_table_with_a_cgroup() {
        insta::assert_snapshot!(Table::new(Accounting::Cgroup));
    }

    #[test]
    fn sampling_differs_in_these_rows_only() {
        let cgroup = Table::new(Accounting::Cgroup);
        let differing: Vec<Row> = Table::new(Accounting::Sampling)
            .rows
            .into_iter()
            .filter(|row| !cgroup.rows.contains(row))
            .collect();
        assert_eq!(
            cgroup.rows.len(),
            Table::new(Accounting::Sampling).rows.len()
        );
        insta::assert_snapshot!(Table { rows: differing });
    }

    #[test]
    fn without_namespaces_these_rows_differ() {
        let whole = Table::new(Accounting::Cgroup);
        let ground = Ground::without(Namespaces::WORKER);
        let table = Table::on(&ground, Accounting::Cgroup);
        assert_eq!(table.rows.len(), whole.rows.len());
        let differing = table
            .rows
            .into_iter()
            .filter(|row| !whole.rows.contains(row));
        insta::assert_snapshot!(Table {
            rows: differing.collect()
        });
        assert_eq!(Table::on(&Ground::whole(), Accounting::Cgroup), whole);
    }

    #[test]
    fn a_bit_that_the_kernel_throws_away_passes_no_check() {
        let table = Table::new(Accounting::Cgroup);
        let ioctl = |request| {
            let number = u32::try_from(libc::SYS_ioctl).unwrap();
            table.judge(ARCHITECTURE, number, &[0, request, 0, 0, 0, 0])
        };
        assert_eq!(ioctl(libc::TIOCSTI), Answer::Errno(Errno::EPERM));
        assert_eq!(ioctl(libc::TIOCSTI | 1 << 32), Answer::Errno(Errno::EPERM));
        assert_eq!(ioctl(libc::TIOCGWINSZ), Answer::Allow);
    }

    #[test]
    fn everything_refused_or_checked_has_a_reason() {
        for accounting in [Accounting::Cgroup, Accounting::Sampling] {
            for row in Table::new(accounting).rows {
                let plain = row.rule == Rule::Always(Answer::Allow);
                assert_eq!(row.reason.is_empty(), plain, "{}", row.call.name);
            }
        }
    }
}
