use crate::support::{Daemon, Raw, code, eventually, texts};
use emberd_protocol::{ErrorCode, Frame, FrameKind, Hello, RefusalReason, Request, Response};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::AsRawFd;

#[test]
fn a_silent_peer_is_disconnected_and_delays_nobody() {
    let daemon = Daemon::with_settings("limits.handshake_ms = 200\n");
    let mut silent: Vec<_> = (0..20).map(|_| Raw::connect(&daemon)).collect();
    assert_eq!(daemon.model("builtin").embed(&texts(3)).unwrap().len(), 3);
    for raw in &mut silent {
        assert!(raw.next().is_none(), "the daemon hangs up");
    }
    let mut half = Raw::connect(&daemon);
    half.send_bytes(&[0xED]);
    assert!(half.next().is_none(), "also in the middle of a frame");
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let daemon = Daemon::start();
    let descriptors = daemon.settled_descriptors();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut garbage = move |len: usize| -> Vec<u8> {
        let mut byte = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        };
        (0..len).map(|_| byte()).collect()
    };
    for round in 0..50 {
        let mut before = Raw::connect(&daemon);
        before.send_bytes(&garbage(1 + round * 40));
        let mut behind = Raw::welcomed(&daemon);
        behind.send_bytes(&garbage(24 + round * 40));
        let _ = before.stream.shutdown(std::net::Shutdown::Write);
        let _ = behind.stream.shutdown(std::net::Shutdown::Write);
        while before.next().is_some() {}
        while behind.next().is_some() {}
    }
    assert_eq!(daemon.model("builtin").embed(&texts(3)).unwrap().len(), 3);
    eventually("descriptors are back", || daemon.descriptors() <= descriptors + 1);
}

#[test]
fn frames_that_break_a_rule_end_the_connection() {
    let daemon = Daemon::start();
    let ping = Frame::message(FrameKind::Request, 1, &Request::Ping).unwrap().to_bytes();
    type Break = fn(&mut Vec<u8>);
    let breaks: [(&str, Break); 6] = [
        ("magic", |bytes| bytes[0] ^= 1),
        ("kind", |bytes| bytes[3] = 99),
        ("flags", |bytes| bytes[4] = 1),
        ("descriptors", |bytes| bytes[6] = 1),
        ("body length", |bytes| bytes[16..20].fill(0xff)),
        ("tail length", |bytes| bytes[20..24].fill(0xff)),
    ];
    for (what, break_it) in breaks {
        let mut raw = Raw::welcomed(&daemon);
        let mut bytes = ping.clone();
        break_it(&mut bytes);
        raw.send_bytes(&bytes);
        assert!(raw.next().is_none(), "a wrong {what} ends the connection");
    }
    for kind in [FrameKind::Hello, FrameKind::Welcome, FrameKind::Response, FrameKind::Segment] {
        let mut raw = Raw::welcomed(&daemon);
        let hello = Hello { name: "again".into(), accepts_segments: false };
        raw.send(&Frame::message(kind, 0, &hello).unwrap());
        assert!(raw.next().is_none(), "{kind:?} has no place there");
    }
}

#[test]
fn another_version_and_a_missing_hello_are_refused_with_the_reason() {
    let daemon = Daemon::start();
    let hello = Hello { name: "old".into(), accepts_segments: true };
    let mut bytes = Frame::message(FrameKind::Hello, 0, &hello).unwrap().to_bytes();
    bytes[2] = 200;
    let mut raw = Raw::connect(&daemon);
    raw.send_bytes(&bytes);
    assert_eq!(raw.refusal().reason, RefusalReason::Version);
    let mut raw = Raw::connect(&daemon);
    raw.send(&Frame::message(FrameKind::Request, 1, &Request::Ping).unwrap());
    assert_eq!(raw.refusal().reason, RefusalReason::NoHello);
}

#[test]
fn descriptors_from_a_client_are_closed_and_end_its_connection() {
    let daemon = Daemon::start();
    let settled = daemon.settled_descriptors();
    for _ in 0..20 {
        let mut raw = Raw::welcomed(&daemon);
        let ping = Frame::message(FrameKind::Request, 1, &Request::Ping).unwrap().to_bytes();
        let many = [raw.stream.as_raw_fd(); 250];
        let control = [ControlMessage::ScmRights(&many)];
        let pieces = [IoSlice::new(&ping)];
        sendmsg::<()>(raw.stream.as_raw_fd(), &pieces, &control, MsgFlags::MSG_NOSIGNAL, None)
            .unwrap();
        assert!(raw.next().is_none());
    }
    eventually("none of them stays open", || daemon.descriptors() <= settled + 1);
}

#[test]
fn two_hundred_connections_at_once_are_all_served() {
    let daemon = Daemon::start();
    let settled = daemon.settled_descriptors();
    std::thread::scope(|scope| {
        for n in 0..200 {
            let daemon = &daemon;
            scope.spawn(move || {
                let model = daemon.model("builtin");
                let texts: Vec<_> = (0..100).map(|k| format!("text {k} of thread {n}")).collect();
                let rows = model.embed(&texts).unwrap();
                assert!(rows.is_shared());
                assert_eq!(rows.row(99), model.embed_one(&texts[99]).unwrap().row(0));
            });
        }
    });
    eventually("everything is given back", || {
        let status = daemon.status();
        status.leases.is_empty() && status.connections.len() == 1 && status.segments.segments == 0
    });
    eventually("descriptors are back", || daemon.descriptors() <= settled + 1);
}

