use crate::daemon::{
    DIMENSION, Daemon, Memory, Peer, SEGMENT_BYTES, announcement, rows_at, rows_in, scene, values,
};
use emberd_client::{Error, ProtocolError};
use emberd_protocol::{
    Embedded, Frame, FrameKind, Place, Response, SegmentId, SegmentRetire, SlotRef,
};

/// How a request for rows fails when its answer points to this slot of an ordinary segment.
fn lie(case: &str, rows: Embedded, tail: Vec<u8>) -> &'static str {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let id = peer.embed();
        peer.announce(1, SEGMENT_BYTES, &file);
        let mut frame = Frame::message(FrameKind::Response, id, &Response::Embedded(rows)).unwrap();
        frame.tail = tail;
        peer.bytes(&frame.to_bytes());
        // The connection is no longer usable.
        peer.drain();
    });
    let client = daemon.client();
    let result = client.generate_embeddings(&["text"], "m");
    let Err(Error::Protocol(ProtocolError::Slot(why))) = result else {
        panic!("{case}: {result:?} is not a rejected slot")
    };
    drop(client);
    daemon.end();
    memory.assert_gone(case);
    why
}

/// One row at an offset.
fn row_at(segment: u32, offset: u64, len_bytes: u64) -> Embedded {
    let slot = SlotRef { segment: SegmentId(segment), offset, len_bytes, generation: 1 };
    rows_at(1, Place::Slot(slot))
}

#[test]
fn a_slot_outside_its_segment_is_refused() {
    let last = u64::MAX - 63;
    let wide = |offset| Embedded { dimension: 16, ..row_at(1, offset, 64) };
    for (case, rows, expected) in [
        ("unaligned", row_at(1, 4, 16), "the slot is not aligned"),
        ("unaligned by 32", row_at(1, 96, 16), "the slot is not aligned"),
        ("behind the end", row_at(1, SEGMENT_BYTES, 16), "the slot ends beyond its segment"),
        ("far behind", row_at(1, 1 << 40, 16), "the slot ends beyond its segment"),
        ("at the last place", row_at(1, last, 16), "the slot ends beyond its segment"),
        ("around the end", wide(last), "the slot ends beyond its segment"),
        ("largest offset", row_at(1, u64::MAX, 16), "the slot is not aligned"),
        ("unknown segment", row_at(2, 0, 16), "the segment was never announced"),
        ("last segment", row_at(u32::MAX, 0, 16), "the segment was never announced"),
    ] {
        assert_eq!(lie(case, rows, Vec::new()), expected, "{case}");
    }
    let rows = SEGMENT_BYTES / 16 + 1;
    let long = Embedded { rows: u32::try_from(rows).unwrap(), ..row_at(1, 0, rows * 16) };
    let reason = lie("longer than all", long, Vec::new());
    assert_eq!(reason, "the slot ends beyond its segment");
    let over = Embedded { rows: 5, ..row_at(1, SEGMENT_BYTES - 64, 80) };
    assert_eq!(lie("over the end", over, Vec::new()), "the slot ends beyond its segment");
}

#[test]
fn a_slot_of_another_length_than_its_rows_is_refused() {
    let expected = "the slot does not have the size of the rows";
    for len_bytes in [0, 4, 12, 15, 17, 20, u64::MAX] {
        assert_eq!(lie("length", row_at(1, 0, len_bytes), Vec::new()), expected, "{len_bytes}");
    }
    // Rows times dimension times four does not fit 64 bits.
    let huge = Embedded { rows: u32::MAX, dimension: u32::MAX, ..row_at(1, 0, 16) };
    assert_eq!(lie("huge", huge, Vec::new()), expected);
    assert_eq!(lie("with inline rows", row_at(1, 0, 16), vec![0; 16]), expected);
}

