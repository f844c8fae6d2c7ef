//! Memory of a tree against its limit, from bounds that get dearer as they get closer.
//!
//! ```text
//!   sums ──── surely below, no new peak ───────────────────────────▶ enough
//!     │ may be above, or a new peak
//!   split ─── surely below, and a peak that needs no closer look ──▶ enough
//!     │ may be above, or a new peak of many processes
//!   exact ─────────────────────────────────────────────────────────▶ one process: enough, or over
//!                                                                    more: once again from the sums, then the same
//! ```
//!
//! Memory is: private pages and page tables, each counted once, and what lies in the job's tmpfs and in its sockets.
//! All memory that a job's processes can share is in files of that tmpfs: there is no other kind without a cgroup, see
//! [`super`]. Mapped files of the host are not in it, as they are in no cgroup's either once somebody else has read them.
//!
//! # Invariants
//!
//! - Only an exact reading ends a job, and of several processes only two in a row: while one is taken a page
//!   can come to be shared by a process already read and one yet to be read (a parent of 100 MB forks, a child
//!   touches what its parent made), and counts once and a half.
//! - The peak never exceeds what was held: it comes from such readings too, or from one process alone.
//! - The exception to both: a tree that several rounds in a row could not count (they were late, or its tasks went on though they
//!   were stopped), while the machine's private memory has grown by as much as it had left, is taken for above the limit, and the limit for its peak.

use std::time::Duration;

use wpool_protocol::limits::{LimitName, Limits};

use super::evidence::Evidence;
use super::reading::{Exact, Split, Sums};
use super::sampler::Round;
use super::verdict::{Excess, Shared};

/// How fast one core can touch pages of 4 KiB, bytes per ms, as measured; a tree seen to grow faster is believed.
const GROWTH_PER_MS: u64 = 3 << 20;

/// Between looks, at least and at most.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Address space that one page table maps for each of its bytes: 512 entries of 4 KiB on a page of 4 KiB.
const MAPPED_PER_TABLE_BYTE: u64 = 512;

/// The kernel counts resident pages loosely, so that cheap figures are taken for a part larger than they are.
const LOOSE_PART: u64 = 32;

/// A peak is told anew only when it has grown by a part: each costs a closer look.
const PEAK_PART: u64 = 16;

/// What the cheap sums cannot see at all (swapped pages, huge pages) is looked for so often.
const SPLIT_EVERY: Duration = Duration::from_millis(500);

/// Exact readings only to tell a peak may take one part of the time in so many.
const TELLING_SHARE: u32 = 20;

/// Rounds that may be torn before one finds the tree standing still.
const TORN_MAX: u32 = 2;

/// Rounds in a row in which tasks may be born though all are stopped: somebody continues them.
const DEFIED_MAX: u32 = 2;

/// Rounds in a row that may be too late.
const LATE_MAX: u32 = 3;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryStep {
    /// Nothing, until the next look.
    Enough,
    /// Read the sums again at once.
    Again,
    /// Read memory by kind.
    Split,
    /// Read memory with every page counted once.
    Exact,
    /// The limit is reached.
    Over(Excess),
}

/// Watches the memory of one job. All times count from the job's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryWatch {
    limit: u64,
    cores: u64,
    peak: u64,
    /// The largest part of the sums that was mapped files.
    files_max: u64,
    shared: Shared,
    /// Rounds in a row that were too late to say whether the limit is reached.
    late: u32,
    /// Rounds that can have missed something, since the last that cannot.
    torn: u32,
    /// Rounds in which tasks were born though all were stopped, since the last that missed nothing.
    defied: u32,
    evidence: Evidence,
    looked_at: Duration,
    /// The sums' bound at the last look, and what is left to the limit by the best bound.
    bound: u64,
    headroom: u64,
    /// By how much the sums' bound was above the split's.
    discount: u64,
    split_at: Duration,
    telling_from: Duration,
    growth_per_ms: u64,
    /// What a first exact reading of several processes said; the second is to come.
    first: Option<u64>,
    sums: Sums,
}

