//! The connections that are there, and who has to make room.
//!
//! # Invariants
//!
//! - Never more than `connections_max` in all and `connections_per_peer_max` of one user.
//! - Whoever idles makes room for whoever comes: first the user's own connection that has idled longest, and when all
//!   are taken that of anybody. A request that is being answered is never cut off for another; one whose body has not come whole
//!   idles from its last piece on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::config::HttpBounds;

/// The connections that are there.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
    /// How many there are.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    entries: BTreeMap<u64, Entry>,
    by_peer: BTreeMap<u32, usize>,
    /// When the last one went.
    left_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    uid: u32,
    /// Since when nothing is asked on it; `None` while something is answered.
    idle_since: Option<Instant>,
    close: Arc<Notify>,
}

/// A place among the connections, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    connections: Connections,
    /// Tells that somebody else needs the place.
    pub(super) close: Arc<Notify>,
    /// Tells that something was asked on the connection, now or before.
    pub(super) asked: Notify,
}

/// A request that is being answered, for as long as this lives.
#[derive(Debug)]
pub(super) struct Busy {
    id: u64,
    connections: Connections,
    /// Tells the body that the answer is still to come.
    alive: Arc<()>,
}

/// A body that is still to come, for as long as this lives.
#[derive(Debug)]
pub(super) struct Receiving {
    id: u64,
    connections: Connections,
    answer: Weak<()>,
}

/// There is no place, and nobody idles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPlace;

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            table: Arc::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Resolves when there have been none for so long.
    pub(super) async fn left_alone(&self, quiet: Duration) {
        let mut count = self.count.subscribe();
        loop {
            // The sender is ours: it does not go away while we wait.
            drop(count.wait_for(|count| *count == 0).await);
            let alone = self.table().left_at.map(|at| at.elapsed());
            let Some(rest) = alone.and_then(|alone| quiet.checked_sub(alone)) else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = count.changed() => {}
            }
        }
    }

    /// A place for a connection of this user; somebody who idles may lose theirs.
    pub(super) fn take_place(&self, uid: u32, bounds: &HttpBounds) -> Result<Place, NoPlace> {
        let mut table = self.table();
        if table.of(uid) >= bounds.connections_per_peer_max {
            table.evict(Some(uid))?;
        } else if table.entries.len() >= bounds.connections_max {
            table.evict(None)?;
        }
        table.last += 1;
        let id = table.last;
        let close = Arc::new(Notify::new());
        let entry = Entry {
            uid,
            idle_since: Some(Instant::now()),
            close: Arc::clone(&close),
        };
        table.entries.insert(id, entry);
        *table.by_peer.entry(uid).or_default() += 1;
        self.count.send_replace(table.entries.len());
        drop(table);
        Ok(Place {
            id,
            connections: self.clone(),
            close,
            asked: Notify::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that holds it can panic half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_idle(&self, id: u64, since: Option<Instant>) {
        if let Some(entry) = self.table().entries.get_mut(&id) {
            entry.idle_since = since;
        }
    }
}

impl Table {
    fn of(&self, uid: u32) -> usize {
        self.by_peer.get(&uid).copied().unwrap_or(0)
    }

    /// Closes the connection, of this user or of anybody, that has idled longest.
    fn evict(&mut self, uid: Option<u32>) -> Result<(), NoPlace> {
        let entries = self.entries.iter();
        let idle = entries
            .filter(|(_, entry)| uid.is_none_or(|uid| uid == entry.uid))
            .filter_map(|(id, entry)| Some((entry.idle_since?, *id)));
        let (_, id) = idle.min().ok_or(NoPlace)?;
        if let Some(entry) = self.remove(id) {
            entry.close.notify_one();
        }
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.left_at = Some(Instant::now());
        if let Some(count) = self.by_peer.get_mut(&entry.uid) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&entry.uid);
            }
        }
        Some(entry)
    }
}

impl Place {
    /// Something is asked on the connection.
    pub(super) fn busy(&self) -> Busy {
        self.connections.set_idle(self.id, None);
        self.asked.notify_one();
        Busy {
            id: self.id,
            connections: self.connections.clone(),
            alive: Arc::default(),
        }
    }

