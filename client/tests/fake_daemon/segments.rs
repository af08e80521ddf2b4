use crate::daemon::{
    Daemon, Memory, Peer, SEGMENT_BYTES, announcement, builder, rows_in, scene, values,
};
use emberd_client::{Embeddings, Error, ProtocolError};
use emberd_protocol::{
    Frame, FrameKind, Response, SegmentAnnounce, SegmentHandle, SegmentId, SegmentRetire,
};
use nix::fcntl::SealFlag;
use std::fs::File;
use std::os::fd::OwnedFd;

/// The result of a request for a row when the daemon does this before it answers with a slot of
/// segment 1. Afterwards this process may hold none of the memory.
fn embed_after(
    case: &str,
    memory: &Memory,
    script: impl FnOnce(&mut Peer) + Send + 'static,
) -> Result<(), Error> {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        let id = peer.embed();
        script(&mut peer);
        // What the client would accept if it had trusted the frames before.
        let (_, rows) = rows_in(1, 0, 1);
        peer.answer(id, &rows);
        peer.drain();
    });
    let client = daemon.client();
    let rows = client.generate_embeddings(&["text"], "m").map(|rows| {
        assert_eq!(rows.as_slice(), values(0, 4));
    });
    drop(client);
    daemon.end();
    memory.assert_gone(case);
    rows
}

/// Why a segment was rejected.
fn why(case: &str, result: Result<(), Error>) -> &'static str {
    match result {
        Err(Error::Protocol(ProtocolError::Segment { segment: SegmentId(1), why })) => why,
        other => panic!("{case}: {other:?} is not a rejection of segment 1"),
    }
}

/// Why a file that is announced with this length is rejected.
fn distrust(case: &str, len_bytes: u64, file: impl FnOnce(&Memory) -> OwnedFd) -> &'static str {
    let memory = Memory::new();
    let file = file(&memory);
    why(case, embed_after(case, &memory, move |peer| peer.announce(1, len_bytes, &file)))
}

fn is_descriptors(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Protocol(ProtocolError::Descriptors)))
}

#[test]
fn a_sealed_segment_is_accepted_with_either_seal_against_writers() {
    for seal in [SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_FUTURE_WRITE] {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | seal;
        let memory = Memory::new();
        let file = memory.file(SEGMENT_BYTES, seals);
        let script = move |peer: &mut Peer| peer.announce(1, SEGMENT_BYTES, &file);
        embed_after("an honest segment", &memory, script).unwrap();
    }
}

#[test]
fn a_segment_that_lacks_a_seal_is_refused() {
    let (shrink, grow) = (SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW);
    let write = SealFlag::F_SEAL_FUTURE_WRITE;
    for (case, seals, expected) in [
        ("no seal", SealFlag::empty(), "its size is not sealed"),
        ("no shrink", grow | write, "its size is not sealed"),
        ("no grow", shrink | write, "its size is not sealed"),
        ("no write", shrink | grow, "it is not sealed against writers"),
        ("only the seal against seals", SealFlag::F_SEAL_SEAL, "its size is not sealed"),
    ] {
        let reason = distrust(case, SEGMENT_BYTES, |memory| memory.file(SEGMENT_BYTES, seals));
        assert_eq!(reason, expected, "{case}");
    }
}

#[test]
fn a_segment_smaller_than_announced_is_refused() {
    for len_bytes in [SEGMENT_BYTES + 1, SEGMENT_BYTES * 1024, u64::MAX - 63, u64::MAX] {
        let reason = distrust("too small", len_bytes, Memory::sealed);
        assert_eq!(reason, "it is smaller than announced", "{len_bytes}");
    }
    assert_eq!(distrust("empty", 0, Memory::sealed), "its length cannot be mapped");
}

#[test]
fn the_seals_are_looked_at_before_the_size_which_could_change_until_then() {
    let reason = distrust("unsealed and small", SEGMENT_BYTES * 2, |memory| {
        memory.file(SEGMENT_BYTES, SealFlag::empty())
    });
    assert_eq!(reason, "its size is not sealed");
}

