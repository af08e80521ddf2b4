use crate::admin::decision;
use crate::daemon::{
    Daemon, Memory, PATIENCE, Peer, SEGMENT_BYTES, builder, leased, once, rows_at, values,
};
use emberd_client::{Client, ConnectError, Error, TransportError};
use emberd_protocol::{
    EmbedRequest, ErrorCode, Frame, FrameKind, LeaseId, Place, Preloaded, Refusal, RefusalReason,
    Request, Response, Target, Verdict,
};
use std::sync::mpsc;
use std::time::Duration;

/// Answers like a daemon that has every model.
fn answer(peer: &mut Peer, (id, request): (u64, Request)) {
    let response = match request {
        Request::Ping => Response::Pong,
        Request::Acquire { model, .. } => Response::Leased(leased(1, model)),
        Request::Embed(_) => {
            let rows = Response::Embedded(rows_at(1, Place::Inline));
            let mut frame = Frame::message(FrameKind::Response, id, &rows).unwrap();
            frame.tail = vec![0; 16];
            return peer.bytes(&frame.to_bytes());
        }
        Request::AvailableModels => Response::AvailableModels(Vec::new()),
        Request::ModelConfig { .. } => Response::ModelConfig(Vec::new()),
        Request::Preload { .. } => Response::Preloaded(Preloaded { was_loaded: true, load_ms: 0 }),
        Request::Why { .. } => Response::Decisions(Vec::new()),
        Request::Plan { .. } => Response::Decisions(vec![decision(Verdict::Stay)]),
        Request::Release { .. } => Response::Released,
        other => panic!("{other:?} has no answer here"),
    };
    peer.answer(id, &response);
}

type Call = (&'static str, fn(&Client) -> Result<(), Error>);

const SAFE: [Call; 9] = [
    ("ping", |c| c.ping()),
    ("model", |c| c.model("m").map(drop)),
    ("embed", |c| c.generate_embeddings(&["text"], "m").map(drop)),
    ("models", |c| c.available_models().map(drop)),
    ("config", |c| c.model_config("m").map(drop)),
    ("preload", |c| c.preload("m").map(drop)),
    ("preload with events", |c| c.preload_with("m", |_| {}).map(drop)),
    ("why", |c| c.why("m").map(drop)),
    ("plan", |c| c.plan("m").map(drop)),
];

const UNSAFE: [Call; 4] = [
    ("unload", |c| c.unload("m").map(drop)),
    ("cleanup", |c| c.cleanup_unused_models().map(drop)),
    ("clear", |c| c.clear_embedding_cache().map(drop)),
    ("reload", |c| c.reload().map(drop)),
];

#[test]
fn idempotent_requests_are_repeated_after_a_crash() {
    for (name, call) in SAFE {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            let (_, first) = peer.request();
            drop(peer);
            let mut peer = listener.welcome();
            let (id, second) = peer.request();
            assert_eq!(first, second);
            answer(&mut peer, (id, second));
            peer.drain();
        });
        let client = daemon.patient_client();
        call(&client).unwrap_or_else(|error| panic!("{name}: {error}"));
        drop(client);
        daemon.end();
    }
}

#[test]
fn idempotent_requests_are_repeated_on_the_next_daemon_after_a_stop() {
    for (name, call) in SAFE {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            let (id, first) = peer.request();
            peer.fail(id, ErrorCode::ShuttingDown);
            let mut next = listener.welcome();
            let (id, second) = next.request();
            assert_eq!(first, second);
            answer(&mut next, (id, second));
            // Nothing holds the old connection any more.
            peer.silence();
            next.drain();
        });
        let client = daemon.patient_client();
        call(&client).unwrap_or_else(|error| panic!("{name}: {error}"));
        drop(client);
        daemon.end();
    }
}

