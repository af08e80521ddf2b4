use crate::models::lease::{ConnectionId, LeaseError, LeaseTable, Usage};
use emberd_protocol::{LeaseId, ModelId};
use std::time::{Duration, Instant};

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn model(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

#[test]
fn leases_are_counted_per_model_and_the_last_release_is_remembered() {
    let (m, start) = (model("m"), Instant::now());
    let mut table = LeaseTable::default();
    let first = table.grant(A, &m, 9, start).unwrap();
    let second = table.grant(B, &m, 9, start).unwrap();
    assert_eq!(table.usage(&m).leases, 2);
    let later = start + Duration::from_secs(5);
    assert_eq!(table.release(A, first, later), Ok(m.clone()));
    assert_eq!(table.usage(&m), Usage { leases: 1, last_used: Some(later) });
    let last = start + Duration::from_secs(8);
    assert_eq!(table.release(B, second, last), Ok(m.clone()));
    assert_eq!(table.usage(&m), Usage { leases: 0, last_used: Some(last) });
    assert_eq!(table.usage(&model("other")), Usage::default());
}

#[test]
fn a_second_release_and_a_foreign_lease_are_refused_and_change_nothing() {
    let (m, now) = (model("m"), Instant::now());
    let mut table = LeaseTable::default();
    let id = table.grant(A, &m, 9, now).unwrap();
    assert_eq!(table.release(B, id, now), Err(LeaseError::NotHeld(id)));
    assert_eq!(table.model_of(B, id), Err(LeaseError::NotHeld(id)));
    assert_eq!(table.usage(&m).leases, 1);
    assert_eq!(table.model_of(A, id), Ok(&m));
    table.release(A, id, now).unwrap();
    assert_eq!(table.release(A, id, now), Err(LeaseError::NotHeld(id)));
    assert_eq!(table.usage(&m).leases, 0);
    assert_eq!(table.release(A, LeaseId(77), now), Err(LeaseError::NotHeld(LeaseId(77))));
}

#[test]
fn the_end_of_a_connection_ends_its_leases_and_no_others() {
    let (m, n, now) = (model("m"), model("n"), Instant::now());
    let mut table = LeaseTable::default();
    table.grant(A, &m, 9, now).unwrap();
    table.grant(A, &n, 9, now).unwrap();
    let kept = table.grant(B, &m, 9, now).unwrap();
    assert_eq!(table.end_connection(A, now), 2);
    assert_eq!(table.end_connection(A, now), 0);
    assert_eq!((table.usage(&m).leases, table.usage(&n).leases), (1, 0));
    assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [kept]);
}

#[test]
fn ids_are_never_given_twice_and_the_limit_counts_only_what_is_held() {
    let (m, now) = (model("m"), Instant::now());
    let mut table = LeaseTable::default();
    let first = table.grant(A, &m, 1, now).unwrap();
    assert_eq!(table.grant(A, &m, 1, now), Err(LeaseError::TooMany(1)));
    assert!(table.grant(B, &m, 1, now).is_ok());
    table.release(A, first, now).unwrap();
    let again = table.grant(A, &m, 1, now).unwrap();
    assert!(again > first);
}
