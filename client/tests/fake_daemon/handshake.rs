use crate::daemon::{Daemon, PATIENCE, Peer, builder, limits, welcome};
use emberd_client::{Client, ConnectError, Error};
use emberd_protocol::{
    ErrorCode, Frame, FrameKind, PROTOCOL_VERSION, Refusal, RefusalReason, Request,
};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::{Uid, geteuid, setfsuid};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How connecting fails at a path.
fn refused_at(path: &Path) -> ConnectError {
    match builder().connect_to(path) {
        Err(Error::Connect(error)) => error,
        other => panic!("{other:?} is not a failure to connect"),
    }
}

/// How connecting fails when the daemon does this with the connection.
fn refused_by(script: impl FnOnce(&mut Peer) + Send + 'static) -> ConnectError {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.accept();
        script(&mut peer);
    });
    let error = refused_at(daemon.path());
    daemon.end();
    error
}

fn refuse(peer: &mut Peer, reason: RefusalReason, message: &str) {
    let refusal = Refusal { reason, message: message.into() };
    peer.say(Frame::message(FrameKind::Refusal, 0, &refusal));
}

#[test]
fn without_a_socket_the_error_names_the_path_and_says_how_to_start_the_daemon() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("emberd.sock");
    let named = path.display();
    let expected = format!("no daemon at {named}: start it with `emberd serve --socket {named}`");
    let error = refused_at(&path);
    assert!(matches!(&error, ConnectError::NoDaemon { path: named } if *named == path));
    assert_eq!(error.to_string(), expected);

    // A socket whose listener has died is not a daemon either.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert_eq!(refused_at(&path).to_string(), expected);
}

#[test]
fn a_socket_of_another_user_is_a_permission_denied_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("emberd.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = std::thread::scope(|scope| {
        let connect = scope.spawn(|| {
            if geteuid().is_root() {
                // Root may enter anywhere. The user for file permissions belongs to the thread, and this
                // thread ends after the test.
                let nobody = Uid::from_raw(65534);
                setfsuid(nobody);
                // An impossible user changes nothing; the call returns the current one.
                assert_eq!(setfsuid(Uid::from_raw(u32::MAX)), nobody, "not root any more");
            }
            refused_at(&path)
        });
        connect.join().unwrap()
    });
    assert!(matches!(&error, ConnectError::PermissionDenied { path: named } if *named == path));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(Error::from(error).code(), Some(ErrorCode::PermissionDenied));
}

#[test]
fn a_refused_version_and_a_frame_of_another_version_are_both_a_version_mismatch() {
    let reported = refused_by(|peer| {
        peer.hello();
        refuse(peer, RefusalReason::Version, "the daemon speaks version 9");
        peer.silence();
    });
    let seen = refused_by(|peer| {
        peer.hello();
        let frame = Frame::message(FrameKind::Welcome, 0, &welcome(limits())).unwrap();
        let mut bytes = frame.to_bytes();
        bytes[2] = 9;
        peer.bytes(&bytes);
        peer.silence();
    });
    for error in [reported, seen] {
        assert!(matches!(error, ConnectError::Version { .. }), "{error:?}");
        let text = error.to_string();
        let ours = format!("this program speaks version {PROTOCOL_VERSION}");
        for part in ["version mismatch", &ours, "version 9", "restart the daemon"] {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
}

#[test]
fn a_silent_daemon_is_awaited_for_the_configured_time() {
    let patience = Duration::from_millis(50);
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.accept();
        peer.hello();
        peer.silence();
    });
    let error = Client::builder().handshake_timeout(patience).connect_to(daemon.path());
    let Err(Error::Connect(ConnectError::Timeout { path, after })) = &error else {
        panic!("{error:?} is not a timeout")
    };
    assert_eq!((path.as_path(), *after), (daemon.path(), patience));
    let text = error.unwrap_err().to_string();
    assert!(text.ends_with("did not answer within 50ms"), "{text}");
    daemon.end();
}

#[test]
fn a_daemon_that_never_finishes_its_welcome_is_waited_for_no_longer() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.accept();
        peer.hello();
        let frame = Frame::message(FrameKind::Welcome, 0, &welcome(limits())).unwrap();
        // Each byte arrives within the time limit; all of them would take far longer than the test.
        for byte in frame.to_bytes() {
            peer.bytes(&[byte]);
            peer.stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            let mut end = [0];
            if matches!(std::io::Read::read(&mut peer.stream, &mut end), Ok(0)) {
                return;
            }
        }
        panic!("the client has waited for the last byte");
    });
    let patience = Duration::from_millis(600);
    let error = Client::builder().handshake_timeout(patience).connect_to(daemon.path());
    assert!(matches!(error, Err(Error::Connect(ConnectError::Timeout { .. }))), "{error:?}");
    daemon.end();
}

#[test]
fn a_daemon_that_takes_no_connections_is_waited_for_no_longer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("emberd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _in_the_queue = UnixStream::connect(&path).unwrap();
    let (sender, answer) = std::sync::mpsc::channel();
    let connecting = std::thread::spawn(move || {
        let patience = Duration::from_millis(50);
        let _ = sender.send(Client::builder().handshake_timeout(patience).connect_to(path));
    });
    let error = answer.recv_timeout(PATIENCE).expect("the client gives up");
    assert!(matches!(error, Err(Error::Connect(ConnectError::Timeout { .. }))), "{error:?}");
    connecting.join().unwrap();
}

