use crate::support::{Daemon, Raw, code, code_of, eventually, texts, tiny_model};
use emberd_client::Error;
use emberd_protocol::{
    Delivery, EmbedOptions, EmbedRequest, ErrorCode, Frame, FrameKind, ModelId, ModelKind,
    ModelState, Request, Response, Target, TextBuilder,
};
use std::path::Path;

fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

#[test]
fn an_unknown_model_fails_with_the_list_of_models() {
    let daemon = Daemon::start();
    let error = daemon.client().embedding_model("bultin").unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ModelNotConfigured));
    let message = error.to_string();
    assert!(message.contains("\"bultin\"") && message.contains("\"builtin\""), "{message}");
    assert_eq!(code_of(daemon.client().model_config("x")), ErrorCode::ModelNotConfigured);
    assert_eq!(
        code_of(daemon.client().generate_embeddings(&["text"], "x")),
        ErrorCode::ModelNotConfigured
    );
}

#[test]
fn a_model_of_the_wrong_kind_is_refused() {
    let daemon = Daemon::start();
    let mut raw = Raw::welcomed(&daemon);
    let request =
        Request::Acquire { model: id("builtin"), kind: Some(ModelKind::Text2Text), events: false };
    assert_eq!(code(&raw.ask(&request, Vec::new())), ErrorCode::WrongModelType);
    assert_eq!(daemon.leases(), 0);
}

/// Breaks a file of a model, and expects a load error that names the file.
#[track_caller]
fn broken(file: &str, break_it: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path());
    let argument = format!("broken={}", model.display());
    let daemon = Daemon::with_args(&["--model", &argument]);
    break_it(&model.join(file));
    let client = daemon.client();
    let error = client.embedding_model("broken").unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ModelLoadError), "{error}");
    assert!(error.to_string().contains(file), "{error} does not name {file}");
    let models = client.available_models().unwrap();
    let listed = models.iter().find(|model| model.id.as_str() == "broken").unwrap();
    assert_eq!(listed.state, ModelState::Failed);
    assert!(listed.failure.as_ref().unwrap().contains(file));
    // The daemon keeps running, and a repaired model loads.
    assert!(client.embedding_model("builtin").is_ok());
    std::fs::remove_dir_all(&model).unwrap();
    tiny_model(folder.path());
    assert!(!client.preload("broken").unwrap().was_loaded);
    assert_eq!(client.embedding_model("broken").unwrap().embed_one("mended").unwrap().len(), 1);
}

#[test]
fn a_missing_weights_file_is_a_load_error_that_names_it() {
    broken("model.safetensors", |file| std::fs::remove_file(file).unwrap());
}

#[test]
fn a_truncated_weights_file_is_a_load_error_that_names_it() {
    broken("model.safetensors", |file| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    });
}

#[test]
fn a_damaged_weights_header_is_a_load_error_that_names_the_file() {
    broken("model.safetensors", |file| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
        std::fs::write(file, bytes).unwrap();
    });
}

#[test]
fn an_empty_weights_file_is_a_load_error_that_names_it() {
    broken("model.safetensors", |file| std::fs::write(file, b"").unwrap());
}

#[test]
fn an_invalid_tokenizer_is_a_load_error_that_names_it() {
    broken("tokenizer.json", |file| std::fs::write(file, b"{\"version\": 1}").unwrap());
}

#[test]
fn a_tokenizer_that_does_not_fit_is_a_load_error_that_names_it() {
    let other = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("daemon/engine/src/builtin/static-minilm/tokenizer.json");
    broken("tokenizer.json", |file| {
        std::fs::copy(other, file).unwrap();
    });
}

#[test]
fn an_invalid_config_is_a_load_error_that_names_it() {
    broken("config.json", |file| std::fs::write(file, b"hidden_size = 3").unwrap());
}

#[test]
fn waiting_clients_share_one_failed_load() {
    let folder = tempfile::tempdir().unwrap();
    let argument = format!("absent={}", folder.path().join("nothing").display());
    let daemon = Daemon::with_args(&["--model", &argument]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let result = daemon.client().embedding_model("absent");
                assert_eq!(code_of(result), ErrorCode::ModelLoadError);
            });
        }
    });
}

#[test]
fn texts_that_contradict_their_request_are_invalid_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut raw = Raw::welcomed(&daemon);
    let request = |texts| {
        Request::Embed(EmbedRequest {
            target: Target::Model(id("builtin")),
            texts,
            delivery: Delivery::Auto,
            options: EmbedOptions::default(),
        })
    };
    let mut builder = TextBuilder::default();
    builder.push("one").unwrap();
    builder.push("two").unwrap();
    let good = builder.into_bytes();
    let mut not_utf8 = good.clone();
    *not_utf8.last_mut().unwrap() = 0xff;
    let wrong = [
        (3, good.clone()),
        (1, good.clone()),
        (2, good[..good.len() - 1].to_vec()),
        (2, not_utf8),
        (2, Vec::new()),
        (0, good.clone()),
    ];
    for (count, tail) in wrong {
        assert_eq!(code(&raw.ask(&request(count), tail)), ErrorCode::InvalidRequest, "{count}");
    }
    let over = raw.ask(&request(u32::MAX), good.clone());
    assert_eq!(code(&over), ErrorCode::LimitExceeded);
    assert!(matches!(raw.ask(&request(2), good), Response::Embedded(_)));
    assert!(matches!(raw.ask(&request(0), Vec::new()), Response::Embedded(_)));
    let tail_of_ping = raw.ask(&Request::Ping, vec![1, 2, 3]);
    assert_eq!(code(&tail_of_ping), ErrorCode::InvalidRequest);
}

