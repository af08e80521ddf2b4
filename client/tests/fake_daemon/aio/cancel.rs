use super::{client, poll_once, runtimes};
use crate::daemon::{Daemon, Memory, PATIENCE, Peer, SEGMENT_BYTES, leased, limits, rows_in};
use emberd_client::aio::Client;
use emberd_protocol::{ErrorCode, FrameKind, Free, Limits, ModelId, Request, Response, SlotRef};
use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc;

fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

#[test]
fn a_dropped_future_is_cancelled_and_what_comes_late_goes_back() {
    for runtime in runtimes() {
        let memory = Memory::new();
        let file = memory.sealed();
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            let embed = peer.embed();
            let (acquire, _) = peer.request();
            assert_eq!((peer.cancel(), peer.cancel()), (embed, acquire));
            let ping = peer.ping();
            peer.announce(1, SEGMENT_BYTES, &file);
            let (slot, rows) = rows_in(1, 64, 1);
            peer.answer(embed, &rows);
            assert_eq!(peer.freed(), [slot]);
            peer.answer(acquire, &Response::Leased(leased(5, model())));
            let (_, lease) = peer.release();
            assert_eq!(lease, 5);
            peer.answer(ping, &Response::Pong);
            peer.silence();
        });
        runtime.block_on(async {
            let client = client(&daemon).await;
            let mut embed = Box::pin(client.generate_embeddings(&["text"], "m"));
            let mut acquire = Box::pin(client.model("m"));
            assert!(poll_once(&mut embed).is_pending() && poll_once(&mut acquire).is_pending());
            drop(embed);
            drop(acquire);
            client.ping().await.unwrap();
        });
        daemon.end();
        memory.assert_gone("a late slot");
    }
}

#[test]
fn a_future_that_was_never_polled_sends_nothing() {
    let daemon = Daemon::run(|listener| listener.welcome().silence());
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        drop(client.ping());
        drop(client.model("m"));
    });
    daemon.end();
}

#[test]
fn an_answer_that_came_but_was_not_taken_goes_back() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let embed = peer.embed();
        let (acquire, _) = peer.request();
        peer.announce(1, SEGMENT_BYTES, &file);
        let (slot, rows) = rows_in(1, 64, 1);
        peer.answer(embed, &rows);
        peer.answer(acquire, &Response::Leased(leased(5, model())));
        peer.pong();
        assert_eq!(peer.freed(), [slot]);
        let (_, lease) = peer.release();
        assert_eq!(lease, 5);
        peer.silence();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        let mut embed = Box::pin(client.generate_embeddings(&["text"], "m"));
        let mut acquire = Box::pin(client.model("m"));
        assert!(poll_once(&mut embed).is_pending() && poll_once(&mut acquire).is_pending());
        // Its answer comes after theirs.
        client.ping().await.unwrap();
        drop(embed);
        drop(acquire);
    });
    daemon.end();
    memory.assert_gone("an answer in between");
}

#[test]
fn a_dropped_waiter_passes_its_turn_on() {
    let daemon = Daemon::run(|listener| {
        let limits = Limits { max_requests_in_flight: 1, ..limits() };
        let mut peer = listener.welcome_within(limits);
        peer.pong();
        let (id, request) = peer.request();
        assert!(matches!(request, Request::ModelConfig { .. }), "{request:?}");
        peer.answer(id, &Response::ModelConfig(Vec::new()));
        peer.silence();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        let mut first = Box::pin(client.ping());
        let mut second = Box::pin(client.ping());
        let mut third = Box::pin(client.ping());
        assert!(poll_once(&mut first).is_pending());
        assert!(poll_once(&mut second).is_pending() && poll_once(&mut third).is_pending());
        // One is dropped while it waits, the other after it was woken and before it is polled.
        drop(third);
        let asking = client.clone();
        let fourth = tokio::spawn(async move { asking.model_config("m").await });
        tokio::task::yield_now().await;
        first.await.unwrap();
        drop(second);
        fourth.await.unwrap().unwrap();
    });
    daemon.end();
}

#[test]
fn a_started_release_is_sent_even_if_there_is_no_room() {
    let daemon = Daemon::run(|listener| {
        let limits = Limits { max_requests_in_flight: 1, ..limits() };
        let mut peer = listener.welcome_within(limits);
        peer.grant(3);
        let ping = peer.ping();
        let (release, lease) = peer.release();
        assert_eq!(lease, 3);
        peer.answer(release, &Response::Released);
        peer.answer(ping, &Response::Pong);
        peer.drain();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        let lease = client.model("m").await.unwrap();
        let mut ping = Box::pin(client.ping());
        assert!(poll_once(&mut ping).is_pending());
        let mut release = Box::pin(lease.release());
        assert!(poll_once(&mut release).is_pending());
        drop(release);
        ping.await.unwrap();
    });
    daemon.end();
}

