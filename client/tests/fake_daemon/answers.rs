use crate::daemon::{
    Daemon, Memory, PATIENCE, Peer, SEGMENT_BYTES, limits, rows_in, scene, values,
};
use emberd_client::{Client, Error, ProtocolError};
use emberd_protocol::{
    ErrorCode, Failure, Frame, FrameError, FrameKind, Limits, Request, Response, SegmentRetire,
};
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// Answers this many requests for a configuration, the last one first.
fn answer_backwards(peer: &mut Peer, count: usize) {
    let asked: Vec<_> = (0..count).map(|_| peer.request()).collect();
    answer_each(peer, asked.into_iter().rev());
}

fn answer_each(peer: &mut Peer, asked: impl IntoIterator<Item = (u64, Request)>) {
    for (id, request) in asked {
        let Request::ModelConfig { model } = request else { panic!("{request:?}") };
        let keys = vec![("model".to_owned(), model.to_string())];
        peer.answer(id, &Response::ModelConfig(keys));
    }
}

/// Asks for the configuration of a model, and checks that the answer is of that model.
fn ask_for(client: &Client, model: &str) {
    let keys = client.model_config(model).unwrap();
    assert_eq!(keys, [("model".to_owned(), model.to_owned())]);
}

/// How a ping fails when the daemon reacts to it in this way.
fn ping_answered(script: impl FnOnce(&mut Peer, u64) + Send + 'static) -> Error {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        let id = peer.ping();
        script(&mut peer, id);
        // What the client would accept if it had trusted the frames before.
        peer.answer(id, &Response::Pong);
        peer.drain();
    });
    let client = daemon.client();
    let error = client.ping().expect_err("the daemon has broken the protocol");
    drop(client);
    daemon.end();
    error
}

#[test]
fn each_of_several_threads_gets_its_own_answer_whatever_the_order() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 20;
    scene(
        |peer| {
            for _ in 0..ROUNDS {
                answer_backwards(peer, THREADS);
            }
            peer.silence();
        },
        |client| {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let client = client.clone();
                    scope.spawn(move || {
                        for round in 0..ROUNDS {
                            ask_for(&client, &format!("model-{thread}-{round}"));
                        }
                    });
                }
            });
        },
    );
}

#[test]
fn no_more_requests_wait_at_once_than_the_daemon_allows() {
    const THREADS: usize = 6;
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome_within(Limits { max_requests_in_flight: 2, ..limits() });
        let asked = [peer.request(), peer.request()];
        // Others have requests, too, and would have sent them by now. On a machine so busy that they
        // have not, this run shows nothing.
        peer.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let third = peer.stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(third, Err(ErrorKind::WouldBlock));
        peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        answer_each(&mut peer, asked);
        for _ in 1..THREADS / 2 {
            answer_backwards(&mut peer, 2);
        }
        peer.silence();
    });
    let client = daemon.client();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = client.clone();
            scope.spawn(move || ask_for(&client, &format!("model-{thread}")));
        }
    });
    drop(client);
    daemon.end();
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped_and_its_slot_freed() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            let id = peer.ping();
            peer.announce(1, SEGMENT_BYTES, &file);
            let (slot, rows) = rows_in(1, 64, 2);
            peer.answer(id + 1000, &rows);
            peer.answer(0, &Response::Released);
            peer.answer(id, &Response::Pong);
            assert_eq!(peer.freed(), [slot]);
            peer.pong();
            peer.silence();
        },
        |client| {
            client.ping().unwrap();
            client.ping().unwrap();
        },
    );
    memory.assert_gone("a stray answer");
}

#[test]
fn a_second_answer_to_a_question_is_dropped_and_its_slot_freed() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let id = peer.embed();
        peer.announce(1, SEGMENT_BYTES, &file);
        let (first, rows) = rows_in(1, 0, 1);
        let (second, other_rows) = rows_in(1, 64, 1);
        let answer = |rows| Frame::message(FrameKind::Response, id, rows).unwrap().to_bytes();
        // Both in one write, so that the client sees the second before it hands out the first.
        peer.bytes(&[answer(&rows), answer(&other_rows)].concat());
        // One of them is handed out and dropped, the other is dropped unseen.
        let mut freed = [peer.freed(), peer.freed()].concat();
        freed.sort_by_key(|slot| slot.offset);
        assert_eq!(freed, [first, second]);
        peer.pong();
        peer.silence();
    });
    let client = daemon.client();
    drop(client.generate_embeddings(&["text"], "m").unwrap());
    client.ping().unwrap();
    drop(client);
    daemon.end();
    memory.assert_gone("a second answer");
}

#[test]
fn an_answer_to_a_release_that_nobody_waits_for_disturbs_nobody() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        for lease in [1, 2] {
            peer.grant(lease);
            let (release, released) = peer.release();
            assert_eq!(released, lease);
            let ping = peer.ping();
            let failure = Failure::new(ErrorCode::ReferenceError, "never heard of it");
            let answer = if lease == 1 { Response::Released } else { Response::Failed(failure) };
            peer.answer(release, &answer);
            peer.answer(ping, &Response::Pong);
        }
        peer.silence();
    });
    let client = daemon.client();
    for _ in 0..2 {
        drop(client.model("m").unwrap());
        client.ping().unwrap();
    }
    drop(client);
    daemon.end();
}

