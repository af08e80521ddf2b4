use super::{client, poll_once, runtimes};
use crate::admin::decision;
use crate::daemon::{
    Daemon, Memory, PATIENCE, Peer, SEGMENT_BYTES, builder, leased, limits, rows_in, values,
};
use crate::start::{StandIn, WAITING};
use emberd_client::aio::{Client, EmbeddingModel};
use emberd_client::{Error, ProtocolError};
use emberd_protocol::{
    CacheCleared, ErrorCode, Event, Freed, Limits, Preloaded, Reloaded, Request, Response, Verdict,
};
use std::sync::mpsc;

/// Answers requests for configurations in groups of this size, the last of each group first.
fn answer_backwards(peer: &mut Peer, count: usize) {
    let asked: Vec<_> = (0..count).map(|_| peer.request()).collect();
    for (id, request) in asked.into_iter().rev() {
        let Request::ModelConfig { model } = request else { panic!("{request:?}") };
        let keys = vec![("model".to_owned(), model.to_string())];
        peer.answer(id, &Response::ModelConfig(keys));
    }
}

#[test]
fn a_lease_its_rows_and_their_end() {
    for runtime in runtimes() {
        let memory = Memory::new();
        let file = memory.sealed();
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            peer.grant(9);
            let id = peer.embed();
            peer.announce(1, SEGMENT_BYTES, &file);
            let (slot, rows) = rows_in(1, 64, 2);
            peer.answer(id, &rows);
            assert_eq!(peer.freed(), [slot]);
            let (id, lease) = peer.release();
            assert_eq!(lease, 9);
            peer.answer(id, &Response::Released);
            peer.silence();
        });
        let (model, rows) = runtime.block_on(async {
            let client = client(&daemon).await;
            let model = client.embedding_model("m").await.unwrap();
            assert_eq!(model.dimension(), 4);
            let rows = model.embed(&["one", "two"]).await.unwrap();
            (model, rows)
        });
        // None of this needs the runtime.
        assert_eq!(rows.as_slice(), values(16, 8));
        assert!(rows.is_shared());
        drop(rows);
        drop(model);
        runtime.block_on(async { daemon.end() });
        drop(runtime);
        memory.assert_gone("the last view");
    }
}

#[test]
fn many_futures_get_their_own_answers_and_no_more_wait_at_once_than_allowed() {
    const MOST: usize = 4;
    const FUTURES: usize = 200;
    for runtime in runtimes() {
        let daemon = Daemon::run(|listener| {
            let most = u32::try_from(MOST).unwrap();
            let limits = Limits { max_requests_in_flight: most, ..limits() };
            let mut peer = listener.welcome_within(limits);
            for _ in 0..FUTURES / MOST {
                answer_backwards(&mut peer, MOST);
            }
            peer.silence();
        });
        runtime.block_on(async {
            let client = client(&daemon).await;
            let ask = |n| {
                let client = client.clone();
                tokio::spawn(async move {
                    let model = format!("m-{n}");
                    let keys = client.model_config(&model).await.unwrap();
                    assert_eq!(keys, [("model".to_owned(), model)]);
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
fn every_question_has_its_method() {
    let freed = Freed { models: Vec::new(), bytes: 3 };
    let preloaded = Preloaded { was_loaded: true, load_ms: 4 };
    let cleared = CacheCleared { entries: 5, bytes: 6 };
    let answers = [
        Response::Preloaded(preloaded),
        Response::Freed(freed.clone()),
        Response::Freed(freed.clone()),
        Response::CacheCleared(cleared),
        Response::Reloaded(Reloaded::default()),
        Response::Decisions(vec![decision(Verdict::Load)]),
        Response::Decisions(vec![decision(Verdict::Wait)]),
        Response::AvailableModels(Vec::new()),
        Response::ModelConfig(Vec::new()),
        Response::Pong,
    ];
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        for answer in answers {
            let (id, _) = peer.request();
            peer.answer(id, &answer);
        }
        let (id, _) = peer.request();
        peer.fail(id, ErrorCode::Internal);
        peer.silence();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        assert_eq!(client.daemon().await.unwrap().daemon_version, "fake");
        assert_eq!(client.preload("m").await.unwrap(), preloaded);
        assert_eq!(client.unload("m").await.unwrap(), freed);
        assert_eq!(client.cleanup_unused_models().await.unwrap(), freed);
        assert_eq!(client.clear_embedding_cache().await.unwrap(), cleared);
        assert_eq!(client.reload().await.unwrap(), Reloaded::default());
        assert_eq!(client.why("m").await.unwrap(), [decision(Verdict::Load)]);
        assert_eq!(client.plan("m").await.unwrap(), decision(Verdict::Wait));
        assert!(client.available_models().await.unwrap().is_empty());
        assert!(client.model_config("m").await.unwrap().is_empty());
        client.ping().await.unwrap();
        let error = client.status().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Internal));
        let error = client.unload("no such id").await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::ModelNotConfigured));
    });
    daemon.end();
}

#[test]
fn events_come_only_to_callers_that_requested_them() {
    let news = [Event::WaitingForRoom, Event::Reading { need_bytes: 1 }];
    let sent = news.clone();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        for _ in 0..2 {
            let (id, request) = peer.request();
            sent.iter().for_each(|event| peer.event(id, event));
            match request {
                Request::Preload { events: true, .. } => {
                    let preloaded = Preloaded { was_loaded: false, load_ms: 1 };
                    peer.answer(id, &Response::Preloaded(preloaded));
                }
                Request::Acquire { model, events: true, .. } => {
                    peer.answer(id, &Response::Leased(leased(1, model)));
                }
                other => panic!("{other:?}"),
            }
        }
        let (id, request) = peer.request();
        assert!(matches!(request, Request::Preload { events: false, .. }), "{request:?}");
        peer.event(id, &sent[0]);
        peer.drain();
    });
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let client = client(&daemon).await;
        let mut seen = Vec::new();
        client.preload_with("m", |event| seen.push(event)).await.unwrap();
        assert_eq!(seen, news);
        seen.clear();
        let model = client.embedding_model_with("m", |event| seen.push(event)).await.unwrap();
        assert_eq!(seen, news);
        let error = client.preload("m").await.unwrap_err();
        let Error::Protocol(ProtocolError::OutOfPlace(what)) = error else { panic!("{error:?}") };
        assert_eq!(what, "an event that was not requested");
        drop(model);
    });
    daemon.end();
}