#[test]
fn a_descriptor_of_something_else_is_refused() {
    let reason = distrust("a folder", SEGMENT_BYTES, |_| File::open("/").unwrap().into());
    assert_eq!(reason, "it is not a file that can be sealed");
    let reason = distrust("a file", SEGMENT_BYTES, |_| {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
        file.set_len(SEGMENT_BYTES).unwrap();
        file.into()
    });
    // On a tmpfs files can have seals, but this one has none; on a disk they cannot.
    assert!(
        reason == "it is not a file that can be sealed" || reason == "its size is not sealed",
        "{reason}"
    );
}

#[test]
fn an_announcement_without_its_descriptor_is_an_error() {
    let memory = Memory::new();
    let result = embed_after("none", &memory, |peer| {
        peer.bytes(&announcement(1, SEGMENT_BYTES).to_bytes());
    });
    assert!(is_descriptors(&result), "{result:?}");

    let result = embed_after("none announced", &memory, |peer| {
        let mut frame = announcement(1, SEGMENT_BYTES);
        frame.descriptors = 0;
        peer.bytes(&frame.to_bytes());
    });
    assert!(is_descriptors(&result), "{result:?}");
}

#[test]
fn descriptors_that_no_frame_announces_are_closed_and_end_the_connection() {
    let memory = Memory::new();
    for count in [2, 253] {
        let file = memory.sealed();
        let result = embed_after("too many on an announcement", &memory, move |peer| {
            let many = vec![&file; count];
            peer.bytes_with(&announcement(1, SEGMENT_BYTES).to_bytes(), &many);
        });
        assert!(is_descriptors(&result), "{count}: {result:?}");
    }
    let file = memory.sealed();
    let result = embed_after("on an answer to nobody", &memory, move |peer| {
        let frame = Frame::message(FrameKind::Response, 0, &Response::Pong).unwrap();
        peer.bytes_with(&frame.to_bytes(), &[&file]);
    });
    assert!(is_descriptors(&result), "{result:?}");

    let file = memory.sealed();
    let result = embed_after("on a named segment", &memory, move |peer| {
        let handle = SegmentHandle::Name("/emberd-none".into());
        let announce = SegmentAnnounce { segment: SegmentId(1), len_bytes: 64, handle };
        let mut frame = Frame::message(FrameKind::Segment, 0, &announce).unwrap();
        frame.descriptors = 1;
        peer.bytes_with(&frame.to_bytes(), &[&file]);
    });
    assert!(is_descriptors(&result), "{result:?}");
}

#[test]
fn descriptors_are_not_piled_up_by_frames_that_never_end() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            peer.embed();
            // A frame has at most one, whatever the rest of it says; the rest never comes.
            peer.bytes_with(&announcement(1, SEGMENT_BYTES).to_bytes()[..30], &[&file; 2]);
            peer.silence();
        },
        |client| {
            let result = client.generate_embeddings(&["text"], "m").map(drop);
            assert!(is_descriptors(&result), "{result:?}");
        },
    );
    memory.assert_gone("half a frame");
}

#[test]
fn a_named_segment_that_does_not_exist_is_an_error() {
    let memory = Memory::new();
    let case = "no such name";
    let result = embed_after(case, &memory, |peer| {
        let handle = SegmentHandle::Name(format!("/emberd-none-{}", std::process::id()));
        let announce = SegmentAnnounce { segment: SegmentId(1), len_bytes: 64, handle };
        peer.say(Frame::message(FrameKind::Segment, 0, &announce));
    });
    assert_eq!(why(case, result), "it cannot be opened");
}

#[test]
fn a_segment_is_announced_once_even_after_it_was_retired() {
    let memory = Memory::new();
    let file = memory.sealed();
    let case = "announced twice";
    let result = embed_after(case, &memory, move |peer| {
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.announce(1, SEGMENT_BYTES, &file);
    });
    assert_eq!(why(case, result), "it was announced twice");

    let file = memory.sealed();
    let case = "announced, retired, announced";
    let result = embed_after(case, &memory, move |peer| {
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.say(retirement(1));
        peer.announce(1, SEGMENT_BYTES, &file);
    });
    assert_eq!(why(case, result), "it was announced twice");
}

