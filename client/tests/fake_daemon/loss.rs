use crate::daemon::{Daemon, Memory, SEGMENT_BYTES, values};
use emberd_client::{ConnectError, Error, TransportError};
use emberd_protocol::{Frame, FrameKind, Response};

fn assert_lost(error: &Error) {
    let is_lost = matches!(error, Error::Transport(TransportError::Disconnected { .. }));
    assert!(is_lost, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("emberd.sock closed the connection"), "{text}");
    assert!(text.ends_with("the next call connects again"), "{text}");
    assert_eq!(error.code(), None);
}

#[test]
fn an_answer_cut_short_is_a_lost_connection_and_the_next_call_connects_again() {
    let daemon = Daemon::run(|listener| {
        // Before the answer, within its header, within its message, and before the last byte.
        for len in [0, 10, 26] {
            let mut peer = listener.welcome();
            let id = peer.ping();
            let answer = Frame::message(FrameKind::Response, id, &Response::Pong).unwrap();
            peer.bytes(&answer.to_bytes()[..len]);
            drop(peer);
            let mut peer = listener.welcome();
            peer.pong();
            peer.ping();
        }
    });
    let client = daemon.client();
    for _ in 0..3 {
        assert_lost(&client.ping().unwrap_err());
        client.ping().unwrap();
        assert_lost(&client.ping().unwrap_err());
    }
    drop(client);
    daemon.end();
}

#[test]
fn all_waiting_threads_fail_with_the_loss_and_share_one_reconnection() {
    const THREADS: usize = 6;
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        for _ in 0..THREADS {
            peer.ping();
        }
        drop(peer);
        // One connection for all of them.
        let mut peer = listener.welcome();
        for _ in 0..THREADS {
            peer.pong();
        }
        peer.silence();
    });
    let client = daemon.client();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let client = client.clone();
            scope.spawn(move || {
                assert_lost(&client.ping().unwrap_err());
                client.ping().unwrap();
            });
        }
    });
    drop(client);
    daemon.end();
}

#[test]
fn rows_of_a_lost_connection_stay_and_free_nothing_on_the_next() {
    let memory = Memory::new();
    let file = memory.sealed();
    let daemon = Daemon::run(move |listener| {
        let mut peer = listener.welcome();
        peer.announce(1, SEGMENT_BYTES, &file);
        drop(file);
        peer.rows(64, 1);
        peer.ping();
        drop(peer);
        let mut peer = listener.welcome();
        peer.pong();
        peer.pong();
        peer.silence();
    });
    let client = daemon.client();
    let rows = client.generate_embeddings(&["text"], "m").unwrap();
    assert_lost(&client.ping().unwrap_err());
    client.ping().unwrap();
    assert_eq!(rows.as_slice(), values(16, 4));
    assert_eq!((memory.open(), memory.mapped()), (0, 1));
    drop(rows);
    memory.assert_gone("the last view");
    client.ping().unwrap();
    drop(client);
    daemon.end();
}

#[test]
fn without_a_daemon_a_call_fails_and_a_later_one_connects() {
    let daemon = Daemon::run(|listener| {
        listener.welcome().ping();
    });
    let client = daemon.client();
    assert_lost(&client.ping().unwrap_err());
    let path = daemon.path().to_owned();
    let moved = path.with_extension("away");
    std::fs::rename(&path, &moved).unwrap();
    for _ in 0..2 {
        let error = client.ping().unwrap_err();
        assert!(matches!(error, Error::Connect(ConnectError::NoDaemon { .. })), "{error:?}");
    }
    let back = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    std::os::unix::fs::symlink(back.path(), &path).unwrap();
    client.ping().unwrap();
    drop(client);
    back.end();
    daemon.end();
}