#[test]
fn a_request_that_the_socket_does_not_take_at_once_holds_up_no_other_future() {
    for runtime in runtimes() {
        let (read, may_read) = mpsc::channel();
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            peer.grant(1);
            may_read.recv_timeout(PATIENCE).unwrap();
            let large = peer.embed();
            let ping = peer.ping();
            let (_, lease) = peer.release();
            assert_eq!(lease, 1);
            peer.answer(ping, &Response::Pong);
            peer.fail(large, ErrorCode::Overloaded);
            peer.silence();
        });
        runtime.block_on(async {
            let client = client(&daemon).await;
            let lease = client.model("m").await.unwrap();
            let texts = ["x".repeat(16 << 20)];
            let mut large = Box::pin(client.generate_embeddings(&texts, "m"));
            assert!(poll_once(&mut large).is_pending());
            let mut ping = Box::pin(client.ping());
            assert!(poll_once(&mut ping).is_pending());
            drop(lease);
            read.send(()).unwrap();
            ping.await.unwrap();
            let error = large.await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::Overloaded));
        });
        daemon.end();
    }
}

#[test]
fn twenty_futures_that_start_at_once_run_one_program() {
    const STARTERS: usize = 20;
    for runtime in runtimes() {
        let program = StandIn::new(WAITING);
        std::thread::scope(|scope| {
            scope.spawn(|| program.serve(STARTERS));
            runtime.block_on(async {
                let start = |_| {
                    let options = program.options();
                    tokio::spawn(async {
                        builder().connect_or_start_async(options).await?.ping().await
                    })
                };
                for starter in (0..STARTERS).map(start).collect::<Vec<_>>() {
                    starter.await.unwrap().unwrap();
                }
            });
        });
        assert_eq!(program.calls().len(), 1);
    }
}

#[test]
fn futures_may_go_to_other_threads() {
    fn may_go<T: Send>(_: &T) {}
    fn all<T: Send + Sync + 'static>() {}
    all::<Client>();
    all::<EmbeddingModel>();
    let never_run = async {
        let client = Client::connect().await?;
        may_go(&client.preload_with("m", |_| {}));
        may_go(&client.generate_embeddings(&["text"], "m"));
        let model = client.embedding_model("m");
        may_go(&model);
        let model = model.await?;
        may_go(&model.embed(&[String::new()]));
        may_go(&model.release());
        Ok::<_, Error>(())
    };
    may_go(&never_run);
}