#[test]
fn requests_with_effects_are_sent_once() {
    for (name, call) in UNSAFE {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            peer.request();
            drop(peer);
            let mut peer = listener.welcome();
            peer.pong();
            let (id, _) = peer.request();
            peer.fail(id, ErrorCode::ShuttingDown);
            peer.pong();
            peer.silence();
        });
        let client = daemon.patient_client();
        let lost = call(&client).unwrap_err();
        let is_lost = matches!(lost, Error::Transport(TransportError::Disconnected { .. }));
        assert!(is_lost, "{name}: {lost:?}");
        client.ping().unwrap();
        let stopping = call(&client).unwrap_err();
        assert_eq!(stopping.code(), Some(ErrorCode::ShuttingDown), "{name}");
        client.ping().unwrap();
        drop(client);
        daemon.end();
    }
}

#[test]
fn an_end_that_could_be_known_loses_nothing() {
    for (name, call) in UNSAFE {
        let (gone, is_gone) = mpsc::channel();
        let daemon = Daemon::run(move |listener| {
            listener.welcome().pong();
            gone.send(()).unwrap();
            let mut peer = listener.welcome();
            let (id, _) = peer.request();
            peer.fail(id, ErrorCode::Internal);
            peer.silence();
        });
        let client = daemon.patient_client();
        client.ping().unwrap();
        is_gone.recv_timeout(PATIENCE).unwrap();
        let error = call(&client).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Internal), "{name}");
        drop(client);
        daemon.end();
    }
}

#[test]
fn with_repetition_off_every_request_is_sent_once() {
    for (name, call) in SAFE {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            peer.request();
            drop(peer);
            let mut peer = listener.welcome();
            let (id, _) = peer.request();
            peer.fail(id, ErrorCode::ShuttingDown);
            peer.pong();
            peer.silence();
        });
        let client = builder().repeat_requests(false).connect_to(daemon.path()).unwrap();
        let lost = call(&client).unwrap_err();
        assert!(matches!(lost, Error::Transport(_)), "{name}: {lost:?}");
        assert_eq!(call(&client).unwrap_err().code(), Some(ErrorCode::ShuttingDown), "{name}");
        client.ping().unwrap();
        drop(client);
        daemon.end();
    }
}

#[test]
fn embedding_with_a_lease_takes_it_again_and_asks_again_in_one_call() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.grant(7);
        peer.announce(1, SEGMENT_BYTES, &file);
        peer.rows(0, 1);
        peer.embed();
        drop(peer);
        let mut peer = listener.welcome();
        peer.grant(8);
        let (id, request) = peer.request();
        let Request::Embed(EmbedRequest { target, .. }) = &request else { panic!("{request:?}") };
        assert_eq!(*target, Target::Lease(LeaseId(8)));
        answer(&mut peer, (id, request));
        let (_, lease) = peer.release();
        assert_eq!(lease, 8);
        peer.silence();
    });
    let client = daemon.patient_client();
    let model = client.embedding_model("m").unwrap();
    let before = model.embed(&["text"]).unwrap();
    assert_eq!(model.embed(&["text"]).unwrap().len(), 1);
    assert_eq!(before.row(0), values(0, 4), "what the old daemon wrote stays");
    drop((model, before, client));
    daemon.end();
    memory.assert_gone("the old view");
}

#[test]
fn running_requests_finish_on_a_stopping_daemon_while_others_go_to_the_next() {
    let (asked, is_asked) = mpsc::channel();
    let daemon = Daemon::run(move |listener| {
        let mut old = listener.welcome();
        let slow = old.embed();
        asked.send(()).unwrap();
        let id = old.ping();
        old.fail(id, ErrorCode::ShuttingDown);
        let mut next = listener.welcome();
        next.pong();
        answer(&mut old, (slow, Request::Ping));
        old.silence();
        next.silence();
    });
    let client = daemon.patient_client();
    std::thread::scope(|scope| {
        // Any answer will do: it is the old connection's.
        let slow = scope.spawn(|| client.generate_embeddings(&["text"], "m"));
        is_asked.recv_timeout(PATIENCE).unwrap();
        client.ping().unwrap();
        let slow = slow.join().unwrap().unwrap_err();
        assert!(matches!(slow, Error::Protocol(_)), "{slow:?}");
    });
    drop(client);
    daemon.end();
}

