use crate::models::scheduler::*;
use DeviceChoice::{Auto, Cpu, Gpu};

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);
const GIB: u64 = 1 << 30;

fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

pub(super) fn policy() -> Policy {
    Policy {
        sharing: true,
        max_shared_models: 5,
        unload_after: Duration::from_secs(1800),
        reference_counting: true,
        device_preference: Auto,
        max_leases: 100,
    }
}

pub(super) fn cpu(total_bytes: u64) -> DeviceFigures {
    DeviceFigures {
        device: Device::Cpu,
        name: "cpu".into(),
        total_bytes,
        free_bytes: total_bytes,
        budget_bytes: total_bytes,
        others_bytes: 0,
    }
}

fn gpu(number: u32, total_bytes: u64, others_bytes: u64) -> DeviceFigures {
    DeviceFigures {
        device: Device::Cuda(number),
        name: "gpu".into(),
        total_bytes,
        free_bytes: total_bytes - others_bytes,
        budget_bytes: total_bytes / 10 * 8,
        others_bytes,
    }
}

fn both(bytes: u64) -> Need {
    Need { cpu_bytes: bytes, gpu_bytes: Some(bytes) }
}

/// The scheduler with a caller that does at once, or when told, what it is told to do.
struct Play {
    scheduler: Scheduler,
    needs: HashMap<ModelId, Need>,
    now: Instant,
    granted: HashMap<WaiterId, Granted>,
    failed: HashMap<WaiterId, WaitError>,
    loading: Vec<(InstanceId, ModelId, Device)>,
    unloading: Vec<InstanceId>,
    loads: Vec<(ModelId, Device)>,
    /// Loads and unloads end only when the test says so.
    is_slow: bool,
}

impl Play {
    fn new(
        policy: Policy,
        devices: Vec<DeviceFigures>,
        models: &[(&str, DeviceChoice, Need)],
    ) -> Self {
        let rules = models
            .iter()
            .map(|(name, device, _)| (id(name), ModelPolicy { is_shared: true, device: *device }));
        Self {
            scheduler: Scheduler::new(policy, rules, devices),
            needs: models.iter().map(|(name, _, need)| (id(name), *need)).collect(),
            now: Instant::now(),
            granted: HashMap::new(),
            failed: HashMap::new(),
            loading: Vec::new(),
            unloading: Vec::new(),
            loads: Vec::new(),
            is_slow: false,
        }
    }

    /// A machine with room for all.
    fn roomy(models: &[&str]) -> Self {
        let models: Vec<_> = models.iter().map(|name| (*name, Cpu, both(GIB))).collect();
        Self::new(policy(), vec![cpu(1000 * GIB)], &models)
    }

    fn run(&mut self) {
        loop {
            let actions = self.scheduler.take_actions();
            if actions.is_empty()
                && (self.is_slow || self.loading.is_empty() && self.unloading.is_empty())
            {
                return;
            }
            for action in actions {
                match action {
                    Action::Prepare { model } => {
                        let need = self.needs[&model];
                        self.scheduler.prepared(&model, Ok(need), self.now);
                    }
                    Action::Load { copy, model, device, .. } => {
                        self.loads.push((model.clone(), device));
                        self.loading.push((copy, model, device));
                    }
                    Action::Unload { copy } => self.unloading.push(copy),
                    Action::Grant { waiter, granted } => {
                        self.granted.insert(waiter, granted);
                    }
                    Action::Fail { waiter, error } => {
                        self.failed.insert(waiter, error);
                    }
                    Action::WaitingForRoom { .. } => {}
                }
            }
            if !self.is_slow {
                self.finish();
            }
        }
    }

    /// All loads and unloads under way end well.
    fn finish(&mut self) {
        for (copy, model, device) in std::mem::take(&mut self.loading) {
            let bytes = device.share_of(self.needs[&model]).unwrap();
            self.scheduler.loaded(copy, Ok(bytes), self.now);
        }
        for copy in std::mem::take(&mut self.unloading) {
            self.scheduler.unloaded(copy, self.now);
        }
    }

    fn ask(&mut self, model: &str, want: Want) -> WaiterId {
        let waiter = self.scheduler.ask(&id(model), want, self.now);
        self.run();
        waiter
    }

