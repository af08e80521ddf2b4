//! Texts on their way to a row, so that whoever wants the same row waits for it.
//!
//! ```text
//! join ──▶ Waiting ──claim──▶ Computing ──land──▶ Done
//!             ▲                  │ claimed again: those wait in it
//!             └─────abandon──────┘
//! ```
//! A text waits in the lane of everyone who wants it, so that nobody is behind a lane that is not
//! his own. The worker that comes to it first, in whichever lane, claims it; the others find it
//! done, or are attached until it is. There are claims only while a worker computes: a request
//! that is dropped takes nothing away from others, and one that fails gives back who waited.

use crate::cache::CachedRow;
use crate::cache::key::{KeyHash, RowKey};
use crate::ground::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The texts that are wanted now, by key. `W` is what waits for one.
#[derive(Debug)]
pub(super) struct Flights<W> {
    table: Mutex<HashMap<RowKey, Wanted<W>, KeyHash>>,
}

/// One text that at least one request wants.
#[derive(Debug)]
pub(super) struct Flight<W>(Mutex<State<W>>);

/// What becomes of one that came to compute.
#[derive(Debug)]
pub(super) enum Claim<W> {
    /// It computes, and must land or abandon the flight afterwards.
    Yours(W),
    /// Another one computes, and will be handed this one when it is done.
    Attached,
    /// The row is there.
    Landed(W, CachedRow),
}

#[derive(Debug)]
struct Wanted<W> {
    flight: Arc<Flight<W>>,
    /// How many have joined and not left.
    joined: usize,
}

#[derive(Debug)]
enum State<W> {
    Waiting,
    Computing(Vec<W>),
    Done(CachedRow),
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self { table: Mutex::default() }
    }
}

impl<W> Flights<W> {
    /// The flight of a key, with one more that wants it. Each must leave once.
    pub(super) fn join(&self, key: RowKey) -> Arc<Flight<W>> {
        let mut table = lock(&self.table);
        let wanted = table.entry(key).or_insert_with(|| Wanted {
            flight: Arc::new(Flight(Mutex::new(State::Waiting))),
            joined: 0,
        });
        wanted.joined += 1;
        Arc::clone(&wanted.flight)
    }

    /// One wants it no more.
    pub(super) fn leave(&self, key: &RowKey, flight: &Arc<Flight<W>>) {
        let mut table = lock(&self.table);
        if let Some(wanted) = table.get_mut(key).filter(|w| Arc::ptr_eq(&w.flight, flight)) {
            wanted.joined -= 1;
            if wanted.joined == 0 {
                table.remove(key);
            }
        }
    }

    /// The row is there: for those who joined, however late they come to it. Who joins from now on
    /// joins another flight, so that no row outlives its time here. Answers who was attached.
    pub(super) fn land(&self, key: &RowKey, flight: &Arc<Flight<W>>, row: CachedRow) -> Vec<W> {
        let mut table = lock(&self.table);
        if table.get(key).is_some_and(|wanted| Arc::ptr_eq(&wanted.flight, flight)) {
            table.remove(key);
        }
        drop(table);
        flight.settle(State::Done(row))
    }

    /// How many texts are wanted.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.table).len()
    }
}

impl<W> Flight<W> {
    /// Comes to compute it.
    pub(super) fn claim(&self, who: W) -> Claim<W> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Waiting => {
                *state = State::Computing(Vec::new());
                Claim::Yours(who)
            }
            State::Computing(attached) => {
                attached.push(who);
                Claim::Attached
            }
            State::Done(row) => Claim::Landed(who, row.clone()),
        }
    }

    /// The row, if it is there.
    pub(super) fn landed(&self) -> Option<CachedRow> {
        match &*lock(&self.0) {
            State::Done(row) => Some(row.clone()),
            State::Waiting | State::Computing(_) => None,
        }
    }

    /// It could not be computed. Answers who was attached: they are to come again.
    pub(super) fn abandon(&self) -> Vec<W> {
        self.settle(State::Waiting)
    }

    fn settle(&self, to: State<W>) -> Vec<W> {
        match std::mem::replace(&mut *lock(&self.0), to) {
            State::Computing(attached) => attached,
            State::Waiting | State::Done(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeySpace;

    fn key() -> RowKey {
        KeySpace::new(&[0; 32], 1, None, "").row("text")
    }

    #[test]
    fn one_computes_and_the_others_get_its_row() {
        let flights = Flights::default();
        let [first, second, third] = [(); 3].map(|()| flights.join(key()));
        assert!(matches!(first.claim("first"), Claim::Yours("first")));
        assert!(matches!(second.claim("second"), Claim::Attached));
        let row = CachedRow { values: [1.0].into(), truncated: true };
        assert_eq!(flights.land(&key(), &first, row.clone()), ["second"]);
        assert!(matches!(third.claim("third"), Claim::Landed("third", found) if found == row));
        let late = flights.join(key());
        assert!(late.landed().is_none(), "the row is not kept for those who come later");
        for flight in [&first, &second, &third, &late] {
            flights.leave(&key(), flight);
        }
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn who_was_attached_comes_again_after_a_failure() {
        let flights = Flights::default();
        let [first, second] = [(); 2].map(|()| flights.join(key()));
        assert!(matches!(first.claim(1), Claim::Yours(1)));
        assert!(matches!(second.claim(2), Claim::Attached));
        assert_eq!(first.abandon(), [2]);
        flights.leave(&key(), &first);
        assert!(matches!(second.claim(2), Claim::Yours(2)));
        flights.leave(&key(), &second);
        assert_eq!(flights.len(), 0);
    }
}