#[test]
fn a_daemon_on_its_way_back_is_waited_for() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.ping();
        drop(peer);
        // Hangs up without an answer, as a daemon that ends.
        drop(listener.accept());
        let mut peer = listener.accept();
        peer.hello();
        let message = "stopping".into();
        let refusal = Refusal { reason: RefusalReason::ShuttingDown, message };
        peer.say(Frame::message(FrameKind::Refusal, 0, &refusal));
        drop(peer);
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    let client = daemon.patient_client();
    client.ping().unwrap();
    drop(client);
    daemon.end();
}

#[test]
fn a_socket_that_is_gone_for_a_while_is_waited_for() {
    let (path, is_path) = mpsc::channel::<std::path::PathBuf>();
    let daemon = Daemon::run(move |listener| {
        let path = is_path.recv_timeout(PATIENCE).unwrap();
        let mut peer = listener.welcome();
        peer.ping();
        let away = path.with_extension("away");
        std::fs::rename(&path, &away).unwrap();
        drop(peer);
        // Long enough for the client to find it missing; if it does not, this run shows nothing.
        std::thread::sleep(Duration::from_millis(100));
        std::fs::rename(&away, &path).unwrap();
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    path.send(daemon.path().to_owned()).unwrap();
    let client = daemon.patient_client();
    client.ping().unwrap();
    drop(client);
    daemon.end();
}

#[test]
fn patience_ends_and_from_then_on_each_call_fails_at_once() {
    let daemon = Daemon::run(|listener| {
        listener.welcome().ping();
    });
    let patience = Duration::from_millis(50);
    let client = builder().reconnect_patience(patience).connect_to(daemon.path()).unwrap();
    let away = daemon.path().with_extension("away");
    std::fs::rename(daemon.path(), away).unwrap();
    // With endless patience the call would never return.
    for _ in 0..3 {
        let error = client.ping().unwrap_err();
        assert!(matches!(error, Error::Connect(ConnectError::NoDaemon { .. })), "{error:?}");
    }
    drop(client);
    daemon.end();
}

#[test]
fn a_refusal_of_another_kind_is_reported_at_once() {
    let daemon = Daemon::run(|listener| {
        listener.welcome().ping();
        let mut peer = listener.accept();
        peer.hello();
        let refusal = Refusal { reason: RefusalReason::NotPermitted, message: "no".into() };
        peer.say(Frame::message(FrameKind::Refusal, 0, &refusal));
    });
    let client = daemon.patient_client();
    assert_eq!(client.ping().unwrap_err().code(), Some(ErrorCode::PermissionDenied));
    daemon.end();
}

#[test]
fn a_request_that_crashes_every_daemon_is_given_up() {
    let daemon = Daemon::run(|listener| {
        for _ in 0..4 {
            listener.welcome().ping();
        }
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    let client = daemon.patient_client();
    let error = client.ping().unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Disconnected { .. })), "{error:?}");
    client.ping().unwrap();
    drop(client);
    daemon.end();
}

#[test]
fn a_daemon_that_stops_for_ever_is_given_up_when_patience_ends() {
    let daemon = Daemon::run(|listener| {
        loop {
            let mut peer = listener.welcome();
            match peer.request() {
                (id, Request::Ping) => peer.fail(id, ErrorCode::ShuttingDown),
                (id, _) => return peer.fail(id, ErrorCode::Internal),
            }
        }
    });
    let patience = Duration::from_millis(100);
    let client = builder().reconnect_patience(patience).connect_to(daemon.path()).unwrap();
    assert_eq!(client.ping().unwrap_err().code(), Some(ErrorCode::ShuttingDown));
    let other = once().connect_to(daemon.path()).unwrap();
    assert_eq!(other.status().unwrap_err().code(), Some(ErrorCode::Internal));
    daemon.end();
}
