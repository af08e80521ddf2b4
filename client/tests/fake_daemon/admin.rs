use crate::daemon::Daemon;
use emberd_client::{Client, Error, ProtocolError};
use emberd_protocol::{
    CacheCleared, Decision, ErrorCode, Freed, ModelId, Preloaded, Reason, Reloaded, Request,
    Response, SettingChange, Verdict,
};

fn model(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

pub(crate) fn decision(verdict: Verdict) -> Decision {
    Decision {
        model: model("m"),
        verdict,
        device: "cuda:0".into(),
        need_bytes: 5,
        evicts: vec![model("old")],
        reasons: vec![Reason("it is the least used".into())],
        age_ms: 9,
    }
}

/// The request that the client sends, and its result for an answer.
fn answered<T>(ask: impl FnOnce(&Client) -> T, response: Response) -> (Request, T) {
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        let (id, request) = peer.request();
        peer.answer(id, &response);
        peer.silence();
        request
    });
    let client = daemon.client();
    let result = ask(&client);
    drop(client);
    (daemon.end(), result)
}

#[test]
fn a_model_is_preloaded_and_unloaded() {
    let preloaded = Preloaded { was_loaded: true, load_ms: 7 };
    let (request, result) = answered(|c| c.preload("m"), Response::Preloaded(preloaded));
    assert_eq!(request, Request::Preload { model: model("m"), events: false });
    assert_eq!(result.unwrap(), preloaded);

    let freed = Freed { models: vec![model("m")], bytes: 8 };
    let (request, result) = answered(|c| c.unload("m"), Response::Freed(freed.clone()));
    assert_eq!((request, result.unwrap()), (Request::Unload { model: model("m") }, freed.clone()));
    let (request, result) = answered(Client::cleanup_unused_models, Response::Freed(freed.clone()));
    assert_eq!((request, result.unwrap()), (Request::CleanupUnusedModels, freed));
}

#[test]
fn the_cache_is_cleared_and_the_settings_are_read_again() {
    let cleared = CacheCleared { entries: 3, bytes: 4 };
    let (request, result) =
        answered(Client::clear_embedding_cache, Response::CacheCleared(cleared));
    assert_eq!((request, result.unwrap()), (Request::ClearEmbeddingCache, cleared));

    let key =
        |key: &str| SettingChange { key: key.into(), value: "1".into(), effect: "now".into() };
    let reloaded = Reloaded { changed: vec![key("a")], unchanged: vec![key("b")] };
    let (request, result) = answered(Client::reload, Response::Reloaded(reloaded.clone()));
    assert_eq!((request, result.unwrap()), (Request::Reload, reloaded));
}

#[test]
fn decisions_are_reported_and_a_plan_is_one_of_them() {
    let decisions = vec![decision(Verdict::Load), decision(Verdict::Evict)];
    let (request, result) = answered(|c| c.why("m"), Response::Decisions(decisions.clone()));
    assert_eq!((request, result.unwrap()), (Request::Why { model: model("m") }, decisions.clone()));

    let one = vec![decision(Verdict::Refuse)];
    let (request, result) = answered(|c| c.plan("m"), Response::Decisions(one.clone()));
    assert_eq!((request, result.unwrap()), (Request::Plan { model: model("m") }, one[0].clone()));
    for wrong in [Vec::new(), decisions] {
        let (_, result) = answered(|c| c.plan("m"), Response::Decisions(wrong));
        let Err(Error::Protocol(ProtocolError::OutOfPlace(what))) = result else {
            panic!("{result:?}")
        };
        assert_eq!(what, "the wrong number of decisions");
    }
}

#[test]
fn answers_of_another_kind_are_named() {
    let freed = Response::Freed(Freed::default());
    let named = |result: Result<(), Error>| match result {
        Err(Error::Protocol(ProtocolError::OutOfPlace(what))) => what,
        other => panic!("{other:?} names nothing"),
    };
    let (_, result) = answered(|c| c.preload("m").map(drop), freed.clone());
    assert_eq!(named(result), "a list of freed models");
    let (_, result) = answered(|c| c.reload().map(drop), Response::Decisions(Vec::new()));
    assert_eq!(named(result), "decisions");
    let (_, result) = answered(|c| c.why("m").map(drop), Response::Pong);
    assert_eq!(named(result), "a pong");
}

#[test]
fn an_id_that_cannot_exist_is_not_asked_for() {
    let daemon = Daemon::run(|listener| listener.welcome().silence());
    let client = daemon.client();
    let errors = [
        client.preload("a b").err(),
        client.preload_with("a b", |_| {}).err(),
        client.model_with("a b", |_| {}).err(),
        client.unload("a b").err(),
        client.why("a b").err(),
        client.plan("a b").err(),
    ];
    for error in errors {
        assert_eq!(error.and_then(|error| error.code()), Some(ErrorCode::ModelNotConfigured));
    }
    drop(client);
    daemon.end();
}