    /// Something is asked on the connection, whose body is still to come.
    pub(super) fn receiving(&self) -> (Busy, Receiving) {
        let busy = self.busy();
        let receiving = Receiving {
            id: self.id,
            connections: self.connections.clone(),
            answer: Arc::downgrade(&busy.alive),
        };
        receiving.got_some();
        (busy, receiving)
    }
}

impl Receiving {
    /// A piece of the body has come.
    pub(super) fn got_some(&self) {
        self.connections.set_idle(self.id, Some(Instant::now()));
    }

    /// All of the body has come, or nobody wants the rest: what remains is the answer, if it has not been given.
    pub(super) fn got_all(&self) {
        if self.answer.strong_count() > 0 {
            self.connections.set_idle(self.id, None);
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.got_all();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connections.set_idle(self.id, Some(Instant::now()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        // It is gone already if it was taken for somebody else.
        drop(table.remove(self.id));
        self.connections.count.send_replace(table.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(all: usize, per_peer: usize) -> HttpBounds {
        HttpBounds {
            connections_max: all,
            connections_per_peer_max: per_peer,
            ..HttpBounds::default()
        }
    }

    /// Whether somebody else has got its place.
    fn is_evicted(place: &Place) -> bool {
        !place.connections.table().entries.contains_key(&place.id)
    }

    #[test]
    fn a_user_makes_room_for_themselves_and_for_others_only_when_all_is_taken() {
        let connections = Connections::new();
        let bounds = bounds(4, 3);
        let mine: Vec<_> = (0..3)
            .map(|_| connections.take_place(1, &bounds).unwrap())
            .collect();
        let _other = connections.take_place(2, &bounds).unwrap();
        assert!(!is_evicted(&mine[0]));
        let _fourth = connections.take_place(1, &bounds).unwrap();
        assert!(is_evicted(&mine[0]), "the user's own bound");
        let _third = connections.take_place(3, &bounds).unwrap();
        assert!(is_evicted(&mine[1]), "the bound of all");
        assert_eq!(connections.table().entries.len(), 4);
    }

    #[test]
    fn what_is_being_answered_is_not_cut_off() {
        let connections = Connections::new();
        let bounds = bounds(9, 2);
        let first = connections.take_place(1, &bounds).unwrap();
        let second = connections.take_place(1, &bounds).unwrap();
        let busy = (first.busy(), second.busy());
        assert_eq!(connections.take_place(1, &bounds).map(drop), Err(NoPlace));
        drop(busy);
        assert!(connections.take_place(1, &bounds).is_ok());
        assert!(is_evicted(&first) != is_evicted(&second));
    }

    #[test]
    fn half_a_request_makes_room_and_a_whole_one_does_not() {
        let connections = Connections::new();
        let bounds = bounds(9, 2);
        let first = connections.take_place(1, &bounds).unwrap();
        let second = connections.take_place(1, &bounds).unwrap();
        let (_first_busy, first_body) = first.receiving();
        let (_second_busy, second_body) = second.receiving();
        second_body.got_some();
        first_body.got_all();
        let _third = connections.take_place(1, &bounds).unwrap().busy();
        assert!(is_evicted(&second) && !is_evicted(&first));
    }

    #[test]
    fn a_body_that_nobody_wants_does_not_keep_its_connection_idle_or_busy() {
        let connections = Connections::new();
        let bounds = bounds(9, 1);
        let place = connections.take_place(1, &bounds).unwrap();
        let (busy, body) = place.receiving();
        drop(body);
        assert_eq!(connections.take_place(1, &bounds).map(drop), Err(NoPlace));
        drop(busy);
        let (busy, body) = place.receiving();
        drop(busy);
        drop(body);
        assert!(connections.take_place(1, &bounds).is_ok());
    }

    #[test]
    fn a_place_is_free_when_its_connection_is_gone() {
        let connections = Connections::new();
        let bounds = bounds(9, 1);
        for _ in 0..3 {
            let place = connections.take_place(1, &bounds).unwrap();
            let busy = place.busy();
            drop(place);
            drop(busy);
        }
        let table = connections.table();
        assert!(table.entries.is_empty() && table.by_peer.is_empty());
    }
}
