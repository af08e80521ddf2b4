//! How the members of a team exchange their parts of an activation.
//!
//! Each member writes its part, all wait at a barrier, and then each reads all parts. There are two
//! sets of parts, used alternately: a member that is ahead by one exchange writes into one set while
//! others still read the other, and no member can be ahead by two. So no lock is ever contended.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::kernels::team::Member;

/// Two sets of parts, each with one part for each member.
#[derive(Debug)]
pub(super) struct Exchange {
    sets: [Vec<RwLock<Vec<f32>>>; 2],
}

/// One member's view of the exchanges of a task. All members make the same exchanges in the same
/// order.
#[derive(Debug)]
pub(super) struct MemberExchange<'a> {
    pub(super) member: Member<'a>,
    exchange: &'a Exchange,
    exchanges: usize,
}

/// The parts of all members, in order.
#[derive(Debug)]
pub(super) struct Parts<'a>(Vec<RwLockReadGuard<'a, Vec<f32>>>);

impl Exchange {
    pub(super) fn new(members: usize) -> Self {
        let set = || (0..members).map(|_| RwLock::default()).collect();
        Self { sets: [set(), set()] }
    }

    /// The view of `member` at the start of a task.
    pub(super) fn of_member<'a>(&'a self, member: Member<'a>) -> MemberExchange<'a> {
        MemberExchange { member, exchange: self, exchanges: 0 }
    }
}

impl<'a> MemberExchange<'a> {
    /// Lets `write` fill this member's part, `len` values of unspecified content, and waits for the
    /// parts of the others.
    pub(super) fn share(&mut self, len: usize, write: impl FnOnce(&mut [f32])) -> Parts<'a> {
        let set = &self.exchange.sets[self.exchanges % 2];
        self.exchanges += 1;
        let mut own = set[self.member.index].write().unwrap_or_else(PoisonError::into_inner);
        own.resize(len, 0.0);
        write(&mut own);
        drop(own);
        self.member.wait();
        let read = |part: &'a RwLock<_>| part.read().unwrap_or_else(PoisonError::into_inner);
        Parts(set.iter().map(read).collect())
    }
}

impl Parts<'_> {
    /// The parts in the order of their members.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.0.iter().map(|part| part.as_slice())
    }

    /// Joins parts that are columns of a matrix into its `count` rows, row-major.
    pub(super) fn join_columns(&self, count: usize, rows: &mut Vec<f32>) {
        rows.clear();
        for r in 0..count {
            for part in self.iter() {
                let width = part.len() / count;
                rows.extend_from_slice(&part[r * width..][..width]);
            }
        }
    }
}
