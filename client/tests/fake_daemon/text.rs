use crate::daemon::{Daemon, Peer, leased, once, scene};
use emberd_client::{
    Error, GenerateOptions, Piece, ProtocolError, Ranked, ScoreActivation, TransportError,
};
use emberd_protocol::{
    ErrorCode, Event, FillMaskRequest, FilledMask, FilledText, FinishReason, Frame, FrameKind,
    GenerateRequest, Generated, GeneratedSequence, GeneratedText, MaskCandidate, MasksFilled,
    Method, ModelKind, Pairing, Request, RerankRequest, Reranked, Response, Target,
};

const TEXTS: [&str; 2] = ["number: two", "number: three"];

fn options() -> GenerateOptions {
    GenerateOptions::default()
}

/// The number of the next frame, which asks for texts, as a stream or not.
pub(crate) fn generate(peer: &mut Peer, streams: bool) -> u64 {
    let (id, request) = peer.request();
    let Request::Generate(GenerateRequest { texts: 2, stream, .. }) = request else {
        panic!("{request:?}")
    };
    assert_eq!(stream, streams);
    id
}

pub(crate) fn piece(text: u32, piece: &str, tokens: u32) -> Event {
    Event::Piece { text, piece: piece.into(), tokens }
}

pub(crate) fn generated(texts: &[&str]) -> Generated {
    let text = |text: &&str| GeneratedText {
        sequences: vec![GeneratedSequence {
            text: (*text).into(),
            ids: vec![7, 1],
            score: None,
            finish: FinishReason::End,
        }],
        input_tokens: 3,
        truncated: false,
    };
    Generated { texts: texts.iter().map(text).collect() }
}

/// Scores after their message.
fn reranked(peer: &mut Peer, id: u64, answer: Reranked, scores: &[f32]) {
    let mut frame = Frame::message(FrameKind::Response, id, &Response::Reranked(answer)).unwrap();
    frame.tail = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    peer.bytes(&frame.to_bytes());
}

fn answer(pairs: u32, labels: &[&str]) -> Reranked {
    let labels = labels.iter().map(|label| (*label).into()).collect();
    Reranked { pairs, labels, tokens: 9, truncated: Vec::new() }
}

#[test]
fn pieces_come_in_order_before_the_answer_and_none_is_left_out() {
    const PIECES: u32 = 1000;
    let (started, is_started) = std::sync::mpsc::channel();
    scene(
        move |peer| {
            peer.grant(1);
            let id = generate(peer, true);
            peer.event(id, &piece(0, "0 ", 1));
            let ping = peer.ping();
            // All of them arrive while the callback is busy with the first.
            (1..PIECES).for_each(|n| peer.event(id, &piece(n % 2, &format!("{n} "), n)));
            peer.answer(ping, &Response::Pong);
            peer.answer(id, &Response::Generated(generated(&["a", "b"])));
            started.send(()).unwrap();
            peer.drain();
        },
        |client| {
            let model = client.text_model("m").unwrap();
            let mut seen: Vec<Piece> = Vec::new();
            let on_piece = |piece: Piece| {
                if seen.is_empty() {
                    client.ping().unwrap();
                    is_started.recv().unwrap();
                }
                seen.push(piece);
            };
            let made = model.generate_with(&TEXTS, &options(), on_piece).unwrap();
            assert_eq!(made, generated(&["a", "b"]));
            let expected = (0..PIECES).map(|n| (usize::try_from(n % 2).unwrap(), format!("{n} ")));
            assert!(seen.iter().map(|piece| (piece.text, piece.piece.clone())).eq(expected));
        },
    );
}

#[test]
fn a_stream_is_asked_again_before_its_first_piece_and_never_afterwards() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.grant(1);
        generate(&mut peer, true);
        drop(peer);
        let mut peer = listener.welcome();
        peer.grant(2);
        let id = generate(&mut peer, true);
        peer.event(id, &piece(0, "x", 1));
        drop(peer);
        let mut peer = listener.welcome();
        peer.grant(3);
        peer.pong();
        peer.drain();
    });
    let client = daemon.patient_client();
    let model = client.text_model("m").unwrap();
    let mut seen = Vec::new();
    let lost = model.generate_with(&TEXTS, &options(), |piece| seen.push(piece)).unwrap_err();
    assert!(matches!(lost, Error::Transport(TransportError::Disconnected { .. })), "{lost:?}");
    assert_eq!(seen, [Piece { text: 0, piece: "x".into(), tokens: 1 }]);
    client.ping().unwrap();
    drop((model, client));
    daemon.end();
}

#[test]
fn pieces_that_were_not_asked_for_or_of_no_text_end_the_connection() {
    for (streams, event, expected) in [
        (false, piece(0, "x", 1), "an event that was not requested"),
        (true, piece(2, "x", 1), "a piece of a text that was not sent"),
        (true, Event::WaitingForRoom, "an event that was not requested"),
    ] {
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            peer.grant(1);
            let id = generate(&mut peer, streams);
            peer.event(id, &event);
            peer.drain();
        });
        let client = daemon.client();
        let model = client.text_model("m").unwrap();
        let error = match streams {
            true => model.generate_with(&TEXTS, &options(), |_| {}).unwrap_err(),
            false => model.generate(&TEXTS, &options()).unwrap_err(),
        };
        let Error::Protocol(ProtocolError::OutOfPlace(what)) = error else { panic!("{error:?}") };
        assert_eq!(what, expected);
        drop((model, client));
        daemon.end();
    }
}