    fn lease(&mut self, connection: ConnectionId, model: &str) -> LeaseId {
        let waiter = self.ask(model, Want::Lease(connection));
        match self.granted.get(&waiter) {
            Some(Granted::Lease(lease, _)) => *lease,
            other => panic!("no lease on {model}: {other:?}, {:?}", self.failed.get(&waiter)),
        }
    }

    /// Uses a model for a moment.
    fn touch(&mut self, model: &str) {
        let waiter = self.ask(model, Want::Use);
        match self.granted.get(&waiter) {
            Some(Granted::Use(copy)) => self.scheduler.end_use(*copy, self.now),
            other => panic!("{model} was not granted: {other:?}, {:?}", self.failed.get(&waiter)),
        }
        self.run();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.scheduler.tick(self.now);
        self.run();
    }

    fn in_memory(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.scheduler.copies().map(|(_, copy)| copy.model.to_string()).collect();
        names.sort();
        names
    }

    fn verdict(&self, waiter: WaiterId) -> &PlacementVerdict {
        match &self.failed[&waiter] {
            WaitError::Refused { verdict, .. } => verdict,
            other => panic!("failed otherwise: {other}"),
        }
    }
}

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
    let Granted::Use(copy) = play.granted[&waiter] else { panic!() };
    play.pass(100_000);
    assert_eq!(play.in_memory(), ["m"]);
    play.scheduler.end_use(copy, play.now);
    play.pass(1799);
    assert_eq!(play.in_memory(), ["m"]);
    play.pass(1);
    assert!(play.in_memory().is_empty());
}

#[test]
fn beyond_the_maximum_the_least_recently_used_idle_one_goes() {
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
fn when_all_are_held_the_next_is_told_so_at_once() {
    let mut play = Play::roomy(&["a", "b", "c"]);
    play.scheduler.policy.max_shared_models = 2;
    let held = [play.lease(A, "a"), play.lease(B, "b")];
    let waiter = play.ask("c", Want::Use);
    assert_eq!(play.verdict(waiter), &PlacementVerdict::TooMany);
    assert!(
        play.failed[&waiter].to_string().contains("held are \"a\", \"b\""),
        "{}",
        play.failed[&waiter]
    );
    play.scheduler.release(A, held[0], play.now).unwrap();
    play.touch("c");
    assert_eq!(play.in_memory(), ["b", "c"]);
}

#[test]
fn leases_do_not_hold_where_references_are_not_counted() {
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
fn several_requests_that_bring_a_leases_model_back_hold_it_once() {
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
        let Granted::Use(copy) = play.granted[&waiter] else { panic!("granted otherwise") };
        play.scheduler.end_use(copy, play.now);
    }
    // From now on leases count: this one holds its model, and nothing does after its end.
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
fn a_copy_of_its_own_dies_with_its_lease() {
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
        let LeaseUse::Now(copy) = play.scheduler.use_lease(A, second, play.now).unwrap() else {
            panic!("it is there")
        };
        play.scheduler.end_connection(A, play.now);
        play.run();
        assert_eq!(play.in_memory(), ["m"], "its work may end");
        play.scheduler.end_use(copy, play.now);
        play.run();
        assert!(play.in_memory().is_empty());
        play.touch("m");
        assert!(play.in_memory().is_empty(), "one for a single request ends with it");
        let waiter = play.ask("m", Want::Preload);
        assert!(matches!(play.failed[&waiter], WaitError::NotShared));
    }
}

#[test]
fn a_failure_is_remembered_until_its_time_and_does_not_take_others_along() {
    let mut play = Play::roomy(&["bad", "good"]);
    play.is_slow = true;
    let waiters = [play.ask("bad", Want::Use), play.ask("bad", Want::Use)];
    let other = play.ask("good", Want::Use);
    let (copy, ..) = play.loading.remove(0);
    play.scheduler.loaded(copy, Err(Arc::new(LoadFailure::Panicked)), play.now);
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
    let (copy, ..) = play.loading.remove(0);
    play.scheduler.loaded(copy, Err(Arc::new(LoadFailure::Panicked)), play.now);
    assert_eq!(play.scheduler.failed(&id("bad")).unwrap().retry_at, play.now + 2 * FIRST_RETRY);
    // Who asks for just this does not have to wait.
    let preload = play.ask("bad", Want::Preload);
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&preload));
    assert!(play.scheduler.failed(&id("bad")).is_none());
}

