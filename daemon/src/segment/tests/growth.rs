//! How pools and spares grow. The backend of these tests makes segments late, or not at all.

use crate::segment::tests::conformance::{
    LONG, MIB, NO_PATIENCE, Scene, inode, is_in_this_process, run, scene,
};
use crate::segment::{
    Backend, DEFAULT_SPARES, MemfdBackend, SPARE_LEN_BYTES, Segment, SegmentError, SegmentPool,
    Spares, TotalCredit,
};
use emberd_protocol::{SegmentBackend, SegmentId};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Holds up or refuses segments as a test directs.
#[derive(Debug, Default)]
struct Directed {
    made: AtomicU32,
    largest: Option<u64>,
    is_held: Mutex<bool>,
    released: Condvar,
}

impl Backend for Directed {
    fn kind(&self) -> SegmentBackend {
        SegmentBackend::Memfd
    }

    fn create(&self, len_bytes: u64) -> Result<Segment, SegmentError> {
        let held = self.is_held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        if self.largest.is_some_and(|largest| len_bytes > largest) {
            return Err(SegmentError::NoMemory { len_bytes });
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        MemfdBackend.create(len_bytes)
    }
}

impl Directed {
    fn release(&self) {
        *self.is_held.lock().unwrap() = false;
        self.released.notify_all();
    }
}

#[test]
fn a_burst_shares_one_new_segment_and_its_making_costs_no_patience() {
    let backend = Arc::new(Directed { is_held: Mutex::new(true), ..Directed::default() });
    let Scene { pool, .. } = scene(backend.clone(), 64 * MIB, 64 * MIB);
    run(async {
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.reserve(MIB, Duration::ZERO).await })
            })
            .collect();
        // The request that started it is cancelled; the others still get it.
        tokio::time::sleep(NO_PATIENCE).await;
        tasks[0].abort();
        backend.release();
        for task in tasks.into_iter().skip(1) {
            task.await.unwrap().unwrap();
        }
        assert_eq!(pool.segments(), 1);
        assert_eq!(backend.made.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_segment_that_comes_after_the_end_of_its_connection_counts_for_nobody() {
    let backend = Arc::new(Directed { is_held: Mutex::new(true), ..Directed::default() });
    let Scene { pool, total, .. } = scene(backend.clone(), 64 * MIB, 64 * MIB);
    run(async {
        let reserve = tokio::time::timeout(NO_PATIENCE, pool.reserve(MIB, LONG)).await;
        assert!(reserve.is_err());
        assert_eq!(total.segments(), 1);
        drop(pool);
        backend.release();
    });
    // The end of the runtime has waited for the blocking task.
    assert_eq!((total.used_bytes(), total.segments()), (0, 0));
}

#[test]
fn without_memory_for_a_usual_size_the_needed_one_is_tried() {
    let backend = Arc::new(Directed { largest: Some(MIB), ..Directed::default() });
    let Scene { pool, total, .. } = scene(backend, 64 * MIB, 64 * MIB);
    run(async {
        pool.reserve(MIB, LONG).await.unwrap();
        assert_eq!((pool.segment_bytes(), total.used_bytes()), (MIB, MIB));
        let error = pool.reserve(2 * MIB, LONG).await.unwrap_err();
        assert!(matches!(error, SegmentError::NoMemory { .. }), "{error:?}");
        assert_eq!((pool.segment_bytes(), total.used_bytes()), (MIB, MIB));
    });
}

#[test]
fn a_first_result_takes_a_spare_and_waits_for_nothing() {
    let backend = Arc::new(Directed::default());
    let spares = Spares::new(backend.clone(), DEFAULT_SPARES).unwrap();
    wait_until(|| spares.ready() == DEFAULT_SPARES);
    let total = TotalCredit::new(64 * MIB);
    let pool = SegmentPool::new(Arc::clone(&spares), 64 * MIB, Arc::clone(&total));
    assert_eq!(total.used_bytes(), 0, "spares do not count");

    // The backend makes no more segments from here on.
    *backend.is_held.lock().unwrap() = true;
    let slot = run(pool.reserve(MIB, Duration::ZERO)).unwrap();
    assert_eq!(total.used_bytes(), SPARE_LEN_BYTES);
    backend.release();
    wait_until(|| spares.ready() == DEFAULT_SPARES);

    // A segment that a client has seen is not used again.
    let first = inode(&pool.announce_once(SegmentId(0)).unwrap().segment);
    drop(slot);
    pool.retire_idle(Duration::ZERO, Instant::now());
    wait_until(|| !is_in_this_process(first));
}

#[test]
fn a_failed_spare_is_tried_again_when_one_is_wanted() {
    let backend = Arc::new(Directed { largest: Some(0), ..Directed::default() });
    let spares = Spares::new(backend, 1).unwrap();
    assert!(spares.take().is_none());
    // Ends its thread even so.
    drop(spares);
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen within {LONG:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
