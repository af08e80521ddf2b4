//! The scheduler against a simple model of its rules, over thousands of random steps.
//!
//! The model keeps plain lists of which connection holds and uses what, as seen from outside. After
//! each step it checks the rules, and when an instance is unloaded, whether that was allowed.

use crate::ground::connection_id::ConnectionId;
use crate::ground::device::DeviceChoice;
use crate::models::lease::LeaseError;
use crate::models::load_failure::LoadFailure;
use crate::models::scheduler::tests::play::{cpu, policy};
use crate::models::scheduler::{
    Action, Change, Granted, Instance, InstanceId, InstanceState, LeaseUse, ModelPolicy,
    PlacementVerdict, Scheduler, WaitError, WaiterId, Want,
};
use emberd_engine::Need;
use emberd_protocol::{LeaseId, ModelId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps of a test run; `EMBERD_RANDOM_STEPS` makes it longer.
const STEPS: usize = 10_000;

const MODELS: [&str; 6] = ["a", "b", "c", "d", "e", "own"];

/// A generator of numbers that is the same everywhere (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// The state as seen from outside.
#[derive(Default)]
struct Outside {
    leases: BTreeMap<LeaseId, (ConnectionId, ModelId, InstanceId)>,
    uses: Vec<(InstanceId, ModelId)>,
    waiting: BTreeMap<WaiterId, (ModelId, Want)>,
    preparing: Vec<ModelId>,
    loading: Vec<(InstanceId, ModelId, u64)>,
    unloading: Vec<InstanceId>,
    /// In memory: model, bytes, the last release or end of a use.
    loaded: BTreeMap<InstanceId, (ModelId, u64, Instant)>,
    failing: BTreeMap<ModelId, Instant>,
    /// Those that were leaving when the rules changed.
    excused: BTreeSet<InstanceId>,
}

struct World {
    scheduler: Scheduler,
    outside: Outside,
    dice: Dice,
    now: Instant,
    counts: BTreeMap<&'static str, usize>,
}

fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

fn need(model: &ModelId) -> u64 {
    // Their sums often just fit, and often just do not.
    1 + u64::from(model.as_str().as_bytes()[0] % 5) * 3
}

impl World {
    fn new(seed: u64) -> Self {
        let rules = MODELS.map(|name| {
            (id(name), ModelPolicy { is_shared: name != "own", device: DeviceChoice::Auto })
        });
        let mut rule = policy();
        (rule.max_shared_models, rule.unload_after) = (3, Duration::from_secs(60));
        rule.max_leases = 4;
        Self {
            scheduler: Scheduler::new(rule, rules, vec![cpu(25)]),
            outside: Outside::default(),
            dice: Dice(seed | 1),
            now: Instant::now(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn model(&mut self) -> ModelId {
        let at = self.dice.below(MODELS.len());
        id(MODELS[at])
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.dice.below(3000) as u64);
        match self.dice.below(20) {
            0..5 => {
                let (model, connection) = (self.model(), ConnectionId(self.dice.below(5) as u64));
                let want = match self.dice.below(8) {
                    0..3 => Want::Lease(connection),
                    3..7 => Want::Use,
                    _ => Want::Preload,
                };
                if want == Want::Preload {
                    self.outside.failing.remove(&model);
                }
                let waiter = self.scheduler.ask(&model, want, self.now);
                self.outside.waiting.insert(waiter, (model, want));
                self.count("asked");
            }
            5..7 => {
                if let Some(lease) = self.any(|outside| outside.leases.keys().copied().collect()) {
                    let (connection, model, instance) = self.outside.leases[&lease].clone();
                    self.scheduler.release(connection, lease, self.now).unwrap();
                    self.outside.leases.remove(&lease);
                    self.touched(instance);
                    assert!(self.scheduler.release(connection, lease, self.now).is_err());
                    let _ = model;
                    self.count("released");
                }
            }
            7..9 => {
                if let Some(lease) = self.any(|outside| outside.leases.keys().copied().collect()) {
                    let (connection, model, _) = self.outside.leases[&lease].clone();
                    let foreign = ConnectionId(connection.0 + 100);
                    assert!(self.scheduler.use_lease(foreign, lease, self.now).is_err());
                    match self.scheduler.use_lease(connection, lease, self.now).unwrap() {
                        LeaseUse::Now(instance) => self.outside.uses.push((instance, model)),
                        LeaseUse::Wait(waiter) => {
                            let want = Want::UseOfLease(lease);
                            self.outside.waiting.insert(waiter, (model, want));
                        }
                    }
                    self.count("used");
                }
            }
            9..13 => {
                if !self.outside.uses.is_empty() {
                    let at = self.dice.below(self.outside.uses.len());
                    let (instance, _) = self.outside.uses.swap_remove(at);
                    self.touched(instance);
                    self.scheduler.end_use(instance, self.now);
                }
            }
            13 => {
                let connection = ConnectionId(self.dice.below(5) as u64);
                self.die(connection);
                self.count("died");
            }
            14 => {
                if let Some(waiter) = self.any(|outside| outside.waiting.keys().copied().collect())
                {
                    self.outside.waiting.remove(&waiter);
                    self.scheduler.leave(waiter, self.now);
                    self.count("left");
                }
            }
            15 => self.scheduler.tick(self.now),
            16 => {
                if self.dice.below(4) == 0 {
                    self.now += Duration::from_secs(61);
                    self.scheduler.tick(self.now);
                } else if self.dice.below(4) == 0 {
                    let _ = self.scheduler.cleanup(self.now);
                } else {
                    let model = self.model();
                    let is_its =
                        |(_, (m, ..)): &(&InstanceId, &(ModelId, u64, Instant))| *m == model;
                    let mut instances = self.outside.loaded.iter().filter(is_its);
                    let is_held = instances.any(|(instance, _)| self.is_held(*instance));
                    let is_coming = self.outside.preparing.contains(&model)
                        || self.outside.loading.iter().any(|(_, m, _)| *m == model);
                    let result = self.scheduler.unload(&model, self.now);
                    assert_eq!(result.is_err(), is_held || is_coming);
                }
            }
            17 if self.dice.below(10) == 0 => {
                let mut rule = self.scheduler.policy().clone();
                rule.max_shared_models = 1 + self.dice.below(5);
                rule.reference_counting = self.dice.below(3) > 0;
                let changes = [Change::None, Change::Settings, Change::Source];
                let change = changes[self.dice.below(3)];
                if change != Change::None {
                    self.outside.failing.clear();
                }
                let rules = MODELS.map(|name| {
                    let rule = ModelPolicy { is_shared: name != "own", device: DeviceChoice::Auto };
                    (id(name), rule, change)
                });
                // Those that were leaving under the old rules still leave under the new ones.
                let drains = |(instance, c): (InstanceId, &Instance)| {
                    (c.state == InstanceState::Draining).then_some(instance)
                };
                self.outside.excused.extend(self.scheduler.instances().filter_map(drains));
                self.scheduler.reconfigure(rule, rules, self.now);
                self.count("reloaded");
            }
            _ => self.complete(),
        }
        self.follow();
        self.check();
    }

    /// A connection ends, and with it its leases and its waiters for leases.
    fn die(&mut self, connection: ConnectionId) {
        let held = self.scheduler.end_connection(connection, self.now);
        let of_it = |(c, ..): &(ConnectionId, ModelId, InstanceId)| *c == connection;
        let before = self.outside.leases.len();
        let gone = self.outside.leases.values().filter(|lease| of_it(lease));
        let gone: Vec<InstanceId> = gone.map(|(.., instance)| *instance).collect();
        gone.into_iter().for_each(|instance| self.touched(instance));
        self.outside.leases.retain(|_, lease| !of_it(lease));
        assert_eq!(held, before - self.outside.leases.len());
        self.outside.waiting.retain(|_, (_, want)| *want != Want::Lease(connection));
    }

    /// A preparation, a load or an unload ends, or fails.
    fn complete(&mut self) {
        let (loads, unloads, preparations) = (
            self.outside.loading.len(),
            self.outside.unloading.len(),
            self.outside.preparing.len(),
        );
        let all = loads + unloads + preparations;
        if all == 0 {
            return;
        }
        let at = self.dice.below(all);
        let fails = self.dice.below(8) == 0;
        let failure = || Arc::new(LoadFailure::Panicked);
        if at < loads {
            let (instance, model, bytes) = self.outside.loading.swap_remove(at);
            if fails {
                self.outside.failing.insert(model, self.now);
                self.scheduler.loaded(instance, Err(failure()), self.now);
                self.count("failed");
            } else {
                self.outside.loaded.insert(instance, (model.clone(), bytes, self.now));
                self.outside.failing.remove(&model);
                self.scheduler.loaded(instance, Ok(bytes), self.now);
                self.count("loaded");
            }
        } else if at < loads + unloads {
            let instance = self.outside.unloading.swap_remove(at - loads);
            self.outside.loaded.remove(&instance);
            self.scheduler.unloaded(instance, self.now);
            self.count("unloaded");
        } else {
            let model = self.outside.preparing.swap_remove(at - loads - unloads);
            if fails {
                self.outside.failing.insert(model.clone(), self.now);
                self.scheduler.prepared(&model, Err(failure()), self.now);
            } else {
                let need = Need { cpu_bytes: need(&model), gpu_bytes: None };
                self.scheduler.prepared(&model, Ok(need), self.now);
            }
        }
    }

    /// Carries out the actions, and checks that each was allowed.
    fn follow(&mut self) {
        for action in self.scheduler.take_actions() {
            match action {
                Action::Prepare { model } => {
                    assert!(!self.outside.preparing.contains(&model), "one at a time");
                    self.outside.preparing.push(model);
                }
                Action::Load { instance, model, bytes, .. } => {
                    let is_shared = model.as_str() != "own";
                    let there = |(_, (m, ..)): (&InstanceId, &(ModelId, u64, Instant))| *m == model;
                    if is_shared {
                        assert!(
                            !self.outside.loaded.iter().any(there),
                            "a second instance of {model}"
                        );
                        assert!(!self.outside.loading.iter().any(|(_, m, _)| *m == model));
                        assert!(self.shared_count() < self.scheduler.policy().max_shared_models);
                    }
                    assert!(self.used_bytes() + bytes <= 25, "more than the device has");
                    self.outside.loading.push((instance, model, bytes));
                }
                Action::Unload { instance } => self.check_victim(instance),
                Action::Grant { waiter, granted } => {
                    let (model, want) = self.outside.waiting.remove(&waiter).expect("it waits");
                    self.granted(&model, want, granted);
                }
                Action::Fail { waiter, error } => {
                    let (model, want) = self.outside.waiting.remove(&waiter).expect("it waits");
                    self.refused(&model, want, &error);
                }
                Action::WaitingForRoom { waiter } => {
                    assert!(self.outside.waiting.contains_key(&waiter));
                }
            }
        }
    }

    fn granted(&mut self, model: &ModelId, want: Want, granted: Granted) {
        let (Granted::Lease(_, instance)
        | Granted::Use(instance)
        | Granted::Preloaded { instance, .. }) = granted;
        assert_eq!(&self.outside.loaded[&instance].0, model, "granted is what was asked for");
        assert!(!self.outside.unloading.contains(&instance), "one that leaves accepts nobody");
        match (want, granted) {
            (Want::Lease(connection), Granted::Lease(lease, _)) => {
                assert!(!self.outside.leases.contains_key(&lease));
                self.outside.leases.insert(lease, (connection, model.clone(), instance));
            }
            (Want::Use, Granted::Use(_)) => self.outside.uses.push((instance, model.clone())),
            (Want::UseOfLease(lease), Granted::Use(_)) => {
                self.outside.uses.push((instance, model.clone()));
                self.outside.leases.get_mut(&lease).expect("it is alive").2 = instance;
            }
            (Want::Preload, Granted::Preloaded { .. }) => self.touched(instance),
            other => panic!("{other:?}"),
        }
        self.count("granted");
    }

    fn refused(&mut self, model: &ModelId, want: Want, error: &WaitError) {
        match error {
            WaitError::Failed { .. } => {
                assert!(self.outside.failing.contains_key(model), "{model} has not failed");
            }
            WaitError::Lease(LeaseError::TooMany(_)) => {
                let Want::Lease(connection) = want else { panic!("{want:?}") };
                let held = self.outside.leases.values().filter(|(c, ..)| *c == connection).count();
                assert_eq!(held, 4);
            }
            WaitError::Lease(LeaseError::NotHeld(lease)) => {
                assert!(!self.outside.leases.contains_key(lease));
            }
            WaitError::NotShared => assert_eq!((model.as_str(), want), ("own", Want::Preload)),
            WaitError::Refused { verdict, .. } => {
                // None is refused while an instance is idle, or moves so that room may appear.
                if *verdict == PlacementVerdict::TooMany {
                    let shared =
                        self.outside.loaded.iter().filter(|(_, (m, ..))| m.as_str() != "own");
                    let held = shared.filter(|(instance, _)| self.is_held(**instance)).count();
                    assert!(held >= self.scheduler.policy().max_shared_models);
                }
                assert!(*verdict != PlacementVerdict::Never, "everything fits an empty device");
                self.count("refused");
            }
            WaitError::NotConfigured => panic!("all are configured"),
        }
    }

    /// Checks that an instance may be unloaded.
    fn check_victim(&mut self, instance: InstanceId) {
        assert!(!self.is_used(instance), "a busy model leaves");
        let is_excused = self.outside.excused.contains(&instance);
        assert!(!self.is_held(instance) || is_excused, "a held model leaves");
        assert!(!self.outside.unloading.contains(&instance), "it leaves twice");
        assert!(self.outside.loaded.contains_key(&instance), "it was never there");
        self.outside.unloading.push(instance);
        self.count("victims");
    }

    fn check(&mut self) {
        let mut leases: Vec<_> = self.scheduler.leases().iter().map(|(id, _)| id).collect();
        leases.sort_unstable();
        assert_eq!(leases, self.outside.leases.keys().copied().collect::<Vec<_>>());
        assert_eq!(self.scheduler.waiting(), self.outside.waiting.len());
        assert!(self.used_bytes() <= 25);
        for (instance, resident) in self.scheduler.instances() {
            let uses = self.outside.uses.iter().filter(|(used, _)| *used == instance).count();
            assert_eq!(resident.uses, uses);
            let bound = self.outside.leases.values().filter(|(.., held)| *held == instance).count();
            assert_eq!(resident.leases, bound, "leases that are bound to it");
            if let Some(at) = self.scheduler.unload_at(resident) {
                let (.., last) = self.outside.loaded[&instance];
                assert_eq!(at, last + self.scheduler.policy().unload_after, "the idle time");
            }
        }
        let stay: Vec<&Instance> = self
            .scheduler
            .instances()
            .filter(|(_, instance)| instance.model.as_str() != "own")
            .map(|(_, instance)| instance)
            .filter(|instance| {
                !matches!(instance.state, InstanceState::Draining | InstanceState::Unloading)
            })
            .collect();
        let is_idle = |instance: &&Instance| {
            let is_held = instance.leases > 0 && self.scheduler.policy().reference_counting;
            instance.state == InstanceState::Ready && instance.uses == 0 && !is_held
        };
        if stay.len() > self.scheduler.policy().max_shared_models {
            assert!(!stay.iter().any(is_idle), "an idle one stays, and there are too many");
        }
        // None waits in vain: something is moving, or some work will end.
        let moves = !self.outside.loading.is_empty()
            || !self.outside.unloading.is_empty()
            || !self.outside.preparing.is_empty()
            || !self.outside.uses.is_empty();
        assert!(
            moves || self.outside.waiting.is_empty(),
            "{} wait for ever",
            self.outside.waiting.len()
        );
    }

    fn touched(&mut self, instance: InstanceId) {
        if let Some(loaded) = self.outside.loaded.get_mut(&instance) {
            loaded.2 = self.now;
        }
    }

    fn is_used(&self, instance: InstanceId) -> bool {
        self.outside.uses.iter().any(|(used, _)| *used == instance)
    }

    fn is_held(&self, instance: InstanceId) -> bool {
        let is_own = self.outside.loaded.get(&instance).is_some_and(|(m, ..)| m.as_str() == "own");
        let counts = self.scheduler.policy().reference_counting || is_own;
        counts && self.outside.leases.values().any(|(.., held)| *held == instance)
    }

    fn shared_count(&self) -> usize {
        let own = |model: &ModelId| model.as_str() == "own";
        self.outside.loaded.values().filter(|(m, ..)| !own(m)).count()
            + self.outside.loading.iter().filter(|(_, m, _)| !own(m)).count()
    }

    fn used_bytes(&self) -> u64 {
        self.outside.loaded.values().map(|(_, bytes, _)| bytes).sum::<u64>()
            + self.outside.loading.iter().map(|(.., bytes)| bytes).sum::<u64>()
    }

    fn any<T: Copy>(&mut self, of: impl Fn(&Outside) -> Vec<T>) -> Option<T> {
        let all = of(&self.outside);
        if all.is_empty() { None } else { Some(all[self.dice.below(all.len())]) }
    }

    /// Ends all work and releases all leases: nothing may be left.
    fn end(mut self) -> BTreeMap<&'static str, usize> {
        for connection in (0..5).map(ConnectionId) {
            self.die(connection);
            self.follow();
        }
        for _ in 0..10_000 {
            self.follow();
            if let Some((instance, _)) = self.outside.uses.pop() {
                self.touched(instance);
                self.scheduler.end_use(instance, self.now);
            } else {
                self.complete();
            }
        }
        self.follow();
        assert_eq!(self.scheduler.waiting(), 0, "somebody waits for ever");
        self.now += Duration::from_secs(3600);
        self.scheduler.tick(self.now);
        for _ in 0..100 {
            self.follow();
            self.complete();
        }
        assert_eq!(self.scheduler.instances().count(), 0, "something stays in memory for ever");
        self.counts
    }
}

#[test]
fn ten_thousand_random_steps_follow_the_rules() {
    let steps = std::env::var("EMBERD_RANDOM_STEPS").ok().and_then(|text| text.parse().ok());
    let mut counts = BTreeMap::<&str, usize>::new();
    let seeds = 10;
    for seed in 0..seeds {
        let mut world = World::new(0x9e37_79b9_7f4a_7c15 ^ (seed << 32));
        for _ in 0..steps.unwrap_or(STEPS) / 10 {
            world.step();
        }
        for (what, count) in world.end() {
            *counts.entry(what).or_default() += count;
        }
    }
    // A run in which nothing happens would prove nothing.
    for what in
        ["granted", "loaded", "failed", "unloaded", "victims", "refused", "died", "reloaded"]
    {
        assert!(counts.get(what).is_some_and(|count| *count > 5), "{what}: {counts:?}");
    }
}
