//! Replies and hang-ups over a real socket.

use crate::connection::frames::split;
use crate::connection::reply::ReplyWriter;
use crate::models::lease::ConnectionId;
use crate::request::answer::{Answer, Promise};
use crate::request::caller::Caller;
use crate::request::in_flight::InFlight;
use crate::request::peer::Peer;
use crate::segment::{
    Finished, FinishedSlot, InlineCredit, Output, SegmentPool, Spares, TotalCredit, backend,
};
use emberd_protocol::{MAX_BODY_BYTES, Response, SegmentBackend};
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Listener as _;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Both ends of a connection.
async fn connected() -> (Stream, UnixStream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let name = path.as_path().to_fs_name::<GenericFilePath>().unwrap();
    let listener = ListenerOptions::new().name(name).create_tokio().unwrap();
    let client = UnixStream::connect(&path).unwrap();
    (listener.accept().await.unwrap(), client)
}

fn pool() -> Arc<SegmentPool> {
    let spares = Spares::new(backend(SegmentBackend::Memfd), 0).unwrap();
    SegmentPool::new(spares, 1 << 20, TotalCredit::new(1 << 20))
}

async fn finished(pool: &Arc<SegmentPool>) -> FinishedSlot {
    let slot = pool.reserve(400, Duration::ZERO).await.unwrap();
    match Output::slot(slot, 1, 100).unwrap().finish() {
        Ok(Finished::Slot(slot)) => slot,
        other => panic!("no slot: {other:?}"),
    }
}

fn replies(pool: &Arc<SegmentPool>, stream: Stream) -> ReplyWriter {
    let (_reader, writer) = split(stream);
    let caller = Caller {
        id: ConnectionId(1),
        peer: Peer { pid: 1, uid: 1 },
        name: "test".into(),
        since: Instant::now(),
        pool: Some(Arc::clone(pool)),
        inline: InlineCredit::new(1 << 20, TotalCredit::new(1 << 20)),
        in_flight: InFlight::default(),
    };
    ReplyWriter::new(Arc::new(caller), writer)
}

#[tokio::test]
async fn a_promise_is_the_clients_once_the_answer_is_written_and_goes_back_otherwise() {
    let pool = pool();
    let (stream, client) = connected().await;
    let replies = replies(&pool, stream);
    let promising = async |response| Answer {
        promise: Promise::Slot(finished(&pool).await),
        ..Answer::from(response)
    };

    let huge = Response::ModelConfig(vec![("key".into(), "x".repeat(MAX_BODY_BYTES))]);
    replies.answer(1, promising(huge).await).await.unwrap();
    assert_eq!(pool.held_bytes(), 0, "a failure was written in its place");

    let answer = promising(Response::Pong).await;
    let slot = answer.promise.slot().unwrap();
    replies.answer(2, answer).await.unwrap();
    assert!(pool.held_bytes() > 0);
    assert!(pool.free(&slot));

    drop(client);
    let answer = promising(Response::Pong).await;
    replies.answer(3, answer).await.unwrap_err();
    assert_eq!(pool.held_bytes(), 0, "nobody is there to free it");
}

#[tokio::test]
async fn a_hang_up_is_seen_behind_unread_bytes_and_a_half_closed_stream_is_none() {
    let (stream, mut client) = connected().await;
    let (_reader, writer) = split(stream);
    let is_hung_up = async || timeout(Duration::from_millis(20), writer.hung_up()).await.is_ok();
    client.write_all(&[1; 1000]).unwrap();
    assert!(!is_hung_up().await);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(!is_hung_up().await, "it still reads");
    drop(client);
    writer.hung_up().await;

    let (stream, mut client) = connected().await;
    let (_reader, writer) = split(stream);
    client.write_all(&[1; 1000]).unwrap();
    drop(client);
    writer.hung_up().await;
}
