//! Memory of a tree, read more and more closely.
//!
//! # Invariants
//!
//! - No process can make one reading long: who has more page tables than what it may hold needs is not looked into.

use std::fs::File;
use std::io::{BufRead as _, BufReader};

use rustix::fs::OFlags;

use super::text::{Mappings, Rollup, Status};
use super::{JobDisk, TreeError, TreeReader, is_gone, is_gone_io, is_refused, reading};
use crate::usage::reading::{Exact, FilesMapped, Split};

/// Page tables that are walked in any case: some 50 ms of the kernel's. Who maps 16 GiB has as many, zero pages or not.
pub(super) const TABLES_MIN: u64 = 32 << 20;

impl TreeReader {
    /// Memory by kind, of the processes of the last [`TreeReader::sums`].
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn split(&mut self) -> Result<Split, TreeError> {
        let mut split = Split {
            sockets_bytes: self.sockets_bytes()?,
            ..Split::default()
        };
        for pid in self.members.clone() {
            self.go_on()?;
            let Some(status) = self.status(pid)? else {
                continue;
            };
            split.private_bytes += status.private;
            split.shared_bytes += status.shared;
            split.page_table_bytes += status.page_tables;
            split.largest_bytes = split.largest_bytes.max(status.private + status.page_tables);
        }
        Ok(split)
    }

    /// Memory with every page counted once, of the processes of the last [`TreeReader::sums`].
    ///
    /// It stops where the sum has reached `enough`: a part of a tree that is above a limit says it all.
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn exact(&mut self, enough: u64) -> Result<Exact, TreeError> {
        let mut exact = Exact {
            sockets_bytes: self.sockets_bytes()?,
            ..Exact::default()
        };
        // What a process needs that holds `enough` in pages of 4 KiB, twice.
        self.tables_max = TABLES_MIN + enough / 256;
        let mut spaces = Vec::new();
        for pid in self.address_spaces() {
            self.go_on()?;
            if let Some(status) = self.status(pid)? {
                exact.address_spaces += 1;
                exact.page_table_bytes += status.page_tables;
                spaces.push((pid, status));
            }
        }
        // They may say it all, and cost nothing to read; what they map is walked for its pages.
        if exact.page_table_bytes >= enough {
            return Ok(exact);
        }
        for (pid, status) in spaces {
            self.go_on()?;
            let Some(rollup) = self.rollup(pid, &status)? else {
                continue;
            };
            exact.private_bytes += rollup.private;
            exact.shared_bytes += rollup.shared;
            if exact.private_bytes + exact.shared_bytes + exact.page_table_bytes >= enough {
                break;
            }
        }
        Ok(exact)
    }

    /// One process's part of memory; `None` if it is gone. Where nobody may look, its looser figures count.
    ///
    /// Whoever has more page tables than `tables_max` (the same pages mapped again and again, or very many zero pages) could keep the
    /// kernel walking them for seconds. It is not looked at: private pages count in full, also those that a fork shares; shared ones are
    /// files of the job's, which count by themselves.
    fn rollup(&mut self, pid: u32, status: &Status) -> Result<Option<Rollup>, TreeError> {
        if status.page_tables > self.tables_max {
            return Ok(Some(Rollup {
                private: status.private,
                shared: 0,
            }));
        }
        match self.read(pid, "smaps_rollup", None) {
            Ok(Some(_)) => Ok(Some(Rollup::parse(self.text()))),
            Ok(None) => Ok(None),
            Err(error) if is_refused(&error) => Ok(Some(Rollup {
                private: status.private,
                shared: status.shared,
            })),
            Err(error) => Err(reading("the memory")(error)),
        }
    }

    fn sockets_bytes(&mut self) -> Result<u64, TreeError> {
        let held = self.sockets.held(self.sockets_count);
        held.map_err(reading("the sockets"))
    }

    /// How much of the job's tmpfs is mapped, by the processes of the last [`TreeReader::sums`].
    ///
    /// # Errors
    ///
    /// [`TreeError`]
    pub fn files_mapped(&mut self) -> Result<FilesMapped, TreeError> {
        let mut mapped = FilesMapped::default();
        let Some(&JobDisk { major, minor, .. }) = self.disk.as_ref() else {
            return Ok(mapped);
        };
        for pid in self.address_spaces() {
            self.go_on()?;
            let status = self.status(pid)?.unwrap_or_default();
            if status.page_tables > self.tables_max {
                // Nothing of what it shares was counted.
                continue;
            }
            let file = match self.open(pid, "smaps", OFlags::RDONLY) {
                Ok(file) => File::from(file),
                Err(error) if is_gone(error) || is_refused(&error.into()) => {
                    mapped.gone += 1;
                    continue;
                }
                Err(error) => return Err(reading("the mappings")(error)),
            };
            let mut lines = 0u32;
            let mut mappings = Mappings::of_device(major, minor);
            for line in BufReader::with_capacity(32 << 10, file).split(b'\n') {
                match line {
                    Ok(line) => mappings.line(&line),
                    Err(error) if is_gone_io(&error) => break,
                    Err(error) => return Err(reading("the mappings")(error)),
                }
                lines += 1;
            }
            // A process that is ending has no mapping at all, or in the middle of them none any more.
            let is_whole = lines > 0 && self.has_memory(pid)?;
            mapped.gone += u32::from(!is_whole);
            mapped.bytes += mappings.finish();
        }
        Ok(mapped)
    }

    /// Whether a process still has its memory: one that is ending has not, long before it is gone.
    fn has_memory(&mut self, pid: u32) -> Result<bool, TreeError> {
        match self.read(pid, "statm", None) {
            Ok(Some(_)) => Ok(!self.text().starts_with(b"0 ")),
            Ok(None) => Ok(false),
            Err(error) if is_refused(&error) => Ok(true),
            Err(error) => Err(reading("the memory")(error)),
        }
    }
}
