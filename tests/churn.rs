use crate::support::{EMBERD, example, run};
use std::process::Command;

/// The short form of `scripts/churn`.
#[test]
fn clients_that_die_at_random_leave_nothing_behind() {
    let mut command = Command::new(example("churn"));
    command.args(["--daemon", EMBERD, "--clients", "120", "--alive", "40", "--seconds", "0"]);
    command.args(["--warm-up", "240"]);
    let output = run(command, "");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{log}");
    assert!(stdout.contains("120 client processes"), "{stdout}");
    assert!(
        stdout.contains("signal: 9") && stdout.contains("status: 3"),
        "all ends came: {stdout}"
    );
}
