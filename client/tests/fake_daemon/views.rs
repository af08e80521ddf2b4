use crate::daemon::{Daemon, Memory, SEGMENT_BYTES, rows_at, rows_in, scene, values};
use emberd_client::{Client, ClientBuilder, EmbeddingModel, Embeddings, Error, Lease};
use emberd_protocol::{Embedded, Frame, FrameKind, Place, Request, Response, SlotRef, TextBlock};
use std::sync::Arc;

#[test]
fn everything_may_go_to_other_threads_and_be_shared_by_them() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Embeddings>();
    is_send_and_sync::<Client>();
    is_send_and_sync::<ClientBuilder>();
    is_send_and_sync::<Lease>();
    is_send_and_sync::<EmbeddingModel>();
    is_send_and_sync::<Error>();
}

/// A daemon that answers once, with three rows at byte 64 of a segment, and returns the
/// slots that were freed until the client hung up.
fn three_rows(memory: &Memory) -> (Daemon<Vec<SlotRef>>, SlotRef) {
    let file = memory.sealed();
    let (slot, rows) = rows_in(1, 64, 3);
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let id = peer.embed();
        peer.announce(1, SEGMENT_BYTES, &file);
        drop(file);
        peer.answer(id, &rows);
        let mut freed = Vec::new();
        while let Some(frame) = peer.next() {
            match frame.kind {
                FrameKind::Free => {
                    freed.extend(frame.decode::<emberd_protocol::Free>().unwrap().slots);
                }
                _ => peer.answer(frame.id, &Response::Pong),
            }
        }
        freed
    });
    (daemon, slot)
}

const TEXTS: [&str; 3] = ["one", "two", "three"];

#[test]
fn rows_are_read_where_the_daemon_wrote_them() {
    let memory = Memory::new();
    let (daemon, _) = three_rows(&memory);
    let client = daemon.client();
    let rows = client.generate_embeddings(&TEXTS, "m").unwrap();
    assert!(rows.is_shared() && !rows.is_empty());
    assert_eq!((rows.len(), rows.dimension(), rows.tokens()), (3, 4, 6));
    assert_eq!(rows.as_slice(), values(16, 12));
    assert_eq!(rows.row(0), values(16, 4));
    assert_eq!(rows.row(2), values(24, 4));
    assert_eq!(rows.get(1), Some(&values(20, 4)[..]));
    assert_eq!((rows.get(3), rows.get(usize::MAX)), (None, None));
    assert_eq!(rows.rows().map(<[f32]>::to_vec).collect::<Vec<_>>().concat(), values(16, 12));
    assert_eq!(rows.to_vec(), values(16, 12));
    let panic = std::panic::catch_unwind(|| rows.row(3).len()).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "row 3 of 3 rows");
    drop((rows, client));
    daemon.end();
}

#[test]
fn inline_rows_are_the_same_to_the_program() {
    scene(
        |peer| {
            let id = peer.embed();
            let rows = Embedded { truncated: vec![1], ..rows_at(2, Place::Inline) };
            let mut frame =
                Frame::message(FrameKind::Response, id, &Response::Embedded(rows)).unwrap();
            frame.tail = values(5, 8).into_iter().flat_map(f32::to_le_bytes).collect();
            peer.bytes(&frame.to_bytes());
            // Nothing to free.
            peer.silence();
        },
        |client| {
            let rows = client.generate_embeddings(&["one", "two"], "m").unwrap();
            assert!(!rows.is_shared());
            assert_eq!((rows.len(), rows.dimension(), rows.truncated()), (2, 4, &[1][..]));
            assert_eq!(rows.row(1), values(9, 4));
            assert_eq!(rows.into_vec(), values(5, 8));
        },
    );
}

#[test]
fn the_texts_arrive_as_they_were_given() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        let frame = peer.next().unwrap();
        let Request::Embed(request) = frame.decode().unwrap() else { panic!("{frame:?}") };
        peer.answer(frame.id, &Response::Pong);
        TextBlock::parse(request.texts, frame.tail).unwrap()
    });
    let texts = ["", "ähnlich", "line\nbreak\0"];
    daemon.client().generate_embeddings(&texts, "m").unwrap_err();
    let block = daemon.end();
    let arrived: Vec<_> = (0..block.len()).map(|index| block.get(index).unwrap()).collect();
    assert_eq!(arrived, texts);
}

#[test]
fn dropping_rows_frees_their_slot_once() {
    let memory = Memory::new();
    let (daemon, slot) = three_rows(&memory);
    let client = daemon.client();
    let rows = client.generate_embeddings(&TEXTS, "m").unwrap();
    drop(rows);
    // The free is sent before the ping, and arrives before it.
    client.ping().unwrap();
    drop(client);
    assert_eq!(daemon.end(), [slot]);
    memory.assert_gone("dropped");
}

#[test]
fn taking_rows_as_a_vector_frees_their_slot_once() {
    let memory = Memory::new();
    let (daemon, slot) = three_rows(&memory);
    let client = daemon.client();
    let vector = client.generate_embeddings(&TEXTS, "m").unwrap().into_vec();
    client.ping().unwrap();
    assert_eq!(vector, values(16, 12));
    drop(client);
    assert_eq!(daemon.end(), [slot]);
    memory.assert_gone("taken");
}

#[test]
fn rows_shared_by_threads_are_freed_once_by_the_last() {
    let memory = Memory::new();
    let (daemon, slot) = three_rows(&memory);
    let client = daemon.client();
    let rows = Arc::new(client.generate_embeddings(&TEXTS, "m").unwrap());
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let rows = Arc::clone(&rows);
            std::thread::spawn(move || rows.as_slice().to_vec())
        })
        .collect();
    drop(rows);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), values(16, 12));
    }
    client.ping().unwrap();
    drop(client);
    assert_eq!(daemon.end(), [slot]);
}

#[test]
fn rows_outlive_their_client_and_the_daemon() {
    let memory = Memory::new();
    let (daemon, _) = three_rows(&memory);
    let client = daemon.client();
    let rows = client.generate_embeddings(&TEXTS, "m").unwrap();
    drop(client);
    assert_eq!(daemon.end(), [], "the end of the connection frees");
    assert_eq!((memory.open(), memory.mapped()), (0, 1));
    let rows = std::thread::spawn(move || {
        assert_eq!(rows.row(1), values(20, 4));
        rows
    });
    drop(rows.join().unwrap());
    memory.assert_gone("outlived");
}

#[test]
fn rows_show_their_shape_and_not_their_values() {
    let memory = Memory::new();
    let (daemon, _) = three_rows(&memory);
    let client = daemon.client();
    let rows = client.generate_embeddings(&TEXTS, "m").unwrap();
    let shown = format!("{rows:?}");
    assert_eq!(shown, "Embeddings { rows: 3, dimension: 4, is_shared: true, .. }");
    drop((rows, client));
    daemon.end();
}
