//! The life of models: waiting, grants, and unloads.

use crate::ground::connection_id::ConnectionId;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::retry::FIRST_RETRY;
use crate::models::scheduler::tests::play::{GIB, Play, both, cpu, gpu, id, policy};
use crate::models::scheduler::{
    Action, Change, Device, DeviceChoice, Granted, LeaseUse, ModelPolicy, PlacementVerdict,
    UnloadError, WaitError, Want,
};
use DeviceChoice::{Auto, Cpu, Gpu};
use emberd_protocol::Verdict;
use std::sync::Arc;
use std::time::Duration;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

#[test]
fn concurrent_requests_share_one_load_and_each_gets_its_lease() {
    let mut play = Play::roomy(&["m"]);
    play.is_slow = true;
    let waiters: Vec<_> = (0..10).map(|n| play.ask("m", Want::Lease(ConnectionId(n)))).collect();
    assert_eq!(play.loads.len(), 1);
    assert!(play.granted.is_empty());
    play.finish();
    play.run();
    assert!(waiters.iter().all(|waiter| play.granted.contains_key(waiter)));
    assert_eq!(play.scheduler.leases().usage(&id("m")).leases, 10);
}

#[test]
fn the_idle_time_counts_from_the_last_release_or_request_whichever_is_later() {
    let mut play = Play::roomy(&["m"]);
    let lease = play.lease(A, "m");
    play.pass(5000);
    assert_eq!(play.in_memory(), ["m"], "it is held");
    play.scheduler.release(A, lease, play.now).unwrap();
    play.pass(1000);
    play.touch("m");
    play.pass(1799);
    assert_eq!(play.in_memory(), ["m"], "the request came later than the release");
    assert_eq!(play.scheduler.next_deadline(), Some(play.now + Duration::from_secs(1)));
    play.pass(1);
    assert!(play.in_memory().is_empty());
    assert_eq!(play.scheduler.next_deadline(), None);
}

#[test]
fn a_busy_model_is_never_unloaded_by_time() {
    let mut play = Play::roomy(&["m"]);
    let waiter = play.ask("m", Want::Use);
    let Granted::Use(instance) = play.granted[&waiter] else { panic!() };
    play.pass(100_000);
    assert_eq!(play.in_memory(), ["m"]);
    play.scheduler.end_use(instance, play.now);
    play.pass(1799);
    assert_eq!(play.in_memory(), ["m"]);
    play.pass(1);
    assert!(play.in_memory().is_empty());
}

#[test]
fn beyond_the_maximum_the_least_recently_used_idle_model_is_unloaded() {
    let mut play = Play::roomy(&["a", "b", "c", "d"]);
    play.scheduler.policy.max_shared_models = 3;
    for model in ["a", "b", "c"] {
        play.touch(model);
        play.pass(1);
    }
    play.touch("a");
    let _held = play.lease(A, "b");
    play.touch("d");
    assert_eq!(play.in_memory(), ["a", "b", "d"], "c was the idle one that was used longest ago");
    let why = play.scheduler.why(&id("c"), play.now);
    assert_eq!(why[0].verdict, Verdict::Evict);
    assert!(why[0].reasons[0].0.contains("\"d\""), "{why:?}");
}

#[test]
fn if_all_models_are_leased_the_next_request_is_refused_at_once() {
    let mut play = Play::roomy(&["a", "b", "c"]);
    play.scheduler.policy.max_shared_models = 2;
    let held = [play.lease(A, "a"), play.lease(B, "b")];
    let waiter = play.ask("c", Want::Use);
    assert_eq!(play.verdict(waiter), &PlacementVerdict::TooMany);
    assert!(
        play.failed[&waiter].to_string().contains("leases hold \"a\", \"b\""),
        "{}",
        play.failed[&waiter]
    );
    play.scheduler.release(A, held[0], play.now).unwrap();
    play.touch("c");
    assert_eq!(play.in_memory(), ["b", "c"]);
}

#[test]
fn leases_do_not_keep_models_without_reference_counting() {
    let mut play = Play::roomy(&["m"]);
    play.scheduler.policy.reference_counting = false;
    let lease = play.lease(A, "m");
    play.pass(1800);
    assert!(play.in_memory().is_empty());
    let LeaseUse::Wait(waiter) = play.scheduler.use_lease(A, lease, play.now).unwrap() else {
        panic!("it has left")
    };
    play.run();
    assert!(matches!(play.granted[&waiter], Granted::Use(_)), "the lease brings it back");
    assert_eq!(play.scheduler.leases().usage(&id("m")).leases, 1);
}

