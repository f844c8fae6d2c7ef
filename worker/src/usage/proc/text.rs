//! The texts of `/proc/PID/{stat,status,smaps_rollup}`: bytes in, numbers out.
//!
//! Formats: proc(5). Sizes are given in bytes whatever the file's unit is.
//!
//! # Invariants
//!
//! - No text makes these functions fail hard: what is missing counts as 0, for a process that has
//!   ended but is not reaped has no memory and says nothing about it.
//! - A process chooses its own name (`comm`): nothing before the last `)` of `stat` is believed.

/// What `stat` says of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its parent.
    pub(super) parent: u32,
    /// Its process group.
    pub(super) group: u32,
    /// Its session.
    pub(super) session: u32,
    /// CPU time of the process's own threads, in ticks.
    pub(super) own_ticks: u64,
    /// CPU time of children that it has waited for, and of theirs, in ticks.
    pub(super) reaped_ticks: u64,
    /// What its first thread does.
    pub(super) state: State,
    /// Its threads.
    pub(super) threads: u32,
    /// When it began, in ticks since the machine's start.
    pub(super) began: u64,
    /// Its address space, bytes.
    pub(super) address_space_bytes: u64,
    /// Its resident pages; the kernel counts them loosely (a few hundred KiB per core).
    pub(super) resident_pages: u64,
}

/// What a thread does, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It runs or waits.
    #[default]
    Alive,
    /// It was stopped by a signal.
    Stopped,
    /// It has ended.
    Ended,
}

impl Stat {
    /// `None` if this is no `stat` at all.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = str::from_utf8(text.get(name_end + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        // proc(5) counts from 1, and the first field after the name is number 3, the state.
        let state = match fields.next()? {
            "Z" | "X" => State::Ended,
            "T" => State::Stopped,
            _ => State::Alive,
        };
        let mut next_field = 4;
        let mut field = |number: usize| -> Option<u64> {
            let value = fields.nth(number - next_field)?;
            next_field = number + 1;
            // Ticks of children are signed in the format; they are never negative.
            value.parse().ok()
        };
        let parent = u32::try_from(field(4)?).ok()?;
        let group = u32::try_from(field(5)?).ok()?;
        let session = u32::try_from(field(6)?).ok()?;
        let own_ticks = field(14)?.saturating_add(field(15)?);
        let reaped_ticks = field(16)?.saturating_add(field(17)?);
        Some(Self {
            parent,
            group,
            session,
            own_ticks,
            reaped_ticks,
            state,
            threads: u32::try_from(field(20)?).ok()?,
            began: field(22)?,
            address_space_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// What `status` says of one process's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Private pages, swapped out ones and huge ones included; a page shared by a fork counts in both.
    pub(super) private: u64,
    /// Shared memory that is mapped and was touched.
    pub(super) shared: u64,
    /// Page tables.
    pub(super) page_tables: u64,
    /// The largest resident set that it ever had, files included.
    pub(super) resident_max: u64,
    /// Pid namespaces it is in, from that of the reader's `/proc` inwards.
    pub(super) depth: u32,
}

impl Status {
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut status = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            if let Some(pids) = line.strip_prefix(b"NSpid:") {
                let pids = pids.split(u8::is_ascii_whitespace);
                status.depth = pids.fold(0, |depth, pid| depth + u32::from(!pid.is_empty()));
            }
            let Some((name, bytes)) = size(line) else {
                continue;
            };
            match name {
                b"RssAnon" | b"VmSwap" | b"HugetlbPages" => status.private += bytes,
                b"RssShmem" => status.shared = bytes,
                b"VmHWM" => status.resident_max = bytes,
                b"VmPTE" => status.page_tables = bytes,
                _ => {}
            }
        }
        status
    }
}

