//! Rows that several requests want at the same time and that are computed once.
//!
//! ```text
//! join ──▶ Waiting ──claim──▶ Computing ──land──▶ Done
//!             ▲                  │ another claim: attached to the computation
//!             └─────abandon──────┘
//! ```
//! A text waits in the lane of every request that wants it, so that no request depends on the lane
//! of another. The first worker that reaches the text, in whichever lane, claims it; the others
//! find the row done, or are attached until it is. Claims exist only while a worker computes: a
//! request that is dropped takes nothing away from others, and a computation that fails returns
//! the texts that were attached to it.
//!
//! `W` is what is attached: a text with everything that is needed to compute or to answer it.

use crate::cache::{CachedRow, EmbeddingCache, KeyHash, RowKey};
use crate::ground::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The rows that are wanted now, in front of the cache that keeps them.
#[derive(Debug)]
pub(crate) struct SingleFlight<W> {
    cache: Arc<EmbeddingCache>,
    flights: Mutex<HashMap<RowKey, Joined<W>, KeyHash>>,
}

/// One request's share in a flight: it wants the row until the ticket is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<W> {
    all: Arc<SingleFlight<W>>,
    key: RowKey,
    flight: Arc<Flight<W>>,
}

/// One row that at least one request wants.
#[derive(Debug)]
pub(crate) struct Flight<W>(Mutex<FlightState<W>>);

/// The outcome of an attempt to compute a row.
#[derive(Debug)]
pub(crate) enum Claim<W> {
    /// The caller computes it, and must land or abandon the flight afterwards.
    Granted(W),
    /// Another worker computes it, and returns what was attached when it lands or abandons.
    Attached,
    /// The row has been computed.
    Landed(W, CachedRow),
}

impl<W> SingleFlight<W> {
    /// No row is wanted yet.
    pub(crate) fn new(cache: Arc<EmbeddingCache>) -> Self {
        Self { cache, flights: Mutex::default() }
    }

    /// The cache that computed rows go to.
    pub(crate) fn cache(&self) -> &EmbeddingCache {
        &self.cache
    }

    /// Joins the flight of a key.
    pub(crate) fn join(self: &Arc<Self>, key: RowKey) -> Ticket<W> {
        let mut flights = lock(&self.flights);
        let joined = flights.entry(key).or_insert_with(|| Joined {
            flight: Arc::new(Flight(Mutex::new(FlightState::Waiting))),
            tickets: 0,
        });
        joined.tickets += 1;
        Ticket { all: Arc::clone(self), key, flight: Arc::clone(&joined.flight) }
    }

    /// How many rows are wanted.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.flights).len()
    }
}

impl<W> Ticket<W> {
    /// The flight, to be claimed.
    pub(super) fn flight(&self) -> Arc<Flight<W>> {
        Arc::clone(&self.flight)
    }

    /// The row, if it has been computed since this ticket's request looked it up. It has `width`
    /// values.
    pub(super) fn computed_meanwhile(&self, width: usize) -> Option<CachedRow> {
        // It is in the cache if it landed between that look-up and the ticket.
        let in_cache = || self.all.cache.get_again(&self.key, width, Instant::now());
        self.flight.landed().or_else(in_cache)
    }

    /// Puts a computed row into the cache. Returns what was attached, which the caller has to fill.
    ///
    /// Tickets of this flight still find the row, however late. A later request joins another
    /// flight, so that no row outlives its time in the cache here.
    pub(super) fn land(&self, row: &[f32], truncated: bool) -> Vec<W> {
        let row = CachedRow { values: row.into(), truncated };
        // The cache comes first: a request that finds no flight any more finds the row there.
        self.all.cache.insert(self.key, row.clone(), Instant::now());
        let mut flights = lock(&self.all.flights);
        if flights.get(&self.key).is_some_and(|joined| Arc::ptr_eq(&joined.flight, &self.flight)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.flight.settle(FlightState::Done(row))
    }

    /// Gives up a claim whose computation failed. Returns what was attached, to be claimed again.
    pub(super) fn abandon(&self) -> Vec<W> {
        self.flight.settle(FlightState::Waiting)
    }
}

impl<W> Drop for Ticket<W> {
    fn drop(&mut self) {
        let mut flights = lock(&self.all.flights);
        let joined = flights.get_mut(&self.key);
        if let Some(joined) = joined.filter(|joined| Arc::ptr_eq(&joined.flight, &self.flight)) {
            joined.tickets -= 1;
            if joined.tickets == 0 {
                flights.remove(&self.key);
            }
        }
    }
}

impl<W> Flight<W> {
    /// Claims the row for the caller to compute.
    pub(super) fn claim(&self, claimant: W) -> Claim<W> {
        let mut state = lock(&self.0);
        match &mut *state {
            FlightState::Waiting => {
                *state = FlightState::Computing(Vec::new());
                Claim::Granted(claimant)
            }
            FlightState::Computing(attached) => {
                attached.push(claimant);
                Claim::Attached
            }
            FlightState::Done(row) => Claim::Landed(claimant, row.clone()),
        }
    }

    fn landed(&self) -> Option<CachedRow> {
        match &*lock(&self.0) {
            FlightState::Done(row) => Some(row.clone()),
            FlightState::Waiting | FlightState::Computing(_) => None,
        }
    }

    fn settle(&self, to: FlightState<W>) -> Vec<W> {
        match std::mem::replace(&mut *lock(&self.0), to) {
            FlightState::Computing(attached) => attached,
            FlightState::Waiting | FlightState::Done(_) => Vec::new(),
        }
    }
}

/// A flight and the number of tickets for it.
#[derive(Debug)]
struct Joined<W> {
    flight: Arc<Flight<W>>,
    tickets: usize,
}

#[derive(Debug)]
enum FlightState<W> {
    Waiting,
    Computing(Vec<W>),
    Done(CachedRow),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{CacheSettings, KeySpace};
    use std::time::SystemTime;

    fn key() -> RowKey {
        KeySpace::new(&[0; 32], 1, None, "").row("text")
    }

    /// Over a cache that keeps nothing.
    fn flights<W>() -> Arc<SingleFlight<W>> {
        let settings = CacheSettings { max_entries: 0, ..CacheSettings::default() };
        let cache = EmbeddingCache::open(&settings, Instant::now(), SystemTime::now());
        Arc::new(SingleFlight::new(Arc::new(cache)))
    }

    #[test]
    fn one_computes_and_the_others_get_its_row() {
        let flights = flights();
        let [first, second, third] = [(); 3].map(|()| flights.join(key()));
        assert!(matches!(first.flight().claim("first"), Claim::Granted("first")));
        assert!(matches!(second.flight().claim("second"), Claim::Attached));
        let row = CachedRow { values: [1.0].into(), truncated: true };
        assert_eq!(first.land(&[1.0], true), ["second"]);
        let claim = third.flight().claim("third");
        assert!(matches!(claim, Claim::Landed("third", found) if found == row));
        let late = flights.join(key());
        assert!(late.computed_meanwhile(1).is_none(), "a later request does not find the row");
        drop((first, second, third, late));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn attached_waiters_are_returned_after_a_failure() {
        let flights = flights();
        let [first, second] = [(); 2].map(|()| flights.join(key()));
        assert!(matches!(first.flight().claim(1), Claim::Granted(1)));
        assert!(matches!(second.flight().claim(2), Claim::Attached));
        assert_eq!(first.abandon(), [2]);
        drop(first);
        assert!(matches!(second.flight().claim(2), Claim::Granted(2)));
        drop(second);
        assert_eq!(flights.len(), 0);
    }
}