#[test]
fn concurrent_reloads_of_a_leased_model_count_its_lease_once() {
    let mut rules = policy();
    rules.reference_counting = false;
    let mut play = Play::new(rules.clone(), vec![cpu(1000 * GIB)], &[("m", Cpu, both(GIB))]);
    let lease = play.lease(A, "m");
    play.pass(1800);
    assert!(play.in_memory().is_empty());
    let wait = |play: &mut Play| match play.scheduler.use_lease(A, lease, play.now).unwrap() {
        LeaseUse::Wait(waiter) => waiter,
        LeaseUse::Now(_) => panic!("it has left"),
    };
    let waiters = [wait(&mut play), wait(&mut play), wait(&mut play)];
    play.run();
    for waiter in waiters {
        let Granted::Use(instance) = play.granted[&waiter] else { panic!("granted otherwise") };
        play.scheduler.end_use(instance, play.now);
    }
    // From now on leases keep models in memory: this lease does so until it ends.
    rules.reference_counting = true;
    let rule = ModelPolicy { is_shared: true, device: Cpu };
    play.scheduler.reconfigure(rules, [(id("m"), rule, Change::None)], play.now);
    play.pass(1800);
    assert_eq!(play.in_memory(), ["m"]);
    play.scheduler.release(A, lease, play.now).unwrap();
    play.pass(1800);
    assert!(play.in_memory().is_empty());
}

#[test]
fn an_unshared_instance_is_unloaded_with_its_lease() {
    for everywhere in [false, true] {
        let mut play = Play::roomy(&["m"]);
        play.scheduler.policy.sharing = !everywhere;
        let rule = ModelPolicy { is_shared: everywhere, device: Cpu };
        let policy = play.scheduler.policy.clone();
        play.scheduler.reconfigure(policy, [(id("m"), rule, Change::Settings)], play.now);
        let first = play.lease(A, "m");
        let second = play.lease(A, "m");
        assert_eq!(play.in_memory(), ["m", "m"]);
        play.scheduler.release(A, first, play.now).unwrap();
        play.run();
        assert_eq!(play.in_memory(), ["m"]);
        let LeaseUse::Now(instance) = play.scheduler.use_lease(A, second, play.now).unwrap() else {
            panic!("it is there")
        };
        play.scheduler.end_connection(A, play.now);
        play.run();
        assert_eq!(play.in_memory(), ["m"], "its work may end");
        play.scheduler.end_use(instance, play.now);
        play.run();
        assert!(play.in_memory().is_empty());
        play.touch("m");
        assert!(play.in_memory().is_empty(), "one for a single request ends with it");
        let waiter = play.ask("m", Want::Preload);
        assert!(matches!(play.failed[&waiter], WaitError::NotShared));
    }
}

#[test]
fn a_failure_is_remembered_until_the_next_try_and_leaves_others_alone() {
    let mut play = Play::roomy(&["bad", "good"]);
    play.is_slow = true;
    let waiters = [play.ask("bad", Want::Use), play.ask("bad", Want::Use)];
    let other = play.ask("good", Want::Use);
    let (instance, ..) = play.loading.remove(0);
    play.scheduler.loaded(instance, Err(Arc::new(LoadFailure::Panicked)), play.now);
    play.run();
    for waiter in waiters {
        assert!(matches!(play.failed[&waiter], WaitError::Failed { .. }));
    }
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&other));
    let soon = play.ask("bad", Want::Use);
    let WaitError::Failed { retry_in, .. } = play.failed[&soon] else { panic!() };
    assert_eq!(retry_in, FIRST_RETRY);
    assert!(play.loading.is_empty(), "nothing is tried before its time");
    play.pass(1);
    play.ask("bad", Want::Use);
    let (instance, ..) = play.loading.remove(0);
    play.scheduler.loaded(instance, Err(Arc::new(LoadFailure::Panicked)), play.now);
    assert_eq!(play.scheduler.failed(&id("bad")).unwrap().retry_at, play.now + 2 * FIRST_RETRY);
    // A preload does not wait for the retry.
    let preload = play.ask("bad", Want::Preload);
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&preload));
    assert!(play.scheduler.failed(&id("bad")).is_none());
}

// Deadlocks that are known from other schedulers.

#[test]
fn a_model_requested_during_its_unload_is_loaded_again() {
    let mut play = Play::roomy(&["old", "new"]);
    play.scheduler.policy.max_shared_models = 1;
    play.touch("old");
    play.is_slow = true;
    let new = play.ask("new", Want::Use);
    assert_eq!(play.unloading.len(), 1, "the old one is on its way out");
    let old = play.ask("old", Want::Use);
    assert!(!play.granted.contains_key(&old), "it takes nobody in");
    play.finish();
    play.run();
    play.finish();
    play.run();
    let Granted::Use(instance) = play.granted[&new] else { panic!() };
    assert!(!play.granted.contains_key(&old), "the new one has work");
    play.scheduler.end_use(instance, play.now);
    play.run();
    for _ in 0..3 {
        play.finish();
        play.run();
    }
    assert!(play.granted.contains_key(&old));
}