#[test]
fn the_longest_patience_is_no_panic() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    let builder = Client::builder().handshake_timeout(Duration::MAX);
    builder.connect_to(daemon.path()).unwrap().ping().unwrap();
    daemon.end();
}

#[test]
fn a_hang_up_instead_of_a_welcome_is_reported() {
    let after_the_hello = refused_by(|peer| {
        peer.hello();
    });
    let at_once = refused_by(|_| {});
    let within_its_welcome = refused_by(|peer| {
        peer.hello();
        let frame = Frame::message(FrameKind::Welcome, 0, &welcome(limits())).unwrap();
        peer.bytes(&frame.to_bytes()[..30]);
    });
    for error in [after_the_hello, at_once, within_its_welcome] {
        assert!(matches!(error, ConnectError::Closed { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("emberd.sock"), "{text}");
        assert!(text.contains("closed the connection during the handshake"), "{text}");
    }
}

#[test]
fn another_program_that_answers_is_reported_as_no_emberd() {
    let garbage = refused_by(|peer| {
        peer.hello();
        peer.bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        peer.silence();
    });
    let broken = refused_by(|peer| {
        peer.hello();
        let frame = Frame::message(FrameKind::Welcome, 0, &Request::Ping);
        peer.say(frame);
        peer.silence();
    });
    let other = refused_by(|peer| {
        peer.hello();
        peer.say(Frame::message(FrameKind::Response, 1, &Request::Ping));
        peer.silence();
    });
    let huge = refused_by(|peer| {
        peer.hello();
        let mut bytes =
            Frame::message(FrameKind::Welcome, 0, &welcome(limits())).unwrap().to_bytes();
        bytes[16..20].fill(0xff);
        peer.bytes(&bytes);
        peer.silence();
    });
    for (error, detail) in [
        (garbage, "the bytes are not an emberd frame"),
        (broken, "a message that cannot be read"),
        (other, "where the protocol does not allow it"),
        (huge, "over the limit"),
    ] {
        assert!(matches!(error, ConnectError::NotEmberd { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("is not an emberd daemon"), "{text}");
        assert!(text.contains(detail), "{text:?} does not say {detail:?}");
    }
}

#[test]
fn a_refusal_has_its_reason_its_code_and_the_daemons_message() {
    for (reason, code) in [
        (RefusalReason::NotPermitted, Some(ErrorCode::PermissionDenied)),
        (RefusalReason::TooManyConnections, Some(ErrorCode::LimitExceeded)),
        (RefusalReason::NoHello, None),
    ] {
        let error = refused_by(move |peer| {
            peer.hello();
            refuse(peer, reason, "not today");
            peer.silence();
        });
        let ConnectError::Refused(refusal) = &error else { panic!("{error:?}") };
        assert_eq!(refusal.reason, reason);
        assert_eq!(error.to_string(), "the daemon refused the connection: not today");
        assert_eq!(Error::from(error).code(), code);
    }
}

#[test]
fn a_refusal_is_read_though_the_daemon_never_read_the_hello() {
    // When the daemon hangs up, a short hello has been sent; one larger than the socket's buffer has not.
    for name in ["short".to_owned(), "long".repeat(200_000)] {
        let daemon = Daemon::run(|listener| {
            let mut peer = listener.accept();
            refuse(&mut peer, RefusalReason::TooManyConnections, "full");
        });
        let error = builder().name(name).connect_to(daemon.path()).unwrap_err();
        assert!(matches!(error, Error::Connect(ConnectError::Refused(_))), "{error:?}");
        daemon.end();
    }
}

#[test]
fn the_daemons_description_of_itself_is_kept() {
    let daemon = Daemon::run(|listener| {
        let mut peer = listener.accept();
        let hello = peer.hello();
        peer.say(Frame::message(FrameKind::Welcome, 0, &welcome(limits())));
        peer.silence();
        hello
    });
    let client = builder().name("somebody").connect_to(daemon.path()).unwrap();
    assert_eq!(client.daemon().unwrap(), welcome(limits()));
    drop(client);
    let hello = daemon.end();
    assert_eq!(hello.name, "somebody");
    assert!(hello.accepts_segments, "our own user's daemon is trusted");
}

#[test]
fn a_daemon_that_is_stopping_is_tried_again_until_the_next_one_listens() {
    let daemon = Daemon::run(|listener| {
        for _ in 0..3 {
            let mut peer = listener.accept();
            peer.hello();
            refuse(&mut peer, RefusalReason::ShuttingDown, "stopping");
        }
        let mut peer = listener.welcome();
        peer.pong();
        peer.silence();
    });
    let client = daemon.client();
    client.ping().unwrap();
    drop(client);
    daemon.end();
}

#[test]
fn a_daemon_that_never_stops_is_reported_as_stopping() {
    let daemon = Daemon::run(|listener| {
        let mut refused = 0;
        // Until the client gives up.
        while refused < 1000 {
            let mut peer = listener.accept();
            if peer.next().is_none() {
                break;
            }
            refuse(&mut peer, RefusalReason::ShuttingDown, "stopping");
            refused += 1;
        }
        assert!(refused > 1);
    });
    let builder = Client::builder().handshake_timeout(Duration::from_millis(300));
    let error = builder.connect_to(daemon.path()).unwrap_err();
    // A loaded machine may spend all of the time on one of the connections.
    let in_time = error.code() == Some(ErrorCode::ShuttingDown);
    assert!(in_time || matches!(error, Error::Connect(ConnectError::Timeout { .. })), "{error}");
    drop(std::os::unix::net::UnixStream::connect(daemon.path()).unwrap());
    daemon.end();
}
