//! What every backend has to do.
#![expect(clippy::needless_pass_by_value, reason = "all tests of the suite have one signature")]

use crate::segment::posix::exists;
use crate::segment::{
    Announcement, Backend, Finished, MemfdBackend, Output, Row, Segment, SegmentError, SegmentPool,
    Slot, Spares, TotalCredit,
};
use emberd_protocol::{SLOT_ALIGNMENT, SegmentBackend, SegmentHandle, SegmentId, SlotRef};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use shared_memory::{Shmem, ShmemConf};
use std::ffi::c_void;
use std::fs::{self, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const NO_PATIENCE: Duration = Duration::from_millis(20);
pub(super) const LONG: Duration = Duration::from_secs(20);

macro_rules! for_every_backend {
    ($($(#[$attribute:meta])* fn $name:ident;)*) => {
        mod memfd {
            $(#[test] fn $name() { super::$name(crate::segment::backend(crate::segment::SegmentBackend::Memfd)); })*
        }
        mod posix_shm {
            $(#[test] fn $name() { super::$name(crate::segment::backend(crate::segment::SegmentBackend::Posix)); })*
        }
    };
}

for_every_backend! {
    fn a_segment_is_zero_whole_pages_and_as_large_as_asked;
    fn a_client_reads_what_is_written;
    fn the_memory_goes_with_its_last_user;
    fn too_large_a_segment_is_a_typed_refusal;
    fn a_result_is_written_announced_read_and_freed;
    fn rows_of_many_threads_do_not_meet;
    fn a_client_that_keeps_its_results_waits_and_then_fails_alone;
    fn a_freed_slot_wakes_the_one_that_waits;
    fn the_total_binds_all_connections;
    fn late_doubled_and_invented_frees_do_nothing;
    fn a_finished_slot_that_is_never_sent_is_free_again;
    fn an_unfinished_output_frees_its_slot_after_its_rows;
    fn a_pool_may_go_while_rows_are_written;
    fn idle_segments_are_retired_and_reported_once;
    fn small_free_segments_make_way_for_a_large_one;
}

/// A segment as a client maps it.
enum View {
    Memfd { start: NonNull<c_void>, len: usize },
    Posix(Shmem),
}

impl View {
    fn open(segment: &Segment) -> Self {
        match segment.handle() {
            SegmentHandle::Descriptor => {
                let descriptor: OwnedFd =
                    segment.descriptor().unwrap().try_clone_to_owned().unwrap();
                let len = usize::try_from(fstat(&descriptor).unwrap().st_size).unwrap();
                let length = NonZeroUsize::new(len).unwrap();
                // SAFETY: a new mapping at an address of the kernel's choice.
                let start = unsafe {
                    mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, descriptor, 0)
                };
                Self::Memfd { start: start.unwrap(), len }
            }
            SegmentHandle::Name(name) => Self::Posix(ShmemConf::new().os_id(name).open().unwrap()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Memfd { len, .. } => *len,
            Self::Posix(memory) => memory.len(),
        }
    }

    fn read(&self, offset: u64, len_bytes: u64) -> Vec<u8> {
        let offset = usize::try_from(offset).unwrap();
        let range = offset..offset + usize::try_from(len_bytes).unwrap();
        let start: *const u8 = match self {
            Self::Memfd { start, .. } => start.as_ptr().cast(),
            Self::Posix(memory) => memory.as_ptr(),
        };
        // SAFETY: the mapping has that length; tests do not write while they read.
        let bytes = unsafe { std::slice::from_raw_parts(start, self.len()) };
        bytes[range].to_vec()
    }

    fn read_floats(&self, slot: &SlotRef) -> Vec<f32> {
        let bytes = self.read(slot.offset, slot.len_bytes);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Self::Memfd { start, len } = self {
            // SAFETY: mapped in `open`, unmapped here, and nothing borrows from it.
            unsafe { munmap(*start, *len) }.unwrap();
        }
    }
}

/// The pool of one connection, and everything that it needs.
pub(super) struct Scene {
    pub(super) spares: Arc<Spares>,
    pub(super) total: Arc<TotalCredit>,
    pub(super) pool: Arc<SegmentPool>,
}

pub(super) fn scene(backend: Arc<dyn Backend>, credit_bytes: u64, total_bytes: u64) -> Scene {
    let spares = Spares::new(backend, 0).unwrap();
    let total = TotalCredit::new(total_bytes);
    let pool = SegmentPool::new(Arc::clone(&spares), credit_bytes, Arc::clone(&total));
    Scene { spares, total, pool }
}

impl Scene {
    fn another(&self, credit_bytes: u64) -> Arc<SegmentPool> {
        SegmentPool::new(Arc::clone(&self.spares), credit_bytes, Arc::clone(&self.total))
    }
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A finished slot of `len_bytes`, which are whole floats.
fn give(slot: Slot) -> SlotRef {
    let values = usize::try_from(slot.len_bytes()).unwrap() / 4;
    match Output::slot(slot, 1, values).unwrap().finish() {
        Ok(Finished::Slot(slot)) => slot.sent(),
        other => panic!("no slot: {other:?}"),
    }
}

fn a_segment_is_zero_whole_pages_and_as_large_as_asked(backend: Arc<dyn Backend>) {
    for len_bytes in [0, 1, 65_536, 65_537, 4 * MIB] {
        let segment = backend.create(len_bytes).unwrap();
        let view = View::open(&segment);
        assert_eq!(segment.len_bytes(), len_bytes.max(1).next_multiple_of(65_536));
        assert_eq!(view.len() as u64, segment.len_bytes());
        let is_aligned =
            |memory: NonNull<[u8]>| memory.cast::<u8>().as_ptr().align_offset(4096) == 0;
        assert!(segment.mapped().is_none_or(is_aligned));
        assert!(view.read(0, segment.len_bytes()).iter().all(|byte| *byte == 0));
        assert_eq!(segment.descriptor().is_some(), backend.kind() == SegmentBackend::Memfd);
    }
}

fn a_client_reads_what_is_written(backend: Arc<dyn Backend>) {
    let segment = backend.create(MIB).unwrap();
    let view = View::open(&segment);
    for offset in [0, 4095, 1_048_575] {
        match segment.mapped() {
            Some(memory) => {
                // SAFETY: inside of the segment.
                let byte = unsafe { memory.cast::<u8>().add(offset) };
                // SAFETY: nobody reads while this writes.
                unsafe { byte.write(7) };
            }
            None => segment.write(offset as u64, &[7]).unwrap(),
        }
    }
    let seen = view.read(0, MIB);
    drop(segment);
    assert_eq!(seen.iter().filter(|byte| **byte == 7).count(), 3);
    assert_eq!(view.read(4095, 1), [7], "a view outlives the segment");
}

/// Whether this process has the segment with this inode open or mapped.
pub(super) fn is_in_this_process(inode: u64) -> bool {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().any(|entry| {
        fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode)
            && fs::read_link(entry.path())
                .is_ok_and(|link| link.to_string_lossy().contains("emberd-"))
    });
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let inode = inode.to_string();
    let mapped = maps.lines().any(|line| {
        line.contains("emberd-") && line.split_whitespace().nth(4) == Some(inode.as_str())
    });
    open || mapped
}

pub(super) fn inode(segment: &Segment) -> u64 {
    match segment.handle() {
        SegmentHandle::Descriptor => fstat(segment.descriptor().unwrap()).unwrap().st_ino,
        SegmentHandle::Name(name) => {
            fs::metadata(format!("/dev/shm/{}", name.trim_start_matches('/'))).unwrap().ino()
        }
    }
}

fn has_name(handle: &SegmentHandle) -> bool {
    matches!(handle, SegmentHandle::Name(name) if exists(name))
}

fn the_memory_goes_with_its_last_user(backend: Arc<dyn Backend>) {
    let segment = backend.create(MIB).unwrap();
    let (inode, handle) = (inode(&segment), segment.handle());
    assert!(is_in_this_process(inode));
    assert_eq!(has_name(&handle), backend.kind() == SegmentBackend::Posix);
    drop(segment);
    assert!(!is_in_this_process(inode));
    assert!(!has_name(&handle));
}

fn too_large_a_segment_is_a_typed_refusal(backend: Arc<dyn Backend>) {
    for len_bytes in [1 << 42, 1 << 50, u64::MAX / 2, u64::MAX] {
        let error = backend.create(len_bytes).unwrap_err();
        assert!(matches!(error, SegmentError::NoMemory { .. }), "{error:?}");
    }
    let Scene { pool, total, .. } = scene(backend, 1 << 50, 1 << 50);
    let error = run(pool.reserve(1 << 45, LONG)).unwrap_err();
    assert!(matches!(error, SegmentError::NoMemory { .. }), "{error:?}");
    assert_eq!((total.used_bytes(), total.segments(), pool.segments()), (0, 0, 0));
    run(pool.reserve(1, LONG)).expect("a refusal harms nobody else");
}

fn a_result_is_written_announced_read_and_freed(backend: Arc<dyn Backend>) {
    let Scene { pool, total, .. } = scene(backend, 64 * MIB, 64 * MIB);
    run(async {
        let first = pool.reserve(100, LONG).await.unwrap();
        let slot = pool.reserve(7 * 384 * 4, LONG).await.unwrap();
        let mut output = Output::slot(slot, 7, 384).unwrap();
        for (index, mut row) in output.take_rows().into_iter().enumerate() {
            row.as_mut_slice().fill(index as f32);
        }
        let Ok(Finished::Slot(slot)) = output.finish() else { panic!("no slot") };
        let slot = slot.sent();
        assert_eq!(slot.offset % SLOT_ALIGNMENT, 0);
        assert_eq!(slot.len_bytes, 7 * 384 * 4);
        assert_eq!(pool.held_bytes(), 128 + 7 * 384 * 4);
        assert_eq!((pool.segments(), total.segments()), (1, 1));
        assert_eq!(pool.segment_bytes(), total.used_bytes());

        let announced: Announcement = pool.announce_once(slot.segment).unwrap();
        assert!(pool.announce_once(slot.segment).is_none(), "once");
        assert!(pool.announce_once(SegmentId(99)).is_none(), "unknown");
        assert_eq!(announced.message.len_bytes, announced.segment.len_bytes());
        assert_eq!(
            announced.descriptor().is_some(),
            announced.message.handle == SegmentHandle::Descriptor
        );
        let view = View::open(&announced.segment);
        let expected: Vec<f32> = (0..7).flat_map(|row| [row as f32; 384]).collect();
        assert_eq!(view.read_floats(&slot), expected);

        assert!(pool.free(&slot));
        drop(first);
        assert_eq!(pool.held_bytes(), 0);
        let again = pool.reserve(7 * 384 * 4, LONG).await.unwrap();
        let again = give(again);
        assert_eq!(again.segment, slot.segment, "warm memory is used again");
        assert_ne!(again.generation, slot.generation);
    });
}

fn rows_of_many_threads_do_not_meet(backend: Arc<dyn Backend>) {
    const THREADS: usize = 8;
    let Scene { pool, .. } = scene(backend, 64 * MIB, 64 * MIB);
    let mut outputs: Vec<Output> = run(async {
        let mut outputs = Vec::new();
        for rows in [1000, 1, 333] {
            let slot = pool.reserve(rows * 96 * 4, LONG).await.unwrap();
            outputs.push(Output::slot(slot, usize::try_from(rows).unwrap(), 96).unwrap());
        }
        outputs
    });
    let mut shares: Vec<Vec<(f32, Row)>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (which, output) in outputs.iter_mut().enumerate() {
        for (index, row) in output.take_rows().into_iter().enumerate() {
            shares[index % THREADS].push(((which * 10_000 + index) as f32, row));
        }
    }
    thread::scope(|scope| {
        for mut share in shares {
            scope.spawn(move || {
                for (value, row) in &mut share {
                    row.as_mut_slice().fill(*value);
                }
            });
        }
    });
    let segment = pool.announce_once(SegmentId(0)).unwrap().segment;
    let view = View::open(&segment);
    for (which, output) in outputs.into_iter().enumerate() {
        let rows = output.rows();
        let Ok(Finished::Slot(slot)) = output.finish() else { panic!("rows are still out") };
        let slot = slot.sent();
        let expected: Vec<f32> =
            (0..rows).flat_map(|index| [(which * 10_000 + index) as f32; 96]).collect();
        assert_eq!(view.read_floats(&slot), expected);
    }
}

fn a_client_that_keeps_its_results_waits_and_then_fails_alone(backend: Arc<dyn Backend>) {
    let scene = scene(backend, MIB, 16 * MIB);
    let other = scene.another(MIB);
    run(async {
        let error = scene.pool.reserve(MIB + 1, LONG).await.unwrap_err();
        assert!(matches!(error, SegmentError::NeverFits { limit_bytes: MIB, .. }), "{error:?}");

        let kept = give(scene.pool.reserve(MIB - 64, LONG).await.unwrap());
        let before = Instant::now();
        let error = scene.pool.reserve(100, NO_PATIENCE).await.unwrap_err();
        assert!(before.elapsed() >= NO_PATIENCE);
        assert!(
            matches!(error, SegmentError::Credit { held_bytes, .. } if held_bytes == MIB - 64),
            "{error:?}"
        );
        scene.pool.reserve(64, NO_PATIENCE).await.expect("just fits");
        other.reserve(MIB, NO_PATIENCE).await.expect("others are not affected");
        assert!(scene.pool.free(&kept));
        scene.pool.reserve(MIB, NO_PATIENCE).await.expect("freed");
    });
}

fn a_freed_slot_wakes_the_one_that_waits(backend: Arc<dyn Backend>) {
    let Scene { pool, .. } = scene(backend, MIB, 16 * MIB);
    run(async {
        let kept = give(pool.reserve(MIB, LONG).await.unwrap());
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.reserve(MIB / 4, LONG).await.map(give) })
            })
            .collect();
        tokio::time::sleep(NO_PATIENCE).await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        assert!(pool.free(&kept));
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert_eq!(pool.held_bytes(), MIB);

        // A reservation that is given up while it waits takes nothing along.
        let impatient = tokio::time::timeout(NO_PATIENCE, pool.reserve(64, LONG)).await;
        assert!(impatient.is_err());
        assert_eq!(pool.held_bytes(), MIB);
    });
}

fn the_total_binds_all_connections(backend: Arc<dyn Backend>) {
    let scene = scene(backend, 8 * MIB, 4 * MIB);
    let other = scene.another(8 * MIB);
    run(async {
        let error = other.reserve(5 * MIB, LONG).await.unwrap_err();
        assert!(matches!(error, SegmentError::NeverFits { .. }), "{error:?}");

        let slot = scene.pool.reserve(3 * MIB, LONG).await.unwrap();
        let error = other.reserve(2 * MIB, NO_PATIENCE).await.unwrap_err();
        assert!(matches!(error, SegmentError::Total { .. }), "{error:?}");

        let waiting = tokio::spawn({
            let other = Arc::clone(&other);
            async move { other.reserve(2 * MIB, LONG).await.map(|slot| slot.len_bytes()) }
        });
        tokio::time::sleep(NO_PATIENCE).await;
        assert!(!waiting.is_finished());
        // The end of one connection makes room for another, though its slot is still out.
        drop(scene.pool);
        assert_eq!(waiting.await.unwrap().unwrap(), 2 * MIB);
        assert_eq!(slot.len_bytes(), 3 * MIB);
        drop(other);
        assert_eq!((scene.total.used_bytes(), scene.total.segments()), (0, 0));
    });
}

fn late_doubled_and_invented_frees_do_nothing(backend: Arc<dyn Backend>) {
    let Scene { pool, .. } = scene(backend, MIB, 16 * MIB);
    run(async {
        let mut output = Output::slot(pool.reserve(400, LONG).await.unwrap(), 1, 100).unwrap();
        let rows = output.take_rows();
        // A client can guess a whole reference, but cannot free a slot that is being written.
        let guess = SlotRef { segment: SegmentId(0), offset: 0, len_bytes: 400, generation: 0 };
        assert!(!pool.free(&guess));
        let output = output.finish().unwrap_err();
        drop(rows);
        let Ok(Finished::Slot(slot)) = output.finish() else { panic!("no slot") };
        let slot = slot.sent();
        assert_eq!(slot, guess);

        for wrong in [
            SlotRef { segment: SegmentId(1), ..slot },
            SlotRef { offset: 64, ..slot },
            SlotRef { offset: u64::MAX, ..slot },
            SlotRef { len_bytes: 399, ..slot },
            SlotRef { generation: 1, ..slot },
        ] {
            assert!(!pool.free(&wrong), "{wrong:?}");
        }
        assert_eq!(pool.held_bytes(), 448);
        assert!(pool.free(&slot));
        assert!(!pool.free(&slot), "twice");
        let next = give(pool.reserve(400, LONG).await.unwrap());
        assert_eq!(next.offset, slot.offset);
        assert!(!pool.free(&slot), "late");
        assert!(pool.free(&next));
    });
}

fn a_finished_slot_that_is_never_sent_is_free_again(backend: Arc<dyn Backend>) {
    let Scene { pool, .. } = scene(backend, MIB, 16 * MIB);
    run(async {
        let finish = |slot| match Output::slot(slot, 1, 100).unwrap().finish() {
            Ok(Finished::Slot(slot)) => slot,
            other => panic!("no slot: {other:?}"),
        };
        drop(finish(pool.reserve(400, LONG).await.unwrap()));
        assert_eq!(pool.held_bytes(), 0);
        let sent = finish(pool.reserve(400, LONG).await.unwrap()).sent();
        assert_eq!(pool.held_bytes(), 448, "the client's until it frees it");
        assert!(pool.free(&sent));
        let unsent = finish(pool.reserve(400, LONG).await.unwrap());
        drop(pool);
        drop(unsent);
    });
}

fn an_unfinished_output_frees_its_slot_after_its_rows(backend: Arc<dyn Backend>) {
    let Scene { pool, .. } = scene(backend, MIB, 16 * MIB);
    run(async {
        drop(pool.reserve(100, LONG).await.unwrap());
        assert_eq!(pool.held_bytes(), 0, "a slot by itself");

        let slot = pool.reserve(4096, LONG).await.unwrap();
        let error = Output::slot(slot, 3, 341).unwrap_err();
        assert!(matches!(error, SegmentError::Shape { slot_bytes: 4096, .. }), "{error:?}");
        assert_eq!(pool.held_bytes(), 0, "a slot of the wrong size");

        let slot = pool.reserve(4096, LONG).await.unwrap();
        let mut output = Output::slot(slot, 2, 512).unwrap();
        let mut rows = output.take_rows();
        drop(output);
        rows.remove(0);
        assert_eq!(pool.held_bytes(), 4096, "one row is still out");
        let next = pool.reserve(4096, LONG).await.unwrap();
        assert_ne!(give(next).offset, 0, "its place is not used again");
        rows[0].as_mut_slice().fill(1.0);
        drop(rows);
        assert_eq!(pool.held_bytes(), 4096, "only the next one");
    });
}

fn a_pool_may_go_while_rows_are_written(backend: Arc<dyn Backend>) {
    let Scene { pool, total, spares } = scene(backend, MIB, 16 * MIB);
    run(async {
        let slot = pool.reserve(400, LONG).await.unwrap();
        let segment = pool.announce_once(SegmentId(0)).unwrap().segment;
        let (inode, handle) = (inode(&segment), segment.handle());
        drop(segment);
        let mut output = Output::slot(slot, 1, 100).unwrap();
        let mut rows = output.take_rows();
        let dropped = Output::heap(1, 1);
        drop(pool);
        drop(dropped);
        assert_eq!((total.used_bytes(), total.segments()), (0, 0));

        let writer = thread::spawn(move || {
            rows[0].as_mut_slice().fill(1.0);
            rows[0].as_mut_slice().iter().sum::<f32>()
        });
        assert_eq!(writer.join().unwrap(), 100.0);
        assert!(is_in_this_process(inode));
        assert!(matches!(output.finish(), Ok(Finished::Slot(_))));
        drop(spares);
        assert!(!is_in_this_process(inode));
        assert!(!has_name(&handle));
    });
}

fn idle_segments_are_retired_and_reported_once(backend: Arc<dyn Backend>) {
    let Scene { pool, total, spares } = scene(backend, 64 * MIB, 64 * MIB);
    let idle = Duration::from_secs(30);
    run(async {
        let slot = give(pool.reserve(400, LONG).await.unwrap());
        let unseen = pool.reserve(5 * MIB, LONG).await.unwrap();
        let segment = pool.announce_once(slot.segment).unwrap().segment;
        let (inode, handle) = (inode(&segment), segment.handle());
        drop(segment);
        assert_eq!(pool.segments(), 2);
        drop(unseen);
        let later = Instant::now() + idle;
        assert!(pool.retire_idle(idle, later).is_empty(), "the client does not know the free one");
        assert_eq!((pool.segments(), total.segments()), (1, 1));

        assert!(pool.free(&slot));
        assert!(pool.retire_idle(idle, Instant::now()).is_empty(), "not idle for long enough");
        assert_eq!(pool.segments(), 1);
        let later = Instant::now() + idle;
        assert_eq!(pool.retire_idle(idle, later), [slot.segment]);
        assert!(pool.retire_idle(idle, later).is_empty(), "once");
        assert_eq!((pool.segments(), pool.segment_bytes(), total.used_bytes()), (0, 0, 0));
        assert!(!pool.free(&slot));

        let next = give(pool.reserve(400, LONG).await.unwrap());
        assert!(next.segment.0 > slot.segment.0, "numbers are not used again");
        drop(pool);
        drop(spares);
        assert!(!is_in_this_process(inode));
        assert!(!has_name(&handle));
    });
}

fn small_free_segments_make_way_for_a_large_one(backend: Arc<dyn Backend>) {
    let Scene { pool, .. } = scene(backend, 20 * MIB, 20 * MIB);
    run(async {
        let small = give(pool.reserve(MIB, LONG).await.unwrap());
        pool.announce_once(small.segment).unwrap();
        let error = pool.reserve(18 * MIB, NO_PATIENCE).await.unwrap_err();
        assert!(matches!(error, SegmentError::Total { .. }), "{error:?}");
        assert!(pool.free(&small));
        let large = pool.reserve(18 * MIB, NO_PATIENCE).await.unwrap();
        assert_eq!((pool.segments(), pool.segment_bytes()), (1, 18 * MIB));
        assert_eq!(pool.retire_idle(LONG, Instant::now()), [small.segment]);
        drop(large);
    });
}

#[test]
fn a_client_can_neither_write_nor_cut_a_memfd() {
    let segment = MemfdBackend.create(MIB).unwrap();
    let descriptor = segment.descriptor().unwrap().try_clone_to_owned().unwrap();
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = NonZeroUsize::new(4096).unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice (it is refused).
    let mapped = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &descriptor, 0) };
    assert!(mapped.is_err());

    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let file = fs::File::from(descriptor);
    // By root it can be opened again, though not to any use.
    let again = OpenOptions::new().read(true).write(true).open(path);
    for file in std::iter::once(&file).chain(again.as_ref()) {
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(2 * MIB).is_err());
    }
}