impl MemoryWatch {
    pub(super) fn new(limits: &Limits, cores: u16) -> Self {
        Self {
            limit: limits.memory_bytes.0,
            cores: u64::from(cores.max(1)),
            peak: 0,
            files_max: 0,
            shared: Shared::None,
            late: 0,
            torn: 0,
            defied: 0,
            evidence: Evidence::of_nothing(limits.memory_bytes.0),
            looked_at: Duration::ZERO,
            bound: 0,
            headroom: limits.memory_bytes.0,
            discount: 0,
            split_at: Duration::ZERO,
            telling_from: Duration::ZERO,
            growth_per_ms: GROWTH_PER_MS,
            first: None,
            sums: Sums::default(),
        }
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared
    }

    pub(super) fn files_max(&self) -> u64 {
        self.files_max
    }

    /// A round is over; `machine_bytes` is private memory of all processes of the machine now, `None` if that is not known.
    pub(super) fn close(
        &mut self,
        now: Duration,
        round: Round,
        machine_bytes: Option<u64>,
    ) -> MemoryStep {
        self.late = 0;
        match round {
            Round::Whole | Round::Still => {
                (self.torn, self.defied) = (0, 0);
                self.evidence.all_seen(self.headroom);
            }
            Round::Torn => self.torn = self.torn.saturating_add(1),
            Round::Defied => self.defied += 1,
        }
        self.evidence.see(machine_bytes);
        if self.defied < DEFIED_MAX {
            return MemoryStep::Enough;
        }
        self.over_by_evidence(now)
    }

    /// So much is private memory of all processes of the machine as a round begins: also the first, which may be too late to say more.
    pub(super) fn see_machine(&mut self, machine_bytes: Option<u64>) {
        self.evidence.see(machine_bytes);
    }