// The deadlocks that others had.

#[test]
fn the_evicted_one_gets_a_new_request_and_neither_waits_for_ever() {
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
    let Granted::Use(copy) = play.granted[&new] else { panic!() };
    assert!(!play.granted.contains_key(&old), "the new one has work");
    play.scheduler.end_use(copy, play.now);
    play.run();
    for _ in 0..3 {
        play.finish();
        play.run();
    }
    assert!(play.granted.contains_key(&old));
}

#[test]
fn a_client_leaves_during_a_load_and_the_load_goes_on() {
    let mut play = Play::roomy(&["m"]);
    play.is_slow = true;
    let leaves = play.ask("m", Want::Lease(A));
    let stays = play.ask("m", Want::Lease(B));
    play.scheduler.end_connection(A, play.now);
    play.finish();
    play.run();
    assert!(play.granted.contains_key(&stays) && !play.granted.contains_key(&leaves));
    assert_eq!(play.scheduler.leases().usage(&id("m")).leases, 1);
    // The last one leaves while it waits: what it waited for is idle, and goes in time.
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
fn another_models_unload_does_not_wake_who_waits_for_room() {
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
    let told = play.failed[&waiter].to_string();
    assert!(told.contains("100.0 GiB") && told.contains("64.0 GiB"), "{told}");
    assert_eq!(play.in_memory(), ["small"]);
}

#[test]
fn who_waits_for_room_is_not_overtaken_by_smaller_ones() {
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
    let Granted::Use(copy) = play.granted[&big] else { panic!() };
    play.scheduler.end_use(copy, play.now);
    for _ in 0..4 {
        play.run();
        play.finish();
    }
    play.run();
    assert!(play.granted.contains_key(&small));
}

#[test]
fn a_gpu_that_had_no_memory_after_all_is_left_for_the_cpu() {
    let needs = [("m", Auto, both(4 * GIB)), ("strict", Gpu, both(4 * GIB))];
    let mut play = Play::new(policy(), vec![cpu(64 * GIB), gpu(0, 80 * GIB, 0)], &needs);
    play.is_slow = true;
    for (model, falls_back) in [("m", true), ("strict", false)] {
        let waiter = play.ask(model, Want::Use);
        let (copy, ..) = play.loading.remove(0);
        let failure = LoadFailure::OutOfMemory { device: Device::Cuda(0), said: "4 GiB".into() };
        play.scheduler.loaded(copy, Err(Arc::new(failure)), play.now);
        play.run();
        play.finish();
        play.run();
        assert_eq!(play.granted.contains_key(&waiter), falls_back, "{model}");
    }
    let on: Vec<_> = play.scheduler.copies().map(|(_, copy)| copy.device).collect();
    assert_eq!(on, [Device::Cpu]);
}

#[test]
fn unloading_by_command_spares_who_is_held_and_lets_work_end() {
    let mut play = Play::roomy(&["held", "busy", "idle"]);
    let lease = play.lease(A, "held");
    let waiter = play.ask("busy", Want::Use);
    let Granted::Use(copy) = play.granted[&waiter] else { panic!() };
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
    play.scheduler.end_use(copy, play.now);
    play.run();
    assert!(play.granted.contains_key(&late), "who came late waits for the next load");
    play.scheduler.release(A, lease, play.now).unwrap();
}

#[test]
fn why_there_is_no_gpu_is_told_where_one_might_have_been_used() {
    let driver = "there is no driver";
    let devices = Devices { figures: vec![cpu(64 * GIB)], missing: vec![driver.into()] };
    for (choice, need, is_told, verdict) in [
        (Auto, both(GIB), true, PlacementVerdict::Load { bytes: GIB }),
        (Gpu, both(GIB), true, PlacementVerdict::Never),
        (DeviceChoice::Cuda(0), both(GIB), true, PlacementVerdict::Never),
        (Cpu, both(GIB), false, PlacementVerdict::Load { bytes: GIB }),
        // No GPU would have helped.
        (
            Auto,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            false,
            PlacementVerdict::Load { bytes: GIB },
        ),
    ] {
        let wish = Wish { need, choice, is_shared: true, avoid: None };
        let placement = place(&wish, &policy(), &devices, &[]);
        assert_eq!(placement.verdict, verdict, "{choice}");
        let told = placement.reasons.iter().any(|reason| reason == driver);
        assert_eq!(told, is_told, "{choice}: {:?}", placement.reasons);
    }
}

/// A table of placements: devices, who is there, what comes, and what is decided.
#[test]
fn placements() {
    struct Case {
        what: &'static str,
        devices: Vec<DeviceFigures>,
        there: Vec<(Device, u64, Standing)>,
        choice: DeviceChoice,
        need: Need,
        decided: (&'static str, Option<Device>),
    }
    let now = Instant::now();
    let idle = |ago| Standing::Idle(now.checked_sub(Duration::from_secs(ago)).unwrap());
    let (g0, g1) = (Device::Cuda(0), Device::Cuda(1));
    let one = || vec![cpu(64 * GIB), gpu(0, 80 * GIB, 0)];
    let two = || vec![cpu(64 * GIB), gpu(0, 80 * GIB, 40 * GIB), gpu(1, 80 * GIB, 0)];
    let case = |what, devices, there, choice, need, decided| Case {
        what,
        devices,
        there,
        choice,
        need,
        decided,
    };
    let cases = [
        case("a GPU with room", one(), vec![], Auto, both(GIB), ("load", Some(g0))),
        case("the CPU, as it is told", one(), vec![], Cpu, both(GIB), ("load", Some(Device::Cpu))),
        case(
            "no GPU: the CPU",
            vec![cpu(64 * GIB)],
            vec![],
            Auto,
            both(GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "no GPU, and it must be one",
            vec![cpu(64 * GIB)],
            vec![],
            Gpu,
            both(GIB),
            ("never", None),
        ),
        case(
            "a GPU that is not there",
            one(),
            vec![],
            DeviceChoice::Cuda(3),
            both(GIB),
            ("never", None),
        ),
        case(
            "a kind that no GPU computes",
            one(),
            vec![],
            Auto,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            ("load", Some(Device::Cpu)),
        ),
        case(
            "the same, and it must be one",
            one(),
            vec![],
            Gpu,
            Need { cpu_bytes: GIB, gpu_bytes: None },
            ("never", None),
        ),
        case(
            "of two GPUs the one with more room",
            two(),
            vec![],
            Auto,
            both(GIB),
            ("load", Some(g1)),
        ),
        case(
            "others take the memory of one",
            two(),
            vec![(g1, 60 * GIB, Standing::Held)],
            Gpu,
            both(30 * GIB),
            ("load", Some(g0)),
        ),
        case(
            "the fraction binds",
            one(),
            vec![(g0, 60 * GIB, Standing::Held)],
            Auto,
            both(10 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "held, and it must be a GPU",
            one(),
            vec![(g0, 60 * GIB, Standing::Held)],
            Gpu,
            both(10 * GIB),
            ("no memory", Some(g0)),
        ),
        case(
            "an idle one makes room",
            one(),
            vec![(g0, 60 * GIB, idle(9))],
            Auto,
            both(10 * GIB),
            ("evict 0", Some(g0)),
        ),
        case(
            "the oldest idle one that helps",
            one(),
            vec![(g0, 30 * GIB, idle(1)), (g0, 30 * GIB, idle(5)), (Device::Cpu, GIB, idle(9))],
            Auto,
            both(20 * GIB),
            ("evict 1", Some(g0)),
        ),
        case(
            "as few as make room",
            one(),
            vec![(g0, GIB, idle(9)), (g0, 60 * GIB, idle(5))],
            Auto,
            both(50 * GIB),
            ("evict 1", Some(g0)),
        ),
        case(
            "what is leaving is waited for",
            one(),
            vec![(g0, 60 * GIB, Standing::Leaving)],
            Auto,
            both(10 * GIB),
            ("wait", Some(g0)),
        ),
        case(
            "busy ones are not waited for where there is a CPU",
            one(),
            vec![(g0, 60 * GIB, Standing::Busy(now))],
            Auto,
            both(10 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "busy ones drain where there is not",
            one(),
            vec![(g0, 60 * GIB, Standing::Busy(now))],
            Gpu,
            both(10 * GIB),
            ("evict 0", Some(g0)),
        ),
        case(
            "what is coming may be idle soon",
            one(),
            vec![(g0, 60 * GIB, Standing::Coming)],
            Gpu,
            both(10 * GIB),
            ("wait", Some(g0)),
        ),
        case(
            "larger than any GPU: the CPU",
            vec![cpu(128 * GIB), gpu(0, 80 * GIB, 0)],
            vec![],
            Auto,
            both(70 * GIB),
            ("load", Some(Device::Cpu)),
        ),
        case(
            "larger than the GPU",
            one(),
            vec![(g0, GIB, idle(9))],
            Gpu,
            both(65 * GIB),
            ("never", None),
        ),
        case("larger than anything", one(), vec![], Auto, both(65 * GIB), ("never", None)),
        case(
            "both full and held",
            one(),
            vec![(g0, 64 * GIB, Standing::Held), (Device::Cpu, 60 * GIB, Standing::Held)],
            Auto,
            both(10 * GIB),
            ("no memory", Some(Device::Cpu)),
        ),
    ];
    for case in cases {
        let residents: Vec<Resident> = case
            .there
            .iter()
            .enumerate()
            .map(|(at, (device, bytes, standing))| Resident {
                copy: InstanceId(at as u64),
                model: id(&format!("m{at}")),
                device: *device,
                bytes: *bytes,
                is_shared: true,
                standing: *standing,
            })
            .collect();
        let wish = Wish { need: case.need, choice: case.choice, is_shared: true, avoid: None };
        let placement = place(&wish, &policy(), &case.devices.clone().into(), &residents);
        let verdict = match &placement.verdict {
            PlacementVerdict::Load { bytes } => {
                assert_eq!(Some(*bytes), placement.device.unwrap().share_of(case.need));
                "load".to_owned()
            }
            PlacementVerdict::Wait => "wait".into(),
            PlacementVerdict::MakeRoom(copies) => {
                let copies: Vec<_> = copies.iter().map(|copy| copy.0.to_string()).collect();
                format!("evict {}", copies.join(" "))
            }
            PlacementVerdict::Never => "never".into(),
            PlacementVerdict::NoMemory => "no memory".into(),
            PlacementVerdict::TooMany => "too many".into(),
        };
        assert_eq!(
            (verdict.as_str(), placement.device),
            case.decided,
            "{}: {placement:?}",
            case.what
        );
        assert!(!placement.reasons.is_empty(), "{}", case.what);
    }
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
fn what_changes_while_a_model_is_prepared_counts_from_its_next_load() {
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
    assert!(matches!(actions[..], [Action::Load { .. }]), "what was begun goes on: {actions:?}");
    // Another copy is of the new settings, though the first is still there.
    play.scheduler.ask(&id("m"), Want::Lease(A), play.now);
    assert!(is_preparing(&play.scheduler.take_actions()));
    play.scheduler.prepared(&id("m"), Ok(both(GIB)), play.now);
    assert!(matches!(play.scheduler.take_actions()[..], [Action::Load { .. }]));
    // And a third one needs nothing new.
    play.scheduler.ask(&id("m"), Want::Lease(A), play.now);
    assert!(matches!(play.scheduler.take_actions()[..], [Action::Load { .. }]));
}

#[test]
fn an_unload_tells_of_copies_too_that_are_on_their_way_out() {
    let mut play = Play::roomy(&["m"]);
    let waiter = play.ask("m", Want::Use);
    let Granted::Use(copy) = play.granted[&waiter] else { panic!("granted otherwise") };
    for _ in 0..2 {
        assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), [copy], "it drains");
    }
    play.is_slow = true;
    play.scheduler.end_use(copy, play.now);
    assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), [copy], "it is unloaded");
    play.is_slow = false;
    play.run();
    assert_eq!(play.scheduler.unload(&id("m"), play.now).unwrap(), []);
}
