use crate::daemon::{Daemon, PATIENCE, leased, rows_in, scene};
use emberd_client::{Error, TransportError};
use emberd_protocol::{
    Decoder, EmbedRequest, ErrorCode, Failure, FrameKind, LeaseId, ModelKind, Request, Response,
    Target,
};
use std::io::Read;
use std::sync::mpsc;

#[test]
fn a_lease_is_taken_for_a_kind_and_knows_its_model() {
    scene(
        |peer| {
            for wanted in [Some(ModelKind::Embedding), None] {
                let (id, request) = peer.request();
                let Request::Acquire { model, kind, .. } = request else { panic!("{request:?}") };
                assert_eq!((model.as_str(), kind), ("m", wanted));
                peer.answer(id, &Response::Leased(leased(9, model)));
            }
            peer.drain();
        },
        |client| {
            let model = client.embedding_model("m").unwrap();
            assert_eq!((model.dimension(), model.lease().id()), (4, LeaseId(9)));
            assert_eq!(client.model("m").unwrap().info().architecture, "fake");
        },
    );
}

#[test]
fn an_id_that_cannot_exist_is_not_asked_for() {
    let daemon = Daemon::run(|listener| listener.welcome().silence());
    let client = daemon.client();
    let error = client.model("no such id").unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ModelNotConfigured));
    drop(client);
    daemon.end();
}

#[test]
fn the_last_clone_dropped_releases_once() {
    scene(
        |peer| {
            peer.grant(9);
            peer.pong();
            let (id, lease) = peer.release();
            assert_eq!(lease, 9);
            peer.answer(id, &Response::Released);
            peer.pong();
            peer.silence();
        },
        |client| {
            let model = client.embedding_model("m").unwrap();
            let clones = [model.clone(), model.clone()];
            drop(model);
            drop(clones[0].lease().clone());
            client.ping().unwrap();
            drop(clones);
            client.ping().unwrap();
        },
    );
}

#[test]
fn a_second_release_is_the_daemons_reference_error_and_dropping_says_no_more() {
    scene(
        |peer| {
            peer.grant(9);
            let (id, lease) = peer.release();
            peer.answer(id, &Response::Released);
            let (id, again) = peer.release();
            assert_eq!((lease, again), (9, 9));
            let failure = Failure::new(ErrorCode::ReferenceError, "lease 9 is not alive");
            peer.answer(id, &Response::Failed(failure));
            let (id, request) = peer.request();
            let Request::Embed(EmbedRequest { target, .. }) = request else {
                panic!("{request:?}")
            };
            assert_eq!(target, Target::Lease(LeaseId(9)));
            let failure = Failure::new(ErrorCode::ReferenceError, "still not alive");
            peer.answer(id, &Response::Failed(failure));
            peer.silence();
        },
        |client| {
            let model = client.embedding_model("m").unwrap();
            let clone = model.clone();
            model.release().unwrap();
            let error = clone.release().unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::ReferenceError));
            assert_eq!(error.to_string(), "lease 9 is not alive (REFERENCE_ERROR)");
            let error = model.embed(&["text"]).unwrap_err();
            assert_eq!(error.to_string(), "still not alive (REFERENCE_ERROR)");
        },
    );
}

#[test]
fn a_released_lease_never_hits_the_lease_that_a_new_daemon_gave_its_number_to() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.grant(1);
        let (id, _) = peer.release();
        peer.answer(id, &Response::Released);
        peer.ping();
        drop(peer);
        // Numbers start again from the beginning.
        let mut peer = listener.welcome();
        peer.grant(1);
        peer.pong();
        let (_, lease) = peer.release();
        assert_eq!(lease, 1);
        peer.silence();
    });
    let client = daemon.client();
    let old = client.embedding_model("old").unwrap();
    old.release().unwrap();
    let lost = client.ping().unwrap_err();
    assert!(matches!(lost, Error::Transport(TransportError::Disconnected { .. })), "{lost:?}");
    let new = client.embedding_model("new").unwrap();
    // Neither releases the other lease, nor embeds with its model.
    let error = old.release().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ReferenceError), "{error:?}");
    let error = old.embed(&["text"]).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ReferenceError), "{error:?}");
    drop(old);
    client.ping().unwrap();
    drop((new, client));
    daemon.end();
}

#[test]
fn a_lease_of_a_lost_connection_is_taken_again_when_it_is_used() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.grant(7);
        peer.embed();
        drop(peer);
        let mut peer = listener.welcome();
        peer.grant(8);
        let (id, request) = peer.request();
        let Request::Embed(EmbedRequest { target, .. }) = request else { panic!("{request:?}") };
        assert_eq!(target, Target::Lease(LeaseId(8)));
        peer.answer(id, &Response::Failed(Failure::retryable(ErrorCode::Overloaded, "busy")));
        let (_, lease) = peer.release();
        assert_eq!(lease, 8);
        peer.silence();
    });
    let client = daemon.client();
    let model = client.embedding_model("m").unwrap();
    let lost = model.embed(&["text"]).unwrap_err();
    assert!(matches!(lost, Error::Transport(TransportError::Disconnected { .. })), "{lost:?}");
    let busy = model.embed(&["text"]).unwrap_err();
    assert_eq!(busy.code(), Some(ErrorCode::Overloaded));
    drop((model, client));
    daemon.end();
}