    /// Whether the next round should find the tree standing still, since others go wrong, and memory is gone.
    pub(super) fn wants_standstill(&self) -> bool {
        let goes_wrong = self.torn >= TORN_MAX || self.defied > 0 || self.late > 0;
        goes_wrong && self.evidence.is_near()
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Duration {
        let cores = self.cores.min(2 * u64::from(self.sums.tasks.max(1)));
        let per_ms = self.growth_per_ms.max(GROWTH_PER_MS * cores);
        let mut reached = Duration::from_millis(self.headroom / per_ms);
        if self.torn > 0 && self.evidence.is_near() {
            // It takes another look to know more.
            reached = Duration::ZERO;
        }
        self.looked_at + reached.clamp(LOOK_MIN, LOOK_MAX)
    }

    pub(super) fn take_sums(&mut self, now: Duration, sums: &Sums) -> MemoryStep {
        let tables = sums.address_space_bytes / MAPPED_PER_TABLE_BYTE;
        let kept = sums.disk.used_bytes + sums.sockets_bytes_max;
        let bound = sums.resident_bytes + tables + kept;
        let passed = now.saturating_sub(self.looked_at).as_millis().max(1);
        let grown = bound.saturating_sub(self.bound);
        self.growth_per_ms = grown / u64::try_from(passed).unwrap_or(u64::MAX);
        (self.looked_at, self.bound, self.sums) = (now, bound, *sums);
        self.headroom = self.limit.saturating_sub(loosely(bound));
        if self.headroom == 0
            || bound.saturating_sub(self.discount) > with_part(self.peak)
            || now >= self.split_at + SPLIT_EVERY
        {
            MemoryStep::Split
        } else {
            self.first = None;
            MemoryStep::Enough
        }
    }

    pub(super) fn take_split(&mut self, now: Duration, split: &Split) -> MemoryStep {
        if split.shared_bytes > 0 {
            self.shared = Shared::Some;
        }
        let elsewhere = split.page_table_bytes + split.sockets_bytes + self.sums.disk.used_bytes;
        let bound = split.private_bytes + elsewhere;
        self.split_at = now;
        self.discount = self.bound.saturating_sub(bound);
        let mapped = split.private_bytes + split.shared_bytes;
        let files = self.sums.resident_bytes.saturating_sub(mapped);
        self.files_max = self.files_max.max(files);
        let alone = self.sums.processes <= 1;
        let certain = if alone {
            bound
        } else {
            split.largest_bytes.max(self.sums.disk.used_bytes)
        };
        // Where the limit is near, the reading to come says how much it really was.
        self.headroom = self.limit.saturating_sub(loosely(bound));
        if self.headroom == 0 {
            return MemoryStep::Exact;
        }
        self.peak = self.peak.max(certain);
        let tells = bound > with_part(self.peak) && now >= self.telling_from;
        if !alone && (tells || self.first.is_some()) {
            MemoryStep::Exact
        } else {
            self.first = None;
            MemoryStep::Enough
        }
    }

    /// `asked_at` is when the reading began.
    pub(super) fn take_exact(
        &mut self,
        asked_at: Duration,
        now: Duration,
        exact: &Exact,
    ) -> MemoryStep {
        self.telling_from = now + now.saturating_sub(asked_at) * (TELLING_SHARE - 1);
        let elsewhere = exact.page_table_bytes + exact.sockets_bytes + self.sums.disk.used_bytes;
        let held = exact.private_bytes + elsewhere;
        self.headroom = self.limit.saturating_sub(held);
        let certain = match self.first.take() {
            _ if exact.address_spaces <= 1 => held,
            Some(first) => held.min(first),
            None if held > with_part(self.peak) || held >= self.limit => {
                self.first = Some(held);
                return MemoryStep::Again;
            }
            None => return MemoryStep::Enough,
        };
        self.peak = self.peak.max(certain);
        if certain < self.limit {
            return MemoryStep::Enough;
        }
        MemoryStep::Over(Excess {
            limit: LimitName::Memory,
            peak: certain,
            at: now,
        })
    }

    /// The time for a round was over before it could say whether the limit is reached. A tree that makes itself uncountable while its
    /// upper bound is above the limit, and that much memory has gone on the machine, is taken for above it, after a few tries.
    pub(super) fn take_late(&mut self, now: Duration, machine_bytes: Option<u64>) -> MemoryStep {
        self.late += 1;
        self.evidence.see(machine_bytes);
        if self.headroom > 0 || self.late < LATE_MAX {
            return MemoryStep::Enough;
        }
        self.over_by_evidence(now)
    }

    fn over_by_evidence(&mut self, now: Duration) -> MemoryStep {
        if !self.evidence.is_above() {
            return MemoryStep::Enough;
        }
        self.peak = self.peak.max(self.limit);
        MemoryStep::Over(Excess {
            limit: LimitName::Memory,
            peak: self.limit,
            at: now,
        })
    }
}

fn loosely(bytes: u64) -> u64 {
    bytes + bytes / LOOSE_PART
}

fn with_part(peak: u64) -> u64 {
    peak + peak / PEAK_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn watch(limit_mib: u64) -> MemoryWatch {
        let limits = Limits {
            memory_bytes: wpool_protocol::quantity::ByteSize::mib(limit_mib),
            ..Limits::DEFAULT
        };
        MemoryWatch::new(&limits, 1)
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sums(processes: u32, resident_mib: u64, files_mib: u64) -> Sums {
        let mut sums = Sums {
            processes,
            tasks: processes,
            resident_bytes: resident_mib * MIB,
            ..Sums::default()
        };
        sums.disk.used_bytes = files_mib * MIB;
        sums
    }

    fn split(private_mib: u64, shared_mib: u64, largest_mib: u64) -> Split {
        Split {
            sockets_bytes: 0,
            private_bytes: private_mib * MIB,
            shared_bytes: shared_mib * MIB,
            page_table_bytes: 0,
            largest_bytes: largest_mib * MIB,
        }
    }

    fn exact(private_mib: u64, address_spaces: u32) -> Exact {
        Exact {
            sockets_bytes: 0,
            private_bytes: private_mib * MIB,
            page_table_bytes: 0,
            address_spaces,
        }
    }

    #[test]
    fn far_from_the_limit_sums_are_enough_and_the_next_look_is_far() {
        let mut watch = watch(1024);
        assert_eq!(watch.take_sums(at(10), &sums(1, 20, 0)), MemoryStep::Split);
        assert_eq!(
            watch.take_split(at(10), &split(15, 0, 15)),
            MemoryStep::Enough
        );
        assert_eq!(watch.peak(), 15 * MIB);
        assert_eq!(watch.next_look(), at(110));
        assert_eq!(
            watch.take_sums(at(110), &sums(1, 20, 0)),
            MemoryStep::Enough
        );
        // Once in a while what the sums cannot see is looked for.
        assert_eq!(watch.take_sums(at(510), &sums(1, 20, 0)), MemoryStep::Split);
    }

    #[test]
    fn the_next_look_comes_before_the_limit_can_be_reached() {
        let mut watch = watch(128);
        assert_eq!(watch.take_sums(at(10), &sums(1, 30, 0)), MemoryStep::Split);
        watch.take_split(at(10), &split(30, 0, 30));
        // 30 MiB in 10 ms is what pages of 4 KiB allow; 97 MiB are left, less the loose part.
        let next = watch.next_look();
        assert!(next > at(35) && next <= at(10 + 98 / 3), "{next:?}");
        // One that grows faster is looked at sooner.
        watch.take_sums(at(15), &sums(1, 70, 0));
        watch.take_split(at(15), &split(70, 0, 70));
        assert!(
            watch.next_look() <= at(15 + 56 / 8),
            "{:?}",
            watch.next_look()
        );
    }

    #[test]
    fn one_process_is_over_at_the_first_exact_reading() {
        let mut watch = watch(128);
        assert_eq!(watch.take_sums(at(10), &sums(1, 140, 0)), MemoryStep::Split);
        assert_eq!(
            watch.take_split(at(10), &split(130, 0, 130)),
            MemoryStep::Exact
        );
        let over = watch.take_exact(at(10), at(11), &exact(129, 1));
        assert!(matches!(over, MemoryStep::Over(Excess { peak, .. }) if peak == 129 * MIB));
    }

    #[test]
    fn several_processes_are_over_only_when_two_readings_say_so() {
        let mut watch = watch(128);
        let round = |watch: &mut MemoryWatch, mib| {
            assert_eq!(watch.take_sums(at(10), &sums(3, 300, 0)), MemoryStep::Split);
            assert_eq!(
                watch.take_split(at(10), &split(290, 0, 100)),
                MemoryStep::Exact
            );
            watch.take_exact(at(10), at(12), &exact(mib, 3))
        };
        assert_eq!(round(&mut watch, 140), MemoryStep::Again);
        assert_eq!(round(&mut watch, 100), MemoryStep::Enough);
        assert_eq!(watch.peak(), 100 * MIB);
        assert_eq!(round(&mut watch, 140), MemoryStep::Again);
        assert!(
            matches!(round(&mut watch, 135), MemoryStep::Over(Excess { peak, .. }) if peak == 135 * MIB)
        );
    }

    #[test]
    fn mapped_files_count_once_wherever_they_are_mapped() {
        let mut watch = watch(128);
        watch.take_sums(at(10), &sums(4, 360, 90));
        let step = watch.take_split(at(10), &split(4, 350, 2));
        assert_eq!(step, MemoryStep::Enough);
        assert_eq!(watch.peak(), 90 * MIB);
        watch.take_sums(at(20), &sums(4, 400, 90));
        let step = watch.take_split(at(20), &split(50, 350, 30));
        assert_eq!(step, MemoryStep::Exact);
        for expected in [MemoryStep::Again, MemoryStep::Enough] {
            assert_eq!(watch.take_exact(at(20), at(21), &exact(20, 4)), expected);
        }
        assert_eq!(watch.peak(), 110 * MIB);
    }

    #[test]
    fn a_tree_that_cannot_be_counted_in_time_is_ended_if_so_much_memory_is_gone() {
        let rounds = |limit, gone_mib: u64| {
            let mut watch = watch(limit);
            watch.close(at(5), Round::Whole, Some(900 * MIB));
            assert_eq!(watch.take_sums(at(10), &sums(3, 300, 0)), MemoryStep::Split);
            (1..9).position(|n| {
                watch.take_split(at(500 * n), &split(290, 0, 100));
                let step = watch.take_late(at(500 * n), Some((900 + gone_mib) * MIB));
                matches!(step, MemoryStep::Over(_))
            })
        };
        let mut never_seen = watch(128);
        never_seen.see_machine(Some(900 * MIB));
        never_seen.take_sums(at(10), &sums(3, 300, 0));
        let is_over = |n: u64| {
            let step = never_seen.take_late(at(500 * n), Some(1_100 * MIB));
            matches!(step, MemoryStep::Over(_))
        };
        assert_eq!((1..9).position(is_over), Some(2));
        assert_eq!(rounds(128, 200), Some(2));
        assert_eq!(rounds(128, 100), None);
        assert_eq!(rounds(1_024, 2_000), None);
    }

    #[test]
    fn a_tree_that_cannot_be_seen_whole_stands_still_only_if_memory_is_gone() {
        let mut watch = watch(1_024);
        let mut look = |ms, round, machine_mib: u64| {
            watch.take_sums(at(ms), &sums(3, 20, 0));
            let step = watch.close(at(ms), round, Some(machine_mib * MIB));
            let over = matches!(step, MemoryStep::Over(_));
            (watch.next_look(), watch.wants_standstill(), over)
        };
        assert_eq!(look(10, Round::Whole, 700), (at(110), false, false));
        for n in 1..9 {
            let next = at(110 + 100 * n);
            assert_eq!(look(10 + 100 * n, Round::Torn, 1_000), (next, false, false));
        }
        // Others give back what they had.
        assert_eq!(look(910, Round::Torn, 500), (at(1_010), false, false));
        assert_eq!(look(1_010, Round::Torn, 1_001), (at(1_110), false, false));
        assert_eq!(look(1_110, Round::Torn, 1_010), (at(1_115), true, false));
        assert_eq!(look(1_115, Round::Still, 1_010), (at(1_215), false, false));
        assert_eq!(look(1_215, Round::Torn, 2_100), (at(1_220), false, false));
        assert_eq!(look(1_220, Round::Torn, 2_100), (at(1_225), true, false));
        assert_eq!(look(1_225, Round::Defied, 2_100), (at(1_230), true, false));
        assert_eq!(look(1_230, Round::Defied, 2_100), (at(1_235), true, true));
    }

    #[test]
    fn what_lies_in_sockets_counts() {
        let mut watch = watch(128);
        let full = Sums {
            sockets_bytes_max: 200 * MIB,
            ..sums(1, 40, 0)
        };
        let idle = Split {
            sockets_bytes: MIB,
            ..split(40, 0, 40)
        };
        assert_eq!(watch.take_sums(at(10), &full), MemoryStep::Split);
        assert_eq!(watch.take_split(at(10), &idle), MemoryStep::Enough);
        assert_eq!(watch.peak(), 41 * MIB);
        let held = Split {
            sockets_bytes: 90 * MIB,
            ..idle
        };
        assert_eq!(watch.take_sums(at(20), &full), MemoryStep::Split);
        assert_eq!(watch.take_split(at(20), &held), MemoryStep::Exact);
        let held = Exact {
            sockets_bytes: 90 * MIB,
            ..exact(40, 1)
        };
        assert!(matches!(
            watch.take_exact(at(20), at(21), &held),
            MemoryStep::Over(Excess { peak, .. }) if peak == 130 * MIB
        ));
    }
}
