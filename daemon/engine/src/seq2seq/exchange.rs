//! How the members of a team give each other their parts of an activation.
//!
//! Each member writes its part, all meet, and then everybody reads all parts. There are two sets of
//! parts, used in turn: a member that is ahead writes into the other set than the one that is
//! still read, and cannot be two ahead. So no lock is ever waited for.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::kernels::team::Member;

/// The parts, one for each member, twice.
#[derive(Debug)]
pub(crate) struct Exchange {
    sets: [Vec<RwLock<Vec<f32>>>; 2],
}

/// One member's way through the exchanges of a task. All members make the same ones.
#[derive(Debug)]
pub(crate) struct Turns<'a> {
    pub(crate) member: Member<'a>,
    exchange: &'a Exchange,
    turn: usize,
}

/// The parts of all members, in order.
#[derive(Debug)]
pub(crate) struct Parts<'a>(Vec<RwLockReadGuard<'a, Vec<f32>>>);

impl Exchange {
    pub(crate) fn new(members: usize) -> Self {
        let set = || (0..members).map(|_| RwLock::default()).collect();
        Self { sets: [set(), set()] }
    }

    pub(crate) fn turns<'a>(&'a self, member: Member<'a>) -> Turns<'a> {
        Turns { member, exchange: self, turn: 0 }
    }
}

impl<'a> Turns<'a> {
    /// Writes this member's part, `len` values of unknown content, and waits for those of the others.
    pub(crate) fn share(&mut self, len: usize, write: impl FnOnce(&mut [f32])) -> Parts<'a> {
        let set = &self.exchange.sets[self.turn % 2];
        self.turn += 1;
        let mut own = set[self.member.index].write().unwrap_or_else(PoisonError::into_inner);
        own.resize(len, 0.0);
        write(&mut own);
        drop(own);
        self.member.meet();
        let read = |part: &'a RwLock<_>| part.read().unwrap_or_else(PoisonError::into_inner);
        Parts(set.iter().map(read).collect())
    }
}

impl Parts<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.0.iter().map(|part| part.as_slice())
    }

    /// Parts of columns, side by side, as `count` whole rows.
    pub(crate) fn beside(&self, count: usize, rows: &mut Vec<f32>) {
        rows.clear();
        for r in 0..count {
            for part in self.iter() {
                let width = part.len() / count;
                rows.extend_from_slice(&part[r * width..][..width]);
            }
        }
    }
}