fn retirement(segment: u32) -> Result<Frame, emberd_protocol::CodecError> {
    Frame::message(FrameKind::Retire, 0, &SegmentRetire { segment: SegmentId(segment) })
}

#[test]
fn retiring_a_segment_that_is_not_there_is_an_error() {
    let memory = Memory::new();
    let case = "never announced";
    let result = embed_after(case, &memory, |peer| peer.say(retirement(1)));
    assert_eq!(why(case, result), "it is retired, but was not in use");

    let file = memory.sealed();
    let case = "retired twice";
    let result = embed_after(case, &memory, move |peer| {
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.say(retirement(1));
        peer.say(retirement(1));
    });
    assert_eq!(why(case, result), "it is retired, but was not in use");
}

#[test]
fn retiring_a_segment_whose_rows_are_held_is_an_error_and_the_rows_stay() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.rows(64, 2);
        peer.ping();
        peer.say(retirement(1));
        peer.silence();
    });
    let client = daemon.client();
    let rows: Embeddings = client.generate_embeddings(&["one", "two"], "m").unwrap();
    let case = "retired while held";
    assert_eq!(why(case, client.ping()), "it is retired while its rows are held");
    drop(client);
    daemon.end();
    assert_eq!(rows.as_slice(), values(16, 8));
    assert_eq!((memory.open(), memory.mapped()), (0, 1));
    drop(rows);
    memory.assert_gone(case);
}

#[test]
fn a_retired_segment_is_unmapped_at_once() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            peer.announce(1, SEGMENT_BYTES, &file);
            drop(file);
            peer.rows(64, 1);
            peer.freed();
            let id = peer.ping();
            peer.say(retirement(1));
            peer.answer(id, &Response::Pong);
            peer.silence();
        },
        |client| {
            let rows = client.generate_embeddings(&["text"], "m").unwrap();
            // The mapping is all that is needed: no descriptor stays.
            assert_eq!((memory.open(), memory.mapped()), (0, 1));
            drop(rows);
            client.ping().unwrap();
            memory.assert_gone("retired");
        },
    );
}

#[test]
fn a_client_that_accepts_no_segments_takes_none() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.accept();
        assert!(!peer.hello().accepts_segments);
        let welcome = crate::daemon::welcome(crate::daemon::limits());
        peer.say(Frame::message(FrameKind::Welcome, 0, &welcome));
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.rows(0, 1);
        peer.drain();
    });
    let client = builder().inline_only().connect_to(daemon.path()).unwrap();
    let error = client.generate_embeddings(&["text"], "m").unwrap_err();
    let Error::Protocol(ProtocolError::OutOfPlace(what)) = error else { panic!("{error:?}") };
    assert_eq!(what, "a segment");
    drop(client);
    daemon.end();
    memory.assert_gone("not accepted");
}

#[test]
fn a_named_segment_that_is_cut_short_is_a_typed_error() {
    let name = format!("/emberd-cut-{}", std::process::id());
    let path = format!("/dev/shm{name}");
    let file = File::create_new(&path).unwrap();
    file.set_len(SEGMENT_BYTES).unwrap();
    let memory = Memory::new();
    let result = embed_after("a segment that was cut short", &memory, move |peer| {
        let handle = SegmentHandle::Name(name);
        let announce = SegmentAnnounce { segment: SegmentId(1), len_bytes: SEGMENT_BYTES, handle };
        peer.say(Frame::message(FrameKind::Segment, 0, &announce));
        // Once for this test, and once for the client, which is in this process.
        while descriptors_of(&path) < 2 {
            std::thread::yield_now();
        }
        file.set_len(0).unwrap();
        std::fs::remove_file(&path).unwrap();
    });
    let expected = ProtocolError::Slot("the segment was truncated");
    assert!(matches!(&result, Err(Error::Protocol(error)) if *error == expected), "{result:?}");
}

/// How often this process has a file open.
fn descriptors_of(path: &str) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.as_os_str() == path).count()
}