#[test]
fn connections_over_the_limit_are_refused_with_that_reason() {
    let daemon = Daemon::with_settings("limits.connections = 3\n");
    // The daemon notices that the connection which watched it start has ended.
    eventually("three connections", || {
        let held: Vec<_> = (0..3)
            .filter_map(|_| emberd_client::Client::connect_to(daemon.socket()).ok())
            .collect();
        if held.len() < 3 {
            return false;
        }
        let refusal = Raw::connect(&daemon).refusal();
        assert_eq!(refusal.reason, RefusalReason::TooManyConnections);
        true
    });
    eventually("room again", || emberd_client::Client::connect_to(daemon.socket()).is_ok());
}

#[test]
fn a_request_id_used_twice_ends_the_connection_and_a_flood_is_slowed_down() {
    let daemon = Daemon::gated(Some("limits.requests_in_flight = 4"));
    let mut raw = Raw::welcomed(&daemon);
    let embed = |id| {
        let request = Request::Embed(emberd_protocol::EmbedRequest {
            target: emberd_protocol::Target::Model(emberd_protocol::ModelId::new("gated").unwrap()),
            texts: 1,
            delivery: emberd_protocol::Delivery::Inline,
            options: emberd_protocol::EmbedOptions::default(),
        });
        let mut builder = emberd_protocol::TextBuilder::default();
        builder.push("text").unwrap();
        let mut frame = Frame::message(FrameKind::Request, id, &request).unwrap();
        frame.tail = builder.into_bytes();
        frame
    };
    for id in 1..=20 {
        raw.send(&embed(id));
    }
    eventually("no more than the limit is taken", || {
        daemon.status().connections.iter().any(|c| c.requests_in_flight == 4)
    });
    daemon.open_gate();
    let mut ids: Vec<_> = (0..20).map(|_| raw.next().unwrap().id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>(), "slowed down, and all answered");
    daemon.close_gate();
    raw.send(&embed(30));
    raw.send(&embed(30));
    assert!(raw.next().is_none());
    let mut other = Raw::welcomed(&daemon);
    assert_eq!(other.ask(&Request::Ping, Vec::new()), Response::Pong);
    // Unread input of a flood does not hide that its sender has disconnected.
    for id in 40..60 {
        other.send(&embed(id));
    }
    eventually("it is slowed down", || {
        daemon.status().connections.iter().any(|c| c.requests_in_flight == 4)
    });
    drop(other);
    eventually("its requests are dropped", || {
        daemon.status().connections.iter().all(|c| c.requests_in_flight == 0)
    });
}

#[test]
fn answers_that_nobody_reads_take_no_more_than_the_credit_of_their_connection() {
    const REQUESTS: u64 = 40;
    let daemon = Daemon::with_settings("segments.credit_mib = 4\nsegments.wait_ms = 200\n");
    let mut raw = Raw::welcomed(&daemon);
    // Rows of 512 bytes, 2 MiB in each answer.
    let request = Request::Embed(emberd_protocol::EmbedRequest {
        target: emberd_protocol::Target::Model(emberd_protocol::ModelId::new("builtin").unwrap()),
        texts: 4096,
        delivery: emberd_protocol::Delivery::Inline,
        options: emberd_protocol::EmbedOptions::default(),
    });
    let mut builder = emberd_protocol::TextBuilder::default();
    (0..4096).for_each(|_| builder.push("").unwrap());
    let tail = builder.into_bytes();
    for id in 1..=REQUESTS {
        let mut frame = Frame::message(FrameKind::Request, id, &request).unwrap();
        frame.tail.clone_from(&tail);
        raw.send(&frame);
    }
    // Reading the status is a request, too.
    let mut looked = 0;
    eventually("all are computed or refused", || {
        looked += 1;
        daemon.status().daemon.requests + 1 >= REQUESTS + looked
    });
    let mut answered = 0;
    for _ in 0..REQUESTS {
        match raw.next().unwrap().decode().unwrap() {
            Response::Embedded(_) => answered += 1,
            other => assert_eq!(code(&other), ErrorCode::LimitExceeded),
        }
    }
    assert!((1..=REQUESTS / 2).contains(&answered), "{answered} of {REQUESTS} were held");
    assert_eq!(raw.ask(&Request::Ping, Vec::new()), Response::Pong, "the connection goes on");
}

#[test]
fn a_text_without_an_end_costs_no_more_than_its_bytes() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    model.embed(&texts(3)).unwrap();
    let before = daemon.peak_resident_bytes();
    const TEXT_BYTES: usize = 24 << 20;
    for part in [",", "a", "漢", "\u{301}", "\u{0}", "a.", "[SEP]", " "] {
        let rows = model.embed_one(&part.repeat(TEXT_BYTES / part.len())).unwrap();
        assert_eq!(rows.len(), 1, "{part:?}");
        assert!(rows.row(0).iter().all(|value| value.is_finite()), "{part:?}");
    }
    // The frame, the text copied from it, and what a piece of it takes.
    let grown = daemon.peak_resident_bytes() - before;
    assert!(grown < 8 * TEXT_BYTES as u64, "{} MiB", grown >> 20);
}