#[test]
fn all_leases_are_taken_again_with_the_first_request_on_a_new_connection() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        (1..=3).for_each(|lease| peer.grant(lease));
        peer.ping();
        drop(peer);
        let mut peer = listener.welcome();
        // One of the three was dropped before.
        (7..=8).for_each(|lease| peer.grant(lease));
        peer.pong();
        assert_eq!(peer.release().1, 8);
        peer.pong();
        assert_eq!(peer.release().1, 7);
        peer.silence();
    });
    let client = daemon.client();
    let [kept, gone, dropped] = ["a", "b", "c"].map(|id| client.model(id).unwrap());
    client.ping().unwrap_err();
    drop(gone);
    client.ping().unwrap();
    assert_eq!((kept.id().0, dropped.id().0), (7, 8));
    drop(dropped);
    client.ping().unwrap();
    drop((kept, client));
    daemon.end();
}

#[test]
fn a_lease_that_ended_with_its_connection_releases_nothing_on_the_next() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.grant(1);
        peer.grant(2);
        peer.ping();
        drop(peer);
        let mut peer = listener.welcome();
        for _ in 0..2 {
            let (id, request) = peer.request();
            assert!(matches!(request, Request::Acquire { .. }), "{request:?}");
            peer.fail(id, ErrorCode::ModelLoadError);
        }
        peer.pong();
        peer.pong();
        peer.silence();
    });
    let client = daemon.client();
    let (dropped, released) = (client.model("a").unwrap(), client.model("b").unwrap());
    client.ping().unwrap_err();
    client.ping().unwrap();
    drop(dropped);
    released.release().unwrap();
    client.ping().unwrap();
    drop((released, client));
    daemon.end();
}

#[test]
fn dropping_a_lease_does_not_wait_for_a_reconnection() {
    let (welcome, may_welcome) = mpsc::channel();
    let (accepted, is_reconnecting) = mpsc::channel();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.grant(1);
        peer.ping();
        drop(peer);
        let mut peer = listener.accept();
        peer.hello();
        accepted.send(()).unwrap();
        may_welcome.recv_timeout(PATIENCE).expect("the lease is dropped meanwhile");
        let message = crate::daemon::welcome(crate::daemon::limits());
        peer.say(emberd_protocol::Frame::message(FrameKind::Welcome, 0, &message));
        peer.pong();
        peer.silence();
    });
    let client = daemon.client();
    let lease = client.model("m").unwrap();
    client.ping().unwrap_err();
    std::thread::scope(|scope| {
        let reconnecting = scope.spawn(|| client.ping());
        is_reconnecting.recv_timeout(PATIENCE).unwrap();
        drop(lease);
        welcome.send(()).unwrap();
        reconnecting.join().unwrap().unwrap();
    });
    drop(client);
    daemon.end();
}

#[test]
fn a_lease_dropped_while_another_thread_writes_is_released_without_a_further_call() {
    let (dropped, is_dropped) = mpsc::channel();
    let (writing, is_writing) = mpsc::channel();
    scene(
        move |peer| {
            peer.grant(1);
            // A part of the large request has arrived; the rest does not fit the socket's buffer.
            let mut buffer = vec![0; 1 << 20];
            let mut decoder = Decoder::default();
            let mut first = [0; 8];
            peer.stream.read_exact(&mut first).unwrap();
            decoder.feed(&first);
            writing.send(()).unwrap();
            is_dropped.recv_timeout(PATIENCE).unwrap();
            let mut ids = Vec::new();
            while ids.len() < 2 {
                let len = peer.stream.read(&mut buffer).expect("the release comes by itself");
                assert!(len > 0, "the client hung up");
                decoder.feed(&buffer[..len]);
                while let Some(frame) = decoder.next().unwrap() {
                    ids.push((frame.id, frame.decode::<Request>().unwrap()));
                }
            }
            assert_eq!(ids[1].1, Request::Release { lease: LeaseId(1) });
            peer.answer(ids[1].0, &Response::Released);
            peer.answer(ids[0].0, &Response::Pong);
            peer.silence();
        },
        |client| {
            let lease = client.model("m").unwrap();
            let large = "x".repeat(16 << 20);
            std::thread::scope(|scope| {
                let embedding =
                    scope.spawn(|| client.generate_embeddings(&[&large], "m").map(drop));
                is_writing.recv_timeout(PATIENCE).unwrap();
                drop(lease);
                dropped.send(()).unwrap();
                embedding.join().unwrap().unwrap_err();
            });
        },
    );
}

#[test]
fn rows_keep_no_lease_and_a_lease_keeps_its_client() {
    let memory = crate::daemon::Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.grant(3);
        let id = peer.embed();
        peer.announce(1, crate::daemon::SEGMENT_BYTES, &file);
        peer.answer(id, &rows_in(1, 0, 1).1);
        let (_, lease) = peer.release();
        assert_eq!(lease, 3);
        peer.silence();
    });
    // The client is dropped at once; the model keeps what it needs of it.
    let model = daemon.client().embedding_model("m").unwrap();
    let rows = model.embed_one("text").unwrap();
    drop(model);
    daemon.end();
    assert_eq!(rows.row(0), crate::daemon::values(0, 4));
    drop(rows);
    memory.assert_gone("the last view");
}