#[test]
fn a_load_continues_if_its_client_disconnects() {
    let mut play = Play::roomy(&["m"]);
    play.is_slow = true;
    let leaves = play.ask("m", Want::Lease(A));
    let stays = play.ask("m", Want::Lease(B));
    play.scheduler.end_connection(A, play.now);
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&stays) && !play.granted.contains_key(&leaves));
    assert_eq!(play.scheduler.leases().usage(&id("m")).leases, 1);
    // The only waiter leaves: its model becomes idle, and is unloaded in time.
    let mut play = Play::roomy(&["m"]);
    play.is_slow = true;
    let alone = play.ask("m", Want::Use);
    play.scheduler.leave(alone, play.now);
    play.finish();
    play.is_slow = false;
    play.run();
    assert_eq!(play.in_memory(), ["m"]);
    play.pass(1800);
    assert!(play.in_memory().is_empty());
}

#[test]
fn another_models_unload_does_not_wake_a_waiter() {
    let needs = [("big", Cpu, both(8 * GIB)), ("a", Cpu, both(4 * GIB)), ("b", Cpu, both(4 * GIB))];
    let mut play = Play::new(policy(), vec![cpu(8 * GIB)], &needs);
    play.touch("a");
    play.touch("b");
    play.is_slow = true;
    let big = play.ask("big", Want::Use);
    assert_eq!(play.unloading.len(), 2);
    let first = play.unloading.remove(0);
    play.scheduler.unloaded(first, play.now);
    play.run();
    assert!(play.loading.is_empty(), "one alone is not room enough");
    play.finish();
    play.run();
    assert_eq!(play.loading.len(), 1);
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&big));
}

#[test]
fn a_model_larger_than_the_device_is_refused_at_once_and_evicts_nobody() {
    let needs = [("huge", Gpu, both(100 * GIB)), ("small", Gpu, both(GIB))];
    let mut play = Play::new(policy(), vec![cpu(64 * GIB), gpu(0, 80 * GIB, 0)], &needs);
    play.touch("small");
    let waiter = play.ask("huge", Want::Use);
    assert_eq!(play.verdict(waiter), &PlacementVerdict::Never);
    let message = play.failed[&waiter].to_string();
    assert!(message.contains("100.0 GiB") && message.contains("64.0 GiB"), "{message}");
    assert_eq!(play.in_memory(), ["small"]);
}

#[test]
fn a_waiter_for_room_is_not_overtaken_by_smaller_models() {
    let needs = [
        ("a", Cpu, both(4 * GIB)),
        ("b", Cpu, both(4 * GIB)),
        ("big", Cpu, both(8 * GIB)),
        ("small", Cpu, both(2 * GIB)),
    ];
    let mut play = Play::new(policy(), vec![cpu(8 * GIB)], &needs);
    let busy = play.ask("a", Want::Use);
    let Granted::Use(a) = play.granted[&busy] else { panic!() };
    play.is_slow = true;
    let big = play.ask("big", Want::Use);
    let small = play.ask("small", Want::Use);
    assert_eq!(play.loads.len(), 1, "the small one has room, and waits behind the big one");
    play.scheduler.end_use(a, play.now);
    for _ in 0..4 {
        play.run();
        play.finish();
    }
    play.run();
    assert!(play.granted.contains_key(&big));
    let Granted::Use(instance) = play.granted[&big] else { panic!() };
    play.scheduler.end_use(instance, play.now);
    for _ in 0..4 {
        play.run();
        play.finish();
    }
    play.run();
    assert!(play.granted.contains_key(&small));
}

#[test]
fn after_out_of_memory_on_a_gpu_a_model_moves_to_the_cpu() {
    let needs = [("m", Auto, both(4 * GIB)), ("strict", Gpu, both(4 * GIB))];
    let mut play = Play::new(policy(), vec![cpu(64 * GIB), gpu(0, 80 * GIB, 0)], &needs);
    play.is_slow = true;
    for (model, falls_back) in [("m", true), ("strict", false)] {
        let waiter = play.ask(model, Want::Use);
        let (instance, ..) = play.loading.remove(0);
        let failure = LoadFailure::OutOfMemory { device: Device::Cuda(0), report: "4 GiB".into() };
        play.scheduler.loaded(instance, Err(Arc::new(failure)), play.now);
        play.run();
        play.finish();
        play.run();
        assert_eq!(play.granted.contains_key(&waiter), falls_back, "{model}");
    }
    let on: Vec<_> = play.scheduler.instances().map(|(_, instance)| instance.device).collect();
    assert_eq!(on, [Device::Cpu]);
}