#[test]
fn a_future_dropped_while_it_connects_again_leaves_the_others_alone() {
    let (welcome, may_welcome) = mpsc::channel();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.ping();
        drop(peer);
        let mut peer = listener.accept();
        peer.hello();
        may_welcome.recv_timeout(PATIENCE).unwrap();
        let message = crate::daemon::welcome(limits());
        peer.say(emberd_protocol::Frame::message(FrameKind::Welcome, 0, &message));
        peer.pong();
        peer.silence();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        client.ping().await.unwrap_err();
        let mut reconnecting = Box::pin(client.ping());
        assert!(poll_once(&mut reconnecting).is_pending());
        let mut waiting = Box::pin(client.ping());
        assert!(poll_once(&mut waiting).is_pending());
        drop(reconnecting);
        welcome.send(()).unwrap();
        waiting.await.unwrap();
    });
    daemon.end();
}

/// Grants every request, a few frames late, until a ping finds everything given back.
fn keep_books(peer: &mut Peer, file: &std::os::fd::OwnedFd) {
    let mut free: BTreeSet<u64> = (0..SEGMENT_BYTES / 64).collect();
    let (mut leases, mut last_lease) = (BTreeSet::new(), 0);
    let mut late = VecDeque::new();
    peer.announce(1, SEGMENT_BYTES, file);
    loop {
        let Some(frame) = peer.next() else { panic!("the client hung up with {leases:?} left") };
        match frame.kind {
            FrameKind::Request => late.push_back((frame.id, frame.decode().unwrap())),
            FrameKind::Free => {
                for SlotRef { offset, .. } in frame.decode::<Free>().unwrap().slots {
                    assert!(free.insert(offset / 64), "{offset} was freed twice");
                }
            }
            _ => assert_eq!(frame.kind, FrameKind::Cancel),
        }
        let is_urgent =
            late.back().is_some_and(|(_, request)| !matches!(request, Request::Embed(_)));
        while late.len() > 3 || (is_urgent && !late.is_empty()) {
            let (id, request) = late.pop_front().unwrap();
            match request {
                Request::Embed(_) => match free.pop_first() {
                    Some(place) => peer.answer(id, &rows_in(1, place * 64, 1).1),
                    None => peer.fail(id, ErrorCode::LimitExceeded),
                },
                Request::Acquire { model, .. } => {
                    last_lease += 1;
                    leases.insert(last_lease);
                    peer.answer(id, &Response::Leased(leased(last_lease, model)));
                }
                Request::Release { lease } => {
                    assert!(leases.remove(&lease.0), "{lease} was released twice");
                    peer.answer(id, &Response::Released);
                }
                Request::Ping => {
                    peer.answer(id, &Response::Pong);
                }
                Request::AvailableModels => {
                    let all = usize::try_from(SEGMENT_BYTES / 64).unwrap();
                    assert_eq!((free.len(), leases.len()), (all, 0), "left behind");
                    peer.answer(id, &Response::AvailableModels(Vec::new()));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Does one thing, in a way that depends on the number.
async fn something(client: Client, n: usize) {
    match n % 3 {
        0 => drop(client.generate_embeddings(&["text"], "m").await),
        1 => drop(client.model("m").await),
        _ => drop(client.ping().await),
    }
}

#[test]
fn futures_aborted_at_any_moment_leave_nothing_behind() {
    const FUTURES: usize = 600;
    for runtime in runtimes() {
        let memory = Memory::new();
        let file = memory.sealed();
        let daemon = Daemon::run(move |listener| {
            let limits = Limits { max_requests_in_flight: 5, ..limits() };
            let mut peer = listener.welcome_within(limits);
            keep_books(&mut peer, &file);
            peer.silence();
        });
        runtime.block_on(async {
            let client = client(&daemon).await;
            let mut tasks = VecDeque::new();
            for n in 0..FUTURES {
                tasks.push_back(tokio::spawn(something(client.clone(), n)));
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
                // Some complete, some are aborted early, some late.
                if n % 5 == 0 {
                    tasks[n * 31 % tasks.len()].abort();
                }
                if tasks.len() > 20 {
                    tasks.pop_front().unwrap().abort();
                }
            }
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                let _ = task.await;
            }
            // After the first answer all late ones have arrived; after the second all is given back.
            client.ping().await.unwrap();
            client.ping().await.unwrap();
            client.available_models().await.unwrap();
        });
        daemon.end();
        memory.assert_gone("many futures");
    }
}
