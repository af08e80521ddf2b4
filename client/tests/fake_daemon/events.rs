use crate::daemon::{Daemon, PATIENCE, Peer, leased, scene};
use emberd_client::{Error, ProtocolError};
use emberd_protocol::{Event, LeaseId, ModelKind, Preloaded, Request, Response};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

const PRELOADED: Preloaded = Preloaded { was_loaded: false, load_ms: 1 };

/// The next frame, which asks for a model's preload with events.
fn asked_with_events(peer: &mut Peer) -> u64 {
    match peer.request() {
        (id, Request::Preload { events: true, .. } | Request::Acquire { events: true, .. }) => id,
        (_, other) => panic!("{other:?} asks for no events"),
    }
}

fn read(need_bytes: u64) -> Event {
    Event::Reading { need_bytes }
}

#[test]
fn events_come_in_order_before_the_answer_if_requested() {
    let news = [
        Event::Fetching { file: "f".into(), done_bytes: 1, total_bytes: 2 },
        Event::WaitingForRoom,
        read(3),
    ];
    let sent = news.clone();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let id = asked_with_events(&mut peer);
        sent.iter().for_each(|event| peer.event(id, event));
        peer.answer(id, &Response::Preloaded(PRELOADED));
        for kind in [None, Some(ModelKind::Embedding)] {
            let (id, request) = peer.request();
            let Request::Acquire { model, kind: wanted, events: true } = request else {
                panic!("{request:?}")
            };
            assert_eq!(wanted, kind);
            sent.iter().for_each(|event| peer.event(id, event));
            peer.answer(id, &Response::Leased(leased(1, model)));
            let (id, _) = peer.release();
            peer.answer(id, &Response::Released);
        }
        // A call without events does not request them.
        let (id, request) = peer.request();
        let Request::Acquire { model, events: false, .. } = request else { panic!("{request:?}") };
        peer.answer(id, &Response::Leased(leased(2, model)));
        peer.drain();
    });
    let client = daemon.client();
    let mut seen = Vec::new();
    assert_eq!(client.preload_with("m", |event| seen.push(event)).unwrap(), PRELOADED);
    assert_eq!(seen, news);
    seen.clear();
    client.model_with("m", |event| seen.push(event)).unwrap().release().unwrap();
    assert_eq!(seen, news);
    seen.clear();
    client.embedding_model_with("m", |event| seen.push(event)).unwrap().release().unwrap();
    assert_eq!(seen, news);
    drop(client.model("m").unwrap());
    drop(client);
    daemon.end();
}

#[test]
fn an_event_that_nobody_asked_for_ends_the_connection_and_one_that_is_late_does_not() {
    scene(
        |peer| {
            let id = asked_with_events(peer);
            peer.answer(id, &Response::Preloaded(PRELOADED));
            let ping = peer.ping();
            // An event of a finished request, and one of a request that never existed.
            peer.event(id, &read(1));
            peer.event(0, &read(2));
            peer.event(id + 1000, &read(3));
            peer.answer(ping, &Response::Pong);
            let ping = peer.ping();
            peer.event(ping, &read(4));
            peer.answer(ping, &Response::Pong);
            peer.drain();
        },
        |client| {
            client.preload_with("m", |event| panic!("{event:?} is too late")).unwrap();
            client.ping().unwrap();
            let error = client.ping().unwrap_err();
            let Error::Protocol(ProtocolError::OutOfPlace(what)) = error else {
                panic!("{error:?}")
            };
            assert_eq!(what, "an event that was not requested");
        },
    );
}

#[test]
fn an_event_that_cannot_be_read_ends_the_connection() {
    scene(
        |peer| {
            let id = asked_with_events(peer);
            peer.say(emberd_protocol::Frame::message(
                emberd_protocol::FrameKind::Event,
                id,
                &99u32,
            ));
            peer.drain();
        },
        |client| {
            let error = client.preload_with("m", |_| {}).unwrap_err();
            assert!(matches!(error, Error::Protocol(ProtocolError::Message(_))), "{error:?}");
        },
    );
}

#[test]
fn a_callback_may_use_the_client() {
    scene(
        |peer| {
            let id = asked_with_events(peer);
            for event in [read(1), read(2)] {
                peer.event(id, &event);
                peer.pong();
            }
            peer.answer(id, &Response::Preloaded(PRELOADED));
            peer.silence();
        },
        |client| {
            client.preload_with("m", |_| client.ping().unwrap()).unwrap();
        },
    );
}

#[test]
fn a_load_that_takes_long_holds_up_nobody_and_events_reach_their_thread() {
    let (done, is_done) = mpsc::channel();
    let (asked, is_asked) = mpsc::channel();
    scene(
        move |peer| {
            let id = asked_with_events(peer);
            asked.send(()).unwrap();
            for round in 0..20 {
                peer.event(id, &read(round));
                peer.pong();
            }
            is_done.recv_timeout(PATIENCE).unwrap();
            peer.answer(id, &Response::Preloaded(PRELOADED));
            peer.silence();
        },
        |client| {
            std::thread::scope(|scope| {
                let loading = scope.spawn(|| {
                    let mut seen = Vec::new();
                    client.preload_with("m", |event| seen.push(event)).unwrap();
                    seen
                });
                is_asked.recv_timeout(PATIENCE).unwrap();
                for _ in 0..20 {
                    client.ping().unwrap();
                }
                done.send(()).unwrap();
                assert_eq!(loading.join().unwrap(), (0..20).map(read).collect::<Vec<_>>());
            });
        },
    );
}

#[test]
fn if_events_are_not_taken_the_latest_are_kept() {
    const EVENTS: u64 = 1000;
    let (started, is_started) = mpsc::channel();
    scene(
        move |peer| {
            let id = asked_with_events(peer);
            peer.event(id, &read(0));
            let ping = peer.ping();
            // All of them arrive while the callback is busy with the first.
            (1..EVENTS).for_each(|n| peer.event(id, &read(n)));
            peer.answer(ping, &Response::Pong);
            peer.answer(id, &Response::Preloaded(PRELOADED));
            started.send(()).unwrap();
            peer.silence();
        },
        |client| {
            let mut seen = Vec::new();
            let on_event = |event| {
                if event == read(0) {
                    client.ping().unwrap();
                    is_started.recv_timeout(PATIENCE).unwrap();
                }
                seen.push(event);
            };
            client.preload_with("m", on_event).unwrap();
            assert!(seen.len() < 200, "{} events were kept", seen.len());
            assert_eq!((seen.first(), seen.last()), (Some(&read(0)), Some(&read(EVENTS - 1))));
        },
    );
}

#[test]
fn a_panic_in_the_callback_cancels_the_load_and_returns_a_late_lease() {
    scene(
        |peer| {
            let id = asked_with_events(peer);
            peer.event(id, &read(1));
            assert_eq!(peer.cancel(), id);
            // The cancel came too late.
            peer.event(id, &read(2));
            let model = emberd_protocol::ModelId::new("m").unwrap();
            peer.answer(id, &Response::Leased(leased(5, model)));
            peer.pong();
            let (_, lease) = peer.release();
            assert_eq!(LeaseId(lease), LeaseId(5));
            peer.drain();
        },
        |client| {
            let load = || client.model_with("m", |_| std::panic::resume_unwind(Box::new("stop")));
            catch_unwind(AssertUnwindSafe(load)).unwrap_err();
            client.ping().unwrap();
        },
    );
}
