use super::{client, patient_client, poll_once, runtimes};
use crate::daemon::{Daemon, Memory, SEGMENT_BYTES, values};
use emberd_client::{Error, TransportError};
use emberd_protocol::{ErrorCode, LeaseId, Request, Response, Target};

#[test]
fn all_waiting_futures_fail_with_the_loss_and_share_one_reconnection() {
    const FUTURES: usize = 12;
    for runtime in runtimes() {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            for _ in 0..FUTURES {
                peer.ping();
            }
            drop(peer);
            let mut peer = listener.welcome();
            for _ in 0..FUTURES {
                peer.pong();
            }
            peer.silence();
        });
        runtime.block_on(async {
            let client = client(&daemon).await;
            let ask = |_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let lost = client.ping().await.unwrap_err();
                    let is_lost =
                        matches!(lost, Error::Transport(TransportError::Disconnected { .. }));
                    assert!(is_lost, "{lost:?}");
                    client.ping().await.unwrap();
                })
            };
            for task in (0..FUTURES).map(ask).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        daemon.end();
    }
}

#[test]
fn idempotent_requests_are_repeated_and_leases_are_taken_again() {
    for runtime in runtimes() {
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
            let Request::Embed(embed) = request else { panic!("{request:?}") };
            assert_eq!(embed.target, Target::Lease(LeaseId(8)));
            peer.fail(id, ErrorCode::ShuttingDown);
            let mut next = listener.welcome();
            next.grant(9);
            let id = next.embed();
            next.fail(id, ErrorCode::Overloaded);
            peer.silence();
            // Not repeated: it changes something.
            let (_, request) = next.request();
            assert!(matches!(request, Request::Unload { .. }), "{request:?}");
            drop(next);
            let mut peer = listener.welcome();
            peer.grant(10);
            peer.pong();
            assert_eq!(peer.release().1, 10);
            peer.silence();
        });
        runtime.block_on(async {
            let client = patient_client(&daemon).await;
            let model = client.embedding_model("m").await.unwrap();
            let before = model.embed(&["text"]).await.unwrap();
            let error = model.embed(&["text"]).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::Overloaded));
            assert_eq!(before.row(0), values(0, 4), "what the old daemon wrote stays");
            let error = client.unload("m").await.unwrap_err();
            assert!(matches!(error, Error::Transport(_)), "{error:?}");
            client.ping().await.unwrap();
        });
        daemon.end();
        memory.assert_gone("the old view");
    }
}

#[test]
fn a_runtime_that_ends_takes_its_connections_with_it_and_the_next_one_connects_again() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.grant(1);
        peer.pong();
        peer.ping();
        peer.silence();
        let mut peer = listener.welcome();
        peer.grant(2);
        peer.pong();
        assert_eq!(peer.release().1, 2);
        peer.silence();
    });
    let [first, second] = runtimes();
    let (client, lease) = first.block_on(async {
        let client = client(&daemon).await;
        let lease = client.model("m").await.unwrap();
        client.ping().await.unwrap();
        (client, lease)
    });
    let mut waiting = Box::pin(client.ping());
    assert!(poll_once(&mut waiting).is_pending());
    drop(first);
    second.block_on(async {
        let lost = waiting.await.unwrap_err();
        assert!(matches!(lost, Error::Transport(_)), "{lost:?}");
        client.ping().await.unwrap();
    });
    // Outside of any runtime.
    drop(lease);
    drop(client);
    second.block_on(async {});
    daemon.end();
}

#[test]
fn a_protocol_violation_reaches_every_caller() {
    for runtime in runtimes() {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            peer.ping();
            peer.ping();
            peer.bytes(&[b'x'; 100]);
            peer.silence();
            let mut peer = listener.welcome();
            let id = peer.ping();
            peer.answer(id, &Response::Pong);
            peer.silence();
        });
        runtime.block_on(async {
            let client = patient_client(&daemon).await;
            let (one, other) = tokio::join!(client.ping(), client.ping());
            for result in [one, other] {
                assert!(matches!(result, Err(Error::Protocol(_))), "{result:?}");
            }
            client.ping().await.unwrap();
        });
        daemon.end();
    }
}
