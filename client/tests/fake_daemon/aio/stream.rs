use super::{client, patient_client, runtimes};
use crate::daemon::Daemon;
use crate::text::{generate, generated, piece};
use emberd_client::{Error, GenerateOptions, TransportError};
use emberd_protocol::{ErrorCode, Response};

const TEXTS: [&str; 2] = ["one", "two"];

#[test]
fn a_stream_gives_its_pieces_and_then_the_answer() {
    for runtime in runtimes() {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            peer.grant(1);
            for _ in 0..2 {
                let id = generate(&mut peer, true);
                (0..100).for_each(|n| peer.event(id, &piece(n % 2, &n.to_string(), n)));
                peer.answer(id, &Response::Generated(generated(&["a", "b"])));
            }
            peer.drain();
        });
        runtime.block_on(async {
            let model = client(&daemon).await.text_model("m").await.unwrap();
            let mut stream = model.stream(&TEXTS, &GenerateOptions::default()).unwrap();
            for n in 0..100u32 {
                let piece = stream.next().await.unwrap();
                assert_eq!((piece.piece, piece.tokens), (n.to_string(), n));
            }
            assert_eq!(stream.next().await, None);
            assert_eq!(stream.next().await, None);
            assert_eq!(stream.answer().await.unwrap(), generated(&["a", "b"]));
            // A caller that wants only the answer gets it.
            let stream = model.stream(&TEXTS, &GenerateOptions::default()).unwrap();
            assert_eq!(stream.answer().await.unwrap(), generated(&["a", "b"]));
        });
        daemon.end();
    }
}

#[test]
fn a_stream_that_is_dropped_cancels_and_one_that_is_cut_after_a_piece_is_not_repeated() {
    for runtime in runtimes() {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.welcome();
            peer.grant(1);
            let id = generate(&mut peer, true);
            peer.event(id, &piece(0, "x", 1));
            assert_eq!(peer.cancel(), id);
            peer.event(id, &piece(0, "y", 2));
            peer.fail(id, ErrorCode::Cancelled);
            let id = generate(&mut peer, true);
            peer.event(id, &piece(1, "z", 1));
            drop(peer);
            let mut peer = listener.welcome();
            peer.grant(2);
            peer.pong();
            peer.drain();
        });
        runtime.block_on(async {
            let client = patient_client(&daemon).await;
            let model = client.text_model("m").await.unwrap();
            let mut stream = model.stream(&TEXTS, &GenerateOptions::default()).unwrap();
            assert_eq!(stream.next().await.unwrap().piece, "x");
            drop(stream);
            let mut stream = model.stream(&TEXTS, &GenerateOptions::default()).unwrap();
            assert_eq!(stream.next().await.unwrap().piece, "z");
            assert_eq!(stream.next().await, None);
            let lost = stream.answer().await.unwrap_err();
            let is_lost = matches!(lost, Error::Transport(TransportError::Disconnected { .. }));
            assert!(is_lost, "{lost:?}");
            client.ping().await.unwrap();
        });
        daemon.end();
    }
}
