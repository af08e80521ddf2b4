use crate::support::{ClientProcess, Daemon, Raw, code, code_of, eventually, texts};
use emberd_protocol::{ErrorCode, LeaseId, ModelId, ModelState, Request, Response};

#[test]
fn one_load_serves_all_processes_and_leases_are_counted_by_process() {
    let daemon = Daemon::start();
    let clients: Vec<_> =
        (0..3).map(|_| ClientProcess::start(&daemon, "hold", "builtin", 200)).collect();
    let status = daemon.status();
    let model = &status.models[0];
    assert_eq!((model.loads, model.leases, model.state), (1, 3, ModelState::Ready));
    let mut holders: Vec<_> = status.leases.iter().map(|lease| lease.pid).collect();
    let mut pids: Vec<_> = clients.iter().map(|client| client.child.id()).collect();
    holders.sort_unstable();
    pids.sort_unstable();
    assert_eq!(holders, pids, "the kernel says who holds them");
    drop(clients);
    eventually("the leases end with their processes", || daemon.leases() == 0);
    assert_eq!(daemon.status().models[0].state, ModelState::Idle);
}

#[test]
fn clones_count_locally_and_the_last_drop_releases() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let lease = client.model("builtin").unwrap();
    let clone = lease.clone();
    drop(lease);
    client.ping().unwrap();
    assert_eq!(daemon.leases(), 1);
    drop(clone);
    eventually("the last drop releases", || daemon.leases() == 0);
}

#[test]
fn a_second_release_is_a_reference_error_and_so_is_use_after_release() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    model.release().unwrap();
    assert_eq!(daemon.leases(), 0);
    assert_eq!(code_of(model.release()), ErrorCode::ReferenceError);
    assert_eq!(code_of(model.embed(&texts(1))), ErrorCode::ReferenceError);
}

#[test]
fn a_foreign_or_invented_lease_is_a_reference_error_and_harms_its_holder_not() {
    let daemon = Daemon::start();
    let (mut holder, mut thief) = (Raw::welcomed(&daemon), Raw::welcomed(&daemon));
    let acquire =
        Request::Acquire { model: ModelId::new("builtin").unwrap(), kind: None, events: false };
    let Response::Leased(leased) = holder.ask(&acquire, Vec::new()) else { panic!("no lease") };
    for id in [leased.lease, LeaseId(0), LeaseId(u64::MAX)] {
        let response = thief.ask(&Request::Release { lease: id }, Vec::new());
        assert_eq!(code(&response), ErrorCode::ReferenceError);
    }
    assert_eq!(daemon.leases(), 1);
    let release = Request::Release { lease: leased.lease };
    assert_eq!(holder.ask(&release, Vec::new()), Response::Released);
    assert_eq!(code(&holder.ask(&release, Vec::new())), ErrorCode::ReferenceError);
}

#[test]
fn a_client_killed_during_its_request_leaves_no_lease_no_work_and_no_descriptor() {
    let daemon = Daemon::gated(None);
    let settled = daemon.settled_descriptors();
    for _ in 0..3 {
        let mut client = ClientProcess::start(&daemon, "ask", "gated", 500);
        eventually("its texts are queued or computed", || {
            daemon
                .status()
                .connections
                .iter()
                .any(|c| c.requests_in_flight == 1 && c.held_bytes > 0)
        });
        client.kill();
    }
    eventually("its leases end", || daemon.leases() == 0);
    daemon.open_gate();
    let model = daemon.model("gated");
    assert_eq!(model.embed_one("four").unwrap().row(0)[0].to_bits(), 4.0f32.to_bits());
    let computed = daemon.status().models.iter().find(|m| m.id.as_str() == "gated").unwrap().texts;
    assert!(computed < 500, "queued texts of dead clients were computed: {computed}");
    drop(model);
    eventually("descriptors are back", || daemon.descriptors() <= settled + 1);
    eventually("segments are gone", || daemon.status().segments.segments == 0);
}

#[test]
fn a_client_killed_while_it_holds_views_gives_everything_back() {
    let daemon = Daemon::start();
    daemon.model("builtin").embed(&texts(4)).unwrap();
    let settled = daemon.settled_descriptors();
    let mut client = ClientProcess::start(&daemon, "hold", "builtin", 2000);
    let status = daemon.status();
    assert!(status.segments.segment_bytes > 0);
    assert!(status.connections.iter().any(|connection| connection.held_bytes >= 2000 * 128 * 4));
    client.kill();
    eventually("leases and segments are gone", || {
        let status = daemon.status();
        status.leases.is_empty() && status.segments.segments == 0
    });
    eventually("descriptors are back", || daemon.descriptors() <= settled + 1);
}

#[test]
fn leases_of_one_connection_are_bounded() {
    let daemon = Daemon::with_settings("limits.leases = 2\n");
    let client = daemon.client();
    let held: Vec<_> = (0..2).map(|_| client.model("builtin").unwrap()).collect();
    assert_eq!(code_of(client.model("builtin")), ErrorCode::LimitExceeded);
    assert!(daemon.client().model("builtin").is_ok(), "another connection has its own");
    drop(held);
    eventually("room again", || client.model("builtin").is_ok());
}
