//! Memory of a tree, read more and more closely.
//!
//! # Invariants
//!
//! - No process can make one reading long: who has more page tables than what it may hold needs is not looked into.

use std::cmp::Ordering;

use super::text;
use super::{TreeError, TreeReader, is_refused, reading};
use crate::usage::reading::{Exact, Split};

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
        let spaces = self.address_spaces();
        for space in &spaces {
            self.go_on()?;
            for &pid in space {
                if let Some(status) = self.status(pid)? {
                    exact.page_table_bytes += status.page_tables;
                    break;
                }
            }
        }
        // They may say it all, and cost nothing to read; what they map is walked for its pages.
        if exact.page_table_bytes >= enough {
            return Ok(exact);
        }
        for space in spaces {
            self.go_on()?;
            let Some(bytes) = self.private_of_space(space)? else {
                continue;
            };
            exact.address_spaces += 1;
            exact.private_bytes += bytes;
            if exact.private_bytes + exact.page_table_bytes >= enough {
                break;
            }
        }
        Ok(exact)
    }

    /// Private memory of an address space that these processes share; `None` if all are gone.
    ///
    /// One of them speaks for all; if it ends or executes another program meanwhile, the next does.
    fn private_of_space(&mut self, mut space: Vec<u32>) -> Result<Option<u64>, TreeError> {
        let (mut sum, mut last) = (None, 0);
        while !space.is_empty() {
            let speaker = space.remove(0);
            let Some(bytes) = self.private_bytes(speaker)? else {
                continue;
            };
            let others = space.len();
            let said = sum.unwrap_or(0);
            space.retain(|&other| self.compare_memory(speaker, other) != Some(Ordering::Equal));
            // What it said is of another space than the others', or nobody knows any more: then that counts which says more.
            let is_known = space.len() < others || others == 0;
            let more = bytes.max(last);
            sum = Some(said - last + more);
            last = if is_known { 0 } else { more };
        }
        Ok(sum)
    }

    /// One process's part of private memory; `None` if it is gone. Where nobody may look, its looser figure counts.
    ///
    /// Whoever has more page tables than `tables_max` (the same pages mapped again and again, or very many zero pages) could keep the
    /// kernel walking them for seconds. It is not looked at: its pages count in full, also those that a fork shares.
    fn private_bytes(&mut self, pid: u32) -> Result<Option<u64>, TreeError> {
        let Some(status) = self.status(pid)? else {
            return Ok(None);
        };
        if status.page_tables > self.tables_max {
            return Ok(Some(status.private));
        }
        match self.read(pid, "smaps_rollup", None) {
            Ok(Some(_)) => Ok(Some(text::private_part(self.text()))),
            Ok(None) => Ok(None),
            Err(error) if is_refused(&error) => Ok(Some(status.private)),
            Err(error) => Err(reading("the memory")(error)),
        }
    }

    fn sockets_bytes(&mut self) -> Result<u64, TreeError> {
        let count = self.sockets_count;
        let held = self.sockets.as_mut().map_or(Ok(0), |it| it.held(count));
        held.map_err(reading("the sockets"))
    }
}
