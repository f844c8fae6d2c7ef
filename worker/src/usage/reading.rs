//! What can be read of a job's tree, from cheap to dear.
//!
//! | reading | for 64 processes of 1 MiB | memory in it |
//! | --- | --- | --- |
//! | [`Sums`] | 0.25 ms | an upper bound: shared pages count once for each sharer, files count |
//! | [`Split`] | 0.5 ms | an upper bound, without files |
//! | [`Exact`] | 2.5 ms, and more with every page | each page once |
//!
//! # Invariants
//!
//! - The job's init is in none of these figures but for the CPU time of the children that it has reaped.
//! - A reading is not a snapshot: processes come and go while it is taken. See [`super::cpu`] and
//!   `super::memory` for what that does to the sums.

use std::time::Duration;

/// The cheap sums of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Processes; those that have ended and are not reaped count.
    pub processes: u32,
    /// Processes and threads.
    pub tasks: u32,
    /// CPU time of all that live, and of all that they have reaped.
    pub cpu: Duration,
    /// Resident sets.
    pub resident_bytes: u64,
    /// Address spaces.
    pub address_space_bytes: u64,
    /// The most that lies in sockets.
    pub sockets_bytes_max: u64,
    /// The job's files.
    pub disk: Disk,
}

/// How full the job's tmpfs is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Whether the next byte or the next file fails.
    pub room: Room,
}

/// Whether a tmpfs has room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// It has.
    #[default]
    Left,
    /// No block or no inode is free.
    Exhausted,
}

/// Memory by kind, without a look at who shares what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Private pages; a page shared by a fork counts in both.
    pub private_bytes: u64,
    /// Mapped shared memory; it counts once for each that maps it.
    pub shared_bytes: u64,
    /// Page tables.
    pub page_table_bytes: u64,
    /// Private pages and page tables of the process that has most.
    pub largest_bytes: u64,
    /// What lies in sockets; of a few sockets, nothing.
    pub sockets_bytes: u64,
}

/// Memory with every page counted once, but for mapped files: those of the job's are in [`Disk`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exact {
    /// Private pages.
    pub private_bytes: u64,
    /// Page tables.
    pub page_table_bytes: u64,
    /// What lies in sockets; of a few sockets, nothing.
    pub sockets_bytes: u64,
    /// Address spaces that were read; with one, no page can have moved from one to another meanwhile.
    pub address_spaces: u32,
}