#[test]
fn texts_and_masks_that_are_not_those_that_were_asked_for_are_errors() {
    let mut without_answer = generated(&["a", "b"]);
    without_answer.texts[1].sequences.clear();
    for wrong in [
        Response::Generated(generated(&["a"])),
        Response::Generated(without_answer),
        Response::Pong,
    ] {
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            let (id, request) = peer.request();
            assert!(matches!(request, Request::Generate(_)), "{request:?}");
            peer.answer(id, &wrong);
            peer.drain();
        });
        let client = daemon.client();
        let error = client.generate_text("m", &TEXTS, &options()).unwrap_err();
        assert!(matches!(error, Error::Protocol(ProtocolError::OutOfPlace(_))), "{error:?}");
        drop(client);
        daemon.end();
    }
    let candidate = |id| MaskCandidate { id, text: "x".into(), score: 0.5 };
    let text = |count| FilledText {
        masks: vec![FilledMask { position: 1, candidates: (0..count).map(candidate).collect() }],
        truncated: false,
    };
    for (texts, is_good) in [(vec![text(2)], true), (vec![text(3)], false), (vec![], false)] {
        let answer = Response::MasksFilled(MasksFilled { texts, tokens: 4 });
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            let (id, request) = peer.request();
            let Request::FillMask(FillMaskRequest { texts: 1, top_k: 2, .. }) = request else {
                panic!("{request:?}")
            };
            peer.answer(id, &answer);
            peer.drain();
        });
        let client = daemon.client();
        let filled = client.fill_mask("m", &["[MASK]"], 2);
        assert_eq!(filled.is_ok(), is_good, "{filled:?}");
        drop(client);
        daemon.end();
    }
}

#[test]
fn a_ranking_is_the_best_first_and_scores_come_as_they_were_given() {
    scene(
        |peer| {
            let (id, request) = peer.request();
            let Request::Rerank(RerankRequest {
                target: Target::Model(_), texts: 4, pairs, ..
            }) = request
            else {
                panic!("{request:?}")
            };
            assert_eq!(pairs, Pairing::QueryFirst);
            reranked(peer, id, answer(3, &["LABEL_0"]), &[0.25, 0.75, 0.25]);
            let (id, request) = peer.request();
            let Request::Acquire { model, kind: None, .. } = request else { panic!("{request:?}") };
            let mut lease = leased(3, model);
            lease.model.kind = ModelKind::Rerank;
            lease.model.methods = vec![Method::Rerank];
            peer.answer(id, &Response::Leased(lease));
            let (id, request) = peer.request();
            let Request::Rerank(RerankRequest { texts: 4, pairs, activation, .. }) = request else {
                panic!("{request:?}")
            };
            assert_eq!((pairs, activation), (Pairing::Adjacent, ScoreActivation::Identity));
            let two = Reranked { truncated: vec![1], ..answer(2, &["no", "yes"]) };
            reranked(peer, id, two, &[1.0, 2.0, 3.0, 4.0]);
            let (id, _) = peer.request();
            reranked(peer, id, answer(1, &["no", "yes"]), &[1.0, 2.0]);
            peer.drain();
        },
        |client| {
            let ranking = client.rerank("m", "q", &["a", "b", "c"]).unwrap();
            let place = |index, score| Ranked { index, score };
            assert_eq!(ranking, [place(1, 0.75), place(0, 0.25), place(2, 0.25)]);
            let model = client.rerank_model("m").unwrap();
            let scores =
                model.scores(&[("a", "b"), ("c", "d")], ScoreActivation::Identity).unwrap();
            assert_eq!(
                (scores.len(), scores.row(1), scores.truncated()),
                (2, &[3.0, 4.0][..], &[1][..])
            );
            assert_eq!(scores.labels(), ["no", "yes"]);
            let error = model.rerank("q", &["a"]).unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::WrongModelType));
            assert!(error.to_string().contains("no, yes"), "{error}");
        },
    );
}

#[test]
fn scores_that_do_not_fit_their_pairs_end_the_connection() {
    let wrong = [
        (answer(2, &["x"]), vec![0.5]),
        (answer(2, &["x", "y"]), vec![0.5; 3]),
        (answer(2, &[]), vec![]),
        (Reranked { truncated: vec![2], ..answer(2, &["x"]) }, vec![0.5; 2]),
    ];
    for (answer, scores) in wrong {
        let daemon = Daemon::run(move |listener| {
            let mut peer = listener.welcome();
            let (id, _) = peer.request();
            reranked(&mut peer, id, answer, &scores);
            peer.silence();
        });
        let client = once().connect_to(daemon.path()).unwrap();
        let error = client.rerank("m", "q", &["a", "b"]).unwrap_err();
        assert!(matches!(error, Error::Protocol(ProtocolError::OutOfPlace(_))), "{error:?}");
        drop(client);
        daemon.end();
    }
}

#[test]
fn a_model_without_scores_is_reported_and_its_lease_released() {
    scene(
        |peer| {
            peer.grant(4);
            assert_eq!(peer.release().1, 4);
            peer.drain();
        },
        |client| {
            let error = client.rerank_model("m").unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::WrongModelType));
            assert!(error.to_string().contains("offers embed, not rerank"), "{error}");
        },
    );
}