#[test]
fn inline_rows_of_another_number_than_announced_are_refused() {
    let inline = |rows, dimension| Embedded { dimension, ..rows_at(rows, Place::Inline) };
    let expected = "the values do not have the size of the rows";
    for (rows, tail) in [
        (inline(1, 4), 0),
        (inline(1, 4), 12),
        (inline(1, 4), 17),
        (inline(1, 4), 20),
        (inline(0, 4), 16),
        (inline(1, 0), 16),
        (inline(u32::MAX, u32::MAX), 16),
    ] {
        assert_eq!(lie("inline", rows, vec![0; tail]), expected, "{tail}");
    }
}

#[test]
fn a_slot_that_a_living_view_shows_is_not_given_out_again() {
    // Offset and rows of the second slot, while the first is 64..192.
    for (case, offset, rows) in
        [("the same", 64, 8), ("from before", 0, 8), ("from within", 128, 8), ("around", 0, 16)]
    {
        let memory = Memory::new();
        let file = memory.sealed();
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            peer.announce(1, SEGMENT_BYTES, &file);
            peer.rows(64, 8);
            peer.rows(offset, rows);
            peer.drain();
        });
        let client = daemon.client();
        let texts = vec!["text"; 8];
        let shown = client.generate_embeddings(&texts, "m").unwrap();
        let texts = vec!["text"; rows as usize];
        let result = client.generate_embeddings(&texts, "m");
        let Err(Error::Protocol(ProtocolError::Slot(why))) = result else {
            panic!("{case}: {result:?} is not a rejected slot")
        };
        assert_eq!(why, "the slot overlaps rows that are still held");
        assert_eq!(shown.as_slice(), values(16, 32), "the view stays");
        drop((shown, client));
        daemon.end();
        memory.assert_gone(case);
    }
}

#[test]
fn an_empty_slot_does_not_make_room_within_a_living_view() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            peer.announce(1, SEGMENT_BYTES, &file);
            peer.rows(64, 1);
            peer.rows(64, 0);
            peer.drain();
        },
        |client| {
            let _shown = client.generate_embeddings(&["text"], "m").unwrap();
            let result = client.generate_embeddings::<&str>(&[], "m");
            let Err(Error::Protocol(ProtocolError::Slot(why))) = result else {
                panic!("{result:?}")
            };
            assert_eq!(why, "the slot is empty");
        },
    );
    memory.assert_gone("an empty slot");
}

#[test]
fn a_slot_is_given_out_again_once_it_was_freed_and_neighbours_do_not_matter() {
    let memory = Memory::new();
    let file = memory.sealed();
    let embed = |peer: &mut Peer, offset| {
        peer.rows(offset, 4);
    };
    scene(
        move |peer| {
            // The last slot uses all 64 bytes: an end equal to the segment's is valid.
            let announce = announcement(1, SEGMENT_BYTES).to_bytes();
            peer.bytes_with(&announce, &[&file]);
            for offset in [64, 0, 128, SEGMENT_BYTES - 64] {
                embed(peer, offset);
            }
            assert_eq!(peer.freed(), [rows_in(1, 64, 4).0]);
            embed(peer, 64);
            peer.drain();
        },
        |client| {
            let embed = || client.generate_embeddings(&["text"; 4], "m").unwrap();
            let (first, before, behind, last) = (embed(), embed(), embed(), embed());
            drop(first);
            let again = embed();
            for (rows, from) in [(&before, 0), (&again, 16), (&behind, 32), (&last, 1008)] {
                assert_eq!(rows.dimension(), DIMENSION as usize);
                assert_eq!(rows.as_slice(), values(from, 16));
            }
        },
    );
    memory.assert_gone("many slots");
}

#[test]
fn a_slot_of_a_retired_segment_is_refused() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            let id = peer.embed();
            peer.announce(1, SEGMENT_BYTES, &file);
            peer.say(Frame::message(
                FrameKind::Retire,
                0,
                &SegmentRetire { segment: SegmentId(1) },
            ));
            peer.answer(id, &rows_in(1, 0, 1).1);
            peer.drain();
        },
        |client| {
            let result = client.generate_embeddings(&["text"], "m");
            let Err(Error::Protocol(ProtocolError::Slot(why))) = result else {
                panic!("{result:?}")
            };
            assert_eq!(why, "the segment was retired");
        },
    );
    memory.assert_gone("a retired segment");
}