#[test]
fn a_manual_unload_keeps_leased_models_and_lets_work_finish() {
    let mut play = Play::roomy(&["held", "busy", "idle"]);
    let lease = play.lease(A, "held");
    let waiter = play.ask("busy", Want::Use);
    let Granted::Use(instance) = play.granted[&waiter] else { panic!() };
    play.touch("idle");
    assert_eq!(play.scheduler.unload(&id("held"), play.now), Err(UnloadError::Held(1)));
    assert_eq!(play.scheduler.unload(&id("no"), play.now), Err(UnloadError::NotConfigured));
    assert_eq!(play.scheduler.cleanup(play.now).len(), 1);
    play.run();
    assert_eq!(play.in_memory(), ["busy", "held"]);
    play.scheduler.unload(&id("busy"), play.now).unwrap();
    play.run();
    assert_eq!(play.in_memory(), ["busy", "held"], "it drains");
    let late = play.ask("busy", Want::Use);
    assert!(!play.granted.contains_key(&late), "and takes nobody in");
    play.scheduler.end_use(instance, play.now);
    play.run();
    assert!(play.granted.contains_key(&late), "who came late waits for the next load");
    play.scheduler.release(A, lease, play.now).unwrap();
}

#[test]
fn a_reload_forgets_failures_of_models_that_it_changes_and_of_no_others() {
    let refused = || {
        let endpoint = "http://h".into();
        let after = Duration::from_secs(600);
        LoadFailure::Hub(crate::hub::HubError::TooManyRequests { endpoint, after })
    };
    let causes: [fn() -> LoadFailure; 2] = [|| LoadFailure::Panicked, refused];
    for (cause, change, is_kept) in [
        (causes[0], Change::None, true),
        (causes[0], Change::Settings, false),
        (causes[0], Change::Source, false),
        (causes[1], Change::None, true),
        (causes[1], Change::Settings, true),
        (causes[1], Change::Source, false),
    ] {
        let mut play = Play::roomy(&["m"]);
        play.scheduler.ask(&id("m"), Want::Use, play.now);
        play.scheduler.prepared(&id("m"), Err(Arc::new(cause())), play.now);
        let before = play.scheduler.failed(&id("m")).unwrap().retry_at;
        let rule = ModelPolicy { is_shared: true, device: Cpu };
        let rules = [(id("m"), rule, change)];
        play.scheduler.reconfigure(policy(), rules, play.now);
        let after = play.scheduler.failed(&id("m")).map(|failed| failed.retry_at);
        assert_eq!(after, is_kept.then_some(before), "{:?}, {change:?}", cause());
    }
}

#[test]
fn changes_during_preparation_apply_from_the_next_load() {
    let mut play = Play::roomy(&["m"]);
    let rule = ModelPolicy { is_shared: false, device: Cpu };
    let rules = |change| [(id("m"), rule, change)];
    play.scheduler.reconfigure(policy(), rules(Change::Settings), play.now);
    let is_preparing =
        |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Prepare { .. }));
    play.scheduler.ask(&id("m"), Want::Lease(A), play.now);
    assert!(is_preparing(&play.scheduler.take_actions()));
    play.scheduler.reconfigure(policy(), rules(Change::Source), play.now);
    play.scheduler.prepared(&id("m"), Ok(both(GIB)), play.now);
    let actions = play.scheduler.take_actions();
    assert!(matches!(actions[..], [Action::Load { .. }]), "the load goes on: {actions:?}");
    // A second instance has the new settings, although the first is still in memory.
    play.scheduler.ask(&id("m"), Want::Lease(A), play.now);
    assert!(is_preparing(&play.scheduler.take_actions()));
    play.scheduler.prepared(&id("m"), Ok(both(GIB)), play.now);
    assert!(matches!(play.scheduler.take_actions()[..], [Action::Load { .. }]));
    // A third one needs no preparation.
    play.scheduler.ask(&id("m"), Want::Lease(A), play.now);
    assert!(matches!(play.scheduler.take_actions()[..], [Action::Load { .. }]));
}

#[test]
fn an_unload_reports_instances_that_are_already_unloading() {
    let mut play = Play::roomy(&["m"]);
    let waiter = play.ask("m", Want::Use);
    let Granted::Use(instance) = play.granted[&waiter] else { panic!("granted otherwise") };
    for _ in 0..2 {
        assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), [instance], "it drains");
    }
    play.is_slow = true;
    play.scheduler.end_use(instance, play.now);
    assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), [instance], "it is unloaded");
    play.is_slow = false;
    play.run();
    assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), []);
}
