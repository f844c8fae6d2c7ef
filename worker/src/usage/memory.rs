//! Memory of a tree against its limit, from bounds that get dearer as they get closer.
//!
//! ```text
//!   sums ──── surely below, no new peak ───────────────────────────▶ enough
//!     │ may be above, or a new peak
//!   split ─── surely below, and a peak that needs no closer look ──▶ enough
//!     │ may be above, or a new peak of many processes
//!   exact ─── below, however its shared memory is counted ─────────▶ enough
//!     │  └─── above ──▶ over; if processes came or went meanwhile, only when a second pass says so too
//!   files mapped ── below ─────────────────────────────────────────▶ enough
//!     └──── above ──▶ over
//! ```
//!
//! Memory is: private pages, shared memory, page tables, each counted once, and what lies in the job's tmpfs.
//! Mapped files of the host are not in it, as they are in no cgroup's either once somebody else has read them.
//!
//! # Invariants
//!
//! - Only an exact reading ends a job. While one is taken a page can move from a process already
//!   read to one yet to be read (a parent of 100 MB forks), so that a sum of several processes that changed
//!   meanwhile has to be confirmed by the next.
//! - The peak never exceeds what was held: of several processes it comes from exact readings, or from one of them alone.

use std::time::Duration;

use wpool_protocol::limits::{LimitName, Limits};

use super::reading::{Changed, Disk, Exact, FilesMapped, Split, Sums};
use super::verdict::Excess;

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
    /// Read what is mapped of the tmpfs.
    FilesMapped,
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
    looked_at: Duration,
    /// The sums' bound at the last look, and what is left to the limit by the best bound.
    bound: u64,
    headroom: u64,
    /// By how much the sums' bound was above the split's.
    discount: u64,
    split_at: Duration,
    telling_from: Duration,
    growth_per_ms: u64,
    confirming: bool,
    /// The last sum of several processes that changed while they were read.
    unsettled: u64,
    sums: Sums,
    exact: Exact,
}

impl MemoryWatch {
    pub(super) fn new(limits: &Limits, cores: u16) -> Self {
        Self {
            limit: limits.memory_bytes.0,
            cores: u64::from(cores.max(1)),
            peak: 0,
            files_max: 0,
            looked_at: Duration::ZERO,
            bound: 0,
            headroom: limits.memory_bytes.0,
            discount: 0,
            split_at: Duration::ZERO,
            telling_from: Duration::ZERO,
            growth_per_ms: GROWTH_PER_MS,
            confirming: false,
            unsettled: 0,
            sums: Sums::default(),
            exact: Exact::default(),
        }
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    pub(super) fn files_max(&self) -> u64 {
        self.files_max
    }

    /// When to look next.
    pub(super) fn next_look(&self) -> Duration {
        let cores = self.cores.min(2 * u64::from(self.sums.tasks.max(1)));
        let per_ms = self.growth_per_ms.max(GROWTH_PER_MS * cores);
        let reached = Duration::from_millis(self.headroom / per_ms);
        self.looked_at + reached.clamp(LOOK_MIN, LOOK_MAX)
    }

    pub(super) fn take_sums(&mut self, now: Duration, sums: &Sums) -> MemoryStep {
        let tables = sums.address_space_bytes / MAPPED_PER_TABLE_BYTE;
        let bound = sums.resident_bytes + tables + sums.disk.used_bytes;
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
            self.confirming = false;
            MemoryStep::Enough
        }
    }

    pub(super) fn take_split(&mut self, now: Duration, split: &Split) -> MemoryStep {
        let Disk { used_bytes, .. } = self.sums.disk;
        let held = split.private_bytes + split.shared_bytes;
        let bound = held + split.page_table_bytes + used_bytes;
        self.split_at = now;
        self.discount = self.bound.saturating_sub(bound);
        self.files_max = self
            .files_max
            .max(self.sums.resident_bytes.saturating_sub(held));
        let alone = self.sums.processes <= 1;
        let certain = if alone {
            split.private_bytes + split.page_table_bytes + split.shared_bytes.max(used_bytes)
        } else {
            split.largest_bytes.max(used_bytes)
        };
        // Where the limit is near, the reading to come says how much it really was.
        self.headroom = self.limit.saturating_sub(loosely(bound));
        if self.headroom == 0 {
            return MemoryStep::Exact;
        }
        self.peak = self.peak.max(certain);
        if !alone && bound > with_part(self.peak) && now >= self.telling_from {
            MemoryStep::Exact
        } else {
            self.confirming = false;
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
        self.exact = *exact;
        self.telling_from = now + now.saturating_sub(asked_at) * (TELLING_SHARE - 1);
        let used_bytes = self.sums.disk.used_bytes;
        let own = exact.private_bytes + exact.page_table_bytes;
        let certain = own + exact.shared_bytes.max(used_bytes);
        let bound = own + exact.shared_bytes + used_bytes;
        if certain >= self.limit {
            self.judge(now, certain)
        } else if bound >= self.limit {
            MemoryStep::FilesMapped
        } else {
            self.headroom = self.limit - bound;
            self.judge(now, certain)
        }
    }

    pub(super) fn take_files_mapped(&mut self, now: Duration, mapped: FilesMapped) -> MemoryStep {
        let exact = &self.exact;
        let elsewhere = exact.shared_bytes.saturating_sub(mapped.bytes);
        let own = exact.private_bytes + exact.page_table_bytes;
        let held = own + elsewhere + self.sums.disk.used_bytes;
        self.headroom = self.limit.saturating_sub(held);
        self.judge(now, held)
    }

    /// Decides on what the tree holds by the last exact reading.
    fn judge(&mut self, now: Duration, held: u64) -> MemoryStep {
        let settled = self.exact.address_spaces <= 1 || self.exact.changed == Changed::No;
        let certain = if settled {
            held
        } else {
            held.min(self.unsettled)
        };
        self.unsettled = if settled { 0 } else { held };
        self.peak = self.peak.max(certain);
        if held < self.limit {
            self.confirming = false;
            MemoryStep::Enough
        } else if settled || self.confirming {
            MemoryStep::Over(Excess {
                limit: LimitName::Memory,
                peak: self.peak,
                at: now,
            })
        } else {
            self.confirming = true;
            MemoryStep::Again
        }
    }
}

fn loosely(bytes: u64) -> u64 {
    bytes + bytes / LOOSE_PART
}

fn with_part(peak: u64) -> u64 {
    peak + peak / PEAK_PART
}