#[test]
fn malformed_requests_are_invalid_and_the_connection_continues() {
    let daemon = Daemon::start();
    let mut raw = Raw::welcomed(&daemon);
    for body in [vec![], vec![0xff; 4], vec![0, 0, 0, 0, 9], vec![3, 0, 0, 0]] {
        let tail = Vec::new();
        raw.send(&Frame { kind: FrameKind::Request, descriptors: 0, id: 1000, body, tail });
        let answer: Response = raw.next().unwrap().decode().unwrap();
        assert_eq!(code(&answer), ErrorCode::InvalidRequest);
    }
    assert_eq!(raw.ask(&Request::Ping, Vec::new()), Response::Pong);
}

#[test]
fn an_engine_that_panics_or_fails_costs_its_request_and_not_its_neighbours() {
    let daemon = Daemon::gated(None);
    daemon.open_gate();
    let model = daemon.model("gated");
    assert_eq!(code_of(model.embed(&["fine", "panic"])), ErrorCode::Internal);
    assert_eq!(code_of(model.embed(&["fail"])), ErrorCode::DeviceError);
    daemon.close_gate();
    std::thread::scope(|scope| {
        let fine: Vec<_> =
            (0..4).map(|_| scope.spawn(|| daemon.model("gated").embed(&texts(9)))).collect();
        let bad = scope.spawn(|| model.embed(&["panic"]));
        eventually("all wait together", || {
            let status = daemon.status();
            status.connections.iter().map(|c| c.requests_in_flight).sum::<u32>() == 5
        });
        daemon.open_gate();
        assert_eq!(code_of(bad.join().unwrap()), ErrorCode::Internal);
        for rows in fine {
            assert_eq!(rows.join().unwrap().unwrap().len(), 9);
        }
    });
    assert_eq!(model.embed_one("four").unwrap().row(0)[0].to_bits(), 4f32.to_bits());
}

#[test]
fn a_cancelled_request_is_answered_cancelled_and_frees_its_memory() {
    let daemon = Daemon::gated(None);
    let mut raw = Raw::welcomed(&daemon);
    let mut builder = TextBuilder::default();
    texts(500).iter().for_each(|text| builder.push(text).unwrap());
    let request = Request::Embed(EmbedRequest {
        target: Target::Model(id("gated")),
        texts: 500,
        delivery: Delivery::Auto,
        options: EmbedOptions::default(),
    });
    let mut frame = Frame::message(FrameKind::Request, 77, &request).unwrap();
    frame.tail = builder.into_bytes();
    raw.send(&frame);
    eventually("it is in flight", || {
        daemon.status().connections.iter().any(|connection| connection.requests_in_flight == 1)
    });
    raw.send(&cancel(12345)); // nobody's
    raw.send(&cancel(77));
    let answer = raw.next().unwrap();
    assert_eq!(answer.id, 77);
    assert_eq!(code(&answer.decode().unwrap()), ErrorCode::Cancelled);
    daemon.open_gate();
    eventually("its slot is free", || {
        daemon.status().connections.iter().all(|connection| connection.held_bytes == 0)
    });
    assert_eq!(raw.ask(&Request::Ping, Vec::new()), Response::Pong);
}

#[test]
fn no_daemon_and_no_permission_are_different_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    let error = emberd_client::Client::connect_to(&path).unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
    assert!(error.to_string().contains("emberd serve"), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

fn cancel(id: u64) -> Frame {
    Frame { kind: FrameKind::Cancel, descriptors: 0, id, body: Vec::new(), tail: Vec::new() }
}

#[test]
fn a_connection_with_all_its_requests_in_flight_is_still_heard() {
    let daemon = Daemon::gated(Some("limits.requests_in_flight = 1"));
    let mut raw = Raw::welcomed(&daemon);
    let embed = |id: u64| {
        let target = Target::Model(ModelId::new("gated").unwrap());
        let request = EmbedRequest {
            target,
            texts: 1,
            delivery: Delivery::Auto,
            options: EmbedOptions::default(),
        };
        let mut frame = Frame::message(FrameKind::Request, id, &Request::Embed(request)).unwrap();
        let mut builder = TextBuilder::default();
        builder.push("text").unwrap();
        frame.tail = builder.into_bytes();
        frame
    };
    let in_flight =
        || daemon.status().connections.iter().map(|c| c.requests_in_flight).sum::<u32>();
    raw.send(&embed(1));
    eventually("it is in flight", || in_flight() == 1);
    raw.send(&cancel(1));
    let answer = raw.next().unwrap();
    assert_eq!((answer.id, code(&answer.decode().unwrap())), (1, ErrorCode::Cancelled));

    raw.send(&embed(2));
    eventually("the next one is in flight", || in_flight() == 1);
    drop(raw);
    eventually("its end is seen", || in_flight() == 0);
}