/// Private memory by a text of `smaps_rollup`, bytes, swapped out pages and huge ones included: a page that n processes share
/// counts for one n-th.
pub(super) fn private_part(text: &[u8]) -> u64 {
    let is_private = |name: &[u8]| {
        matches!(
            name,
            b"Pss_Anon" | b"SwapPss" | b"Private_Hugetlb" | b"Shared_Hugetlb"
        )
    };
    let private = sizes(text).filter(|&(name, _)| is_private(name));
    private.map(|(_, bytes)| bytes).sum()
}

/// Private memory of all processes of the machine and their page tables by a text of `/proc/meminfo`, bytes, and what is swapped out.
///
/// Not what is free or available: freed pages wait on lists of the processors', where nobody counts them, and are taken from there.
pub(super) fn private_of_machine(text: &[u8]) -> Option<u64> {
    let of = |wanted: &[u8]| {
        let mut found = sizes(text).filter(|&(name, _)| name == wanted);
        found.next().map(|(_, bytes)| bytes)
    };
    let swapped = of(b"SwapTotal")?.saturating_sub(of(b"SwapFree")?);
    let held = of(b"AnonPages")?.saturating_add(of(b"PageTables")?);
    Some(held.saturating_add(swapped))
}

/// The lines of the form `Name:   123 kB`.
fn sizes(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|&byte| byte == b'\n').filter_map(size)
}

fn size(line: &[u8]) -> Option<(&[u8], u64)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = line.split_at(colon);
    let value = str::from_utf8(value.get(1..)?).ok()?;
    let kibibytes: u64 = value.trim_ascii().strip_suffix(" kB")?.parse().ok()?;
    Some((name, kibibytes.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stat_is_read_behind_a_name_that_lies() {
        let text = b"1234 (a) R 9 9 (b c) S 1 1234 1234 0 -1 4194304 93 1 0 0 11 7 300 25 20 0 6 0 \
                     886543 34684928 1280 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                state: State::Alive,
                parent: 1,
                group: 1234,
                session: 1234,
                own_ticks: 18,
                reaped_ticks: 325,
                threads: 6,
                began: 886_543,
                address_space_bytes: 34_684_928,
                resident_pages: 1280,
            })
        );
    }

    #[test]
    fn swapped_and_huge_pages_are_private_memory() {
        let text = b"Name:\tsh\nVmHWM:\t 950 kB\nVmRSS:\t 900 kB\nRssAnon:\t     100 kB\nRssFile:\t 700 kB\n\
                     RssShmem:\t 50 kB\nVmPTE:\t 44 kB\nVmSwap:\t 3 kB\nHugetlbPages:\t 2048 kB\nThreads:\t1\nNSpid:\t812\t7\t1\n";
        assert_eq!(
            Status::parse(text),
            Status {
                private: (100 + 3 + 2048) << 10,
                shared: 50 << 10,
                page_tables: 44 << 10,
                resident_max: 950 << 10,
                depth: 3,
            }
        );
        let text =
            b"00-ff ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 80 kB\nPss_Anon:  60 kB\n\
                     Pss_File: 9 kB\nPss_Shmem: 11 kB\nShared_Hugetlb: 0 kB\nSwap: 9 kB\nSwapPss: 2 kB\n";
        assert_eq!(private_part(text), 62 << 10);
    }

    #[test]
    fn the_texts_of_this_process_are_understood() {
        let stat = Stat::parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert!(stat.threads >= 1 && stat.resident_pages > 0);
        let status = Status::parse(&std::fs::read("/proc/self/status").unwrap());
        assert!(status.private > 0 && status.page_tables > 0);
        let rollup = std::fs::read("/proc/self/smaps_rollup").unwrap();
        assert!(private_part(&rollup) > 0);
        let machine = std::fs::read("/proc/meminfo").unwrap();
        assert!(private_of_machine(&machine).is_some_and(|bytes| bytes > 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            Stat::parse(&text);
            Status::parse(&text);
            private_part(&text);
            private_of_machine(&text);
        }
    }
}
