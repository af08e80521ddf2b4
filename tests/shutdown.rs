use crate::support::{ClientProcess, Daemon, code_of, eventually, texts};
use emberd_protocol::ErrorCode;
use nix::sys::signal::Signal;

#[test]
fn sigterm_lets_running_work_end_and_takes_no_new_work() {
    let mut daemon = Daemon::gated(None);
    let mut client = ClientProcess::start(&daemon, "ask", "gated", 300);
    let late = daemon.model("builtin");
    let busy = std::thread::scope(|scope| {
        // A second request keeps this connection open while the daemon drains.
        let gated = late.client().embedding_model("gated").unwrap();
        let running = scope.spawn(move || gated.embed(&texts(2)));
        eventually("both are in flight", || {
            let status = late.client().status().unwrap();
            status.connections.iter().map(|c| c.requests_in_flight).sum::<u32>() >= 2
        });
        daemon.signal(Signal::SIGTERM);
        eventually("new connections are refused", || {
            emberd_client::Client::connect_to(daemon.socket()).is_err()
        });
        assert_eq!(code_of(late.embed(&texts(2))), ErrorCode::ShuttingDown);
        daemon.open_gate();
        running.join().unwrap()
    });
    assert_eq!(busy.unwrap().len(), 2);
    assert_eq!(client.line(), "answered");
    assert!(daemon.wait().success());
}

#[test]
fn each_signal_to_stop_ends_the_daemon_and_leaves_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut daemon = Daemon::start();
        let _idle = daemon.client();
        let held = daemon.model("builtin").embed(&texts(500)).unwrap();
        daemon.signal(signal);
        assert!(daemon.wait().success(), "{signal}: {}", daemon.log());
        assert!(!daemon.socket().exists(), "{signal}");
        assert!(held.row(499).iter().any(|value| *value != 0.0), "views outlive the daemon");
    }
}