#[test]
fn an_answer_of_the_wrong_kind_is_named_and_the_connection_goes_on() {
    scene(
        |peer| {
            let (id, _) = peer.request();
            peer.answer(id, &Response::Released);
            let (id, _) = peer.request();
            peer.answer(id, &Response::Pong);
            let (id, _) = peer.request();
            peer.answer(id, &Response::AvailableModels(Vec::new()));
            peer.pong();
            peer.silence();
        },
        |client| {
            let named = [
                (client.ping().err(), "a release"),
                (client.generate_embeddings(&["text"], "m").err(), "a pong"),
                (client.model("m").err(), "a list of models"),
            ];
            for (error, name) in named {
                let Some(Error::Protocol(ProtocolError::OutOfPlace(what))) = error else {
                    panic!("{error:?} does not name {name}")
                };
                assert_eq!(what, name);
            }
            client.ping().unwrap();
        },
    );
}

#[test]
fn rows_where_none_were_asked_for_are_an_error_and_their_slot_is_freed() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            let id = peer.ping();
            peer.announce(1, SEGMENT_BYTES, &file);
            let (unasked, rows) = rows_in(1, 0, 1);
            peer.answer(id, &rows);
            assert_eq!(peer.freed(), [unasked]);
            let id = peer.embed();
            let (too_many, rows) = rows_in(1, 64, 3);
            peer.answer(id, &rows);
            assert_eq!(peer.freed(), [too_many]);
            peer.silence();
        },
        |client| {
            let error = client.ping().unwrap_err();
            assert!(
                matches!(error, Error::Protocol(ProtocolError::OutOfPlace("rows"))),
                "{error:?}"
            );
            let error = client.generate_embeddings(&["one", "two"], "m").unwrap_err();
            let Error::Protocol(ProtocolError::OutOfPlace(what)) = error else {
                panic!("{error:?}")
            };
            assert_eq!(what, "the wrong number of rows");
        },
    );
    memory.assert_gone("rows out of place");
}

#[test]
fn frames_that_only_a_client_or_a_handshake_has_end_the_connection() {
    for kind in [
        FrameKind::Hello,
        FrameKind::Request,
        FrameKind::Free,
        FrameKind::Welcome,
        FrameKind::Refusal,
    ] {
        let error = ping_answered(move |peer, id| {
            peer.say(Frame::message(kind, id, &Response::Pong));
        });
        let is_named = matches!(error, Error::Protocol(ProtocolError::OutOfPlace(_)));
        assert!(is_named, "{kind:?}: {error:?}");
    }
}

#[test]
fn bytes_that_are_no_frame_or_no_message_end_the_connection_with_a_typed_error() {
    let garbage = ping_answered(|peer, _| peer.bytes(&[b'x'; 100]));
    assert!(
        matches!(garbage, Error::Protocol(ProtocolError::Frame(FrameError::WrongMagic))),
        "{garbage:?}"
    );
    let message = ping_answered(|peer, id| {
        let mut frame = Frame::message(FrameKind::Response, id, &Response::Pong).unwrap();
        frame.body = vec![0xff; 40];
        peer.bytes(&frame.to_bytes());
    });
    assert!(matches!(message, Error::Protocol(ProtocolError::Message(_))), "{message:?}");
    let retire = ping_answered(|peer, _| {
        peer.say(Frame::message(FrameKind::Retire, 0, &"no segment"));
    });
    assert!(matches!(retire, Error::Protocol(ProtocolError::Message(_))), "{retire:?}");
    let behind = ping_answered(|peer, id| {
        let mut frame = Frame::message(FrameKind::Response, id, &Response::Pong).unwrap();
        frame.tail = vec![0; 4];
        peer.bytes(&frame.to_bytes());
    });
    let Error::Protocol(ProtocolError::OutOfPlace(what)) = behind else { panic!("{behind:?}") };
    assert_eq!(what, "bytes behind a response");
}

#[test]
fn an_error_that_ends_the_connection_reaches_all_callers() {
    const THREADS: usize = 5;
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        for _ in 0..THREADS {
            peer.ping();
        }
        let segment = emberd_protocol::SegmentId(9);
        peer.say(Frame::message(FrameKind::Retire, 0, &SegmentRetire { segment }));
        peer.silence();
        listener.welcome().pong();
    });
    let client = daemon.client();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let client = client.clone();
            scope.spawn(move || {
                let error = client.ping().unwrap_err();
                let is_typed = matches!(error, Error::Protocol(ProtocolError::Segment { .. }));
                assert!(is_typed, "{error:?}");
            });
        }
    });
    client.ping().unwrap();
    daemon.end();
}

#[test]
fn a_failure_is_passed_on_unchanged_and_the_connection_continues() {
    scene(
        |peer| {
            for code in ErrorCode::ALL {
                let id = peer.ping();
                let failure = Failure::retryable(code, format!("no luck with {code}"));
                peer.answer(id, &Response::Failed(failure));
            }
            peer.silence();
        },
        |client| {
            for code in ErrorCode::ALL {
                let error = client.ping().unwrap_err();
                assert_eq!(error.code(), Some(code));
                assert_eq!(error.to_string(), format!("no luck with {code} ({code})"));
                let Error::Daemon(failure) = error else { panic!("{error:?}") };
                assert!(failure.retryable);
            }
        },
    );
}

#[test]
fn an_answer_is_put_together_from_pieces_of_any_size() {
    let memory = Memory::new();
    let file = memory.sealed();
    scene(
        move |peer| {
            let id = peer.embed();
            let announcement = crate::daemon::announcement(1, SEGMENT_BYTES).to_bytes();
            peer.bytes_with(&announcement[..1], &[&file]);
            let (_, rows) = rows_in(1, 128, 2);
            let answer = Frame::message(FrameKind::Response, id, &rows).unwrap().to_bytes();
            for byte in announcement[1..].iter().chain(&answer) {
                peer.bytes(&[*byte]);
            }
            peer.drain();
        },
        |client| {
            let rows = client.generate_embeddings(&["one", "two"], "m").unwrap();
            assert_eq!(rows.as_slice(), values(32, 8));
        },
    );
}
