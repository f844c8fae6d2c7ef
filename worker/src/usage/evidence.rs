//! What tells of memory that no look has found: private memory of all processes of the machine.
//!
//! It is no proof: others take memory, too, and give it back. So it decides only whether to look more closely, and what to make of a tree that
//! lets nobody look.
//!
//! # Invariants
//!
//! - Without it everything is evident: where nothing is known of the machine, nobody relies on that.

/// How the machine's memory stood when all of the job was seen, and how it stands now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// What the job had left when all was seen, last.
    headroom: u64,
    /// The least of the machine's since then.
    least: Option<u64>,
    now: Option<u64>,
}

impl Evidence {
    /// Nothing has been seen of a job that has so much left.
    pub(super) const fn of_nothing(headroom: u64) -> Self {
        Self {
            headroom,
            least: None,
            now: None,
        }
    }

    /// All of the job was seen, and it has so much left.
    pub(super) const fn all_seen(&mut self, headroom: u64) {
        (self.headroom, self.least) = (headroom, None);
    }

    /// So much is private memory of all processes of the machine, if that is known.
    pub(super) fn see(&mut self, machine_bytes: Option<u64>) {
        self.now = machine_bytes;
        // Others give memory back, too: what counts is the growth since the least.
        self.least = [self.least, machine_bytes].into_iter().flatten().min();
    }

    /// Whether the machine's has grown by half of what the job had left: it may be near its limit.
    pub(super) fn is_near(&self) -> bool {
        self.grown() >= self.headroom / 2
    }

    /// Whether it has grown by all of that.
    pub(super) fn is_above(&self) -> bool {
        self.grown() >= self.headroom
    }

    fn grown(&self) -> u64 {
        let grown = self.least.zip(self.now).map(|(least, now)| now - least);
        grown.unwrap_or(u64::MAX)
    }
}
