//! The scheduler against a simple model of its rules, over thousands of random steps.
//!
//! The model keeps plain lists of who holds and uses what, as the outside sees it. After each step
//! it says what must not be, and when something leaves the memory, whether it was allowed to.

use crate::models::scheduler::tests::{cpu, policy};
use crate::models::scheduler::*;

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

/// What the outside knows.
#[derive(Default)]
struct Known {
    leases: BTreeMap<LeaseId, (ConnectionId, ModelId, InstanceId)>,
    uses: Vec<(InstanceId, ModelId)>,
    waiting: BTreeMap<WaiterId, (ModelId, Want)>,
    preparing: Vec<ModelId>,
    loading: Vec<(InstanceId, ModelId, u64)>,
    unloading: Vec<InstanceId>,
    /// In memory: model, bytes, the last time that anybody released it or was done with it.
    loaded: BTreeMap<InstanceId, (ModelId, u64, Instant)>,
    failing: BTreeMap<ModelId, Instant>,
    /// Were on their way out when the rules changed.
    excused: BTreeSet<InstanceId>,
}

struct World {
    scheduler: Scheduler,
    known: Known,
    dice: Dice,
    now: Instant,
    counts: BTreeMap<&'static str, usize>,
}

fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

fn need(model: &ModelId) -> u64 {
    // Sums of them often just fit, and often just do not.
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
            known: Known::default(),
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
                    self.known.failing.remove(&model);
                }
                let waiter = self.scheduler.ask(&model, want, self.now);
                self.known.waiting.insert(waiter, (model, want));
                self.count("asked");
            }
            5..7 => {
                if let Some(lease) = self.any(|known| known.leases.keys().copied().collect()) {
                    let (connection, model, copy) = self.known.leases[&lease].clone();
                    self.scheduler.release(connection, lease, self.now).unwrap();
                    self.known.leases.remove(&lease);
                    self.touched(copy);
                    assert!(self.scheduler.release(connection, lease, self.now).is_err());
                    let _ = model;
                    self.count("released");
                }
            }
            7..9 => {
                if let Some(lease) = self.any(|known| known.leases.keys().copied().collect()) {
                    let (connection, model, _) = self.known.leases[&lease].clone();
                    let foreign = ConnectionId(connection.0 + 100);
                    assert!(self.scheduler.use_lease(foreign, lease, self.now).is_err());
                    match self.scheduler.use_lease(connection, lease, self.now).unwrap() {
                        LeaseUse::Now(copy) => self.known.uses.push((copy, model)),
                        LeaseUse::Wait(waiter) => {
                            let want = Want::UseOfLease(lease);
                            self.known.waiting.insert(waiter, (model, want));
                        }
                    }
                    self.count("used");
                }
            }
            9..13 => {
                if !self.known.uses.is_empty() {
                    let at = self.dice.below(self.known.uses.len());
                    let (copy, _) = self.known.uses.swap_remove(at);
                    self.touched(copy);
                    self.scheduler.end_use(copy, self.now);
                }
            }
            13 => {
                let connection = ConnectionId(self.dice.below(5) as u64);
                self.die(connection);
                self.count("died");
            }
            14 => {
                if let Some(waiter) = self.any(|known| known.waiting.keys().copied().collect()) {
                    self.known.waiting.remove(&waiter);
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
                    let mut copies = self.known.loaded.iter().filter(is_its);
                    let is_held = copies.any(|(copy, _)| self.is_held(*copy));
                    let is_coming = self.known.preparing.contains(&model)
                        || self.known.loading.iter().any(|(_, m, _)| *m == model);
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
                    self.known.failing.clear();
                }
                let rules = MODELS.map(|name| {
                    let rule = ModelPolicy { is_shared: name != "own", device: DeviceChoice::Auto };
                    (id(name), rule, change)
                });
                // What was told to leave under the old rules leaves under the new ones.
                let drains = |(copy, c): (InstanceId, &Copy)| {
                    (c.state == CopyState::Draining).then_some(copy)
                };
                self.known.excused.extend(self.scheduler.copies().filter_map(drains));
                self.scheduler.reconfigure(rule, rules, self.now);
                self.count("reloaded");
            }
            _ => self.complete(),
        }
        self.follow();
        self.check();
    }

    /// A connection ends, and with it its leases and its waiting for some.
    fn die(&mut self, connection: ConnectionId) {
        let held = self.scheduler.end_connection(connection, self.now);
        let of_it = |(c, ..): &(ConnectionId, ModelId, InstanceId)| *c == connection;
        let before = self.known.leases.len();
        let gone = self.known.leases.values().filter(|lease| of_it(lease));
        let gone: Vec<InstanceId> = gone.map(|(.., copy)| *copy).collect();
        gone.into_iter().for_each(|copy| self.touched(copy));
        self.known.leases.retain(|_, lease| !of_it(lease));
        assert_eq!(held, before - self.known.leases.len());
        self.known.waiting.retain(|_, (_, want)| *want != Want::Lease(connection));
    }

    /// Something that takes time ends, well or not.
    fn complete(&mut self) {
        let (loads, unloads, preparations) =
            (self.known.loading.len(), self.known.unloading.len(), self.known.preparing.len());
        let all = loads + unloads + preparations;
        if all == 0 {
            return;
        }
        let at = self.dice.below(all);
        let fails = self.dice.below(8) == 0;
        let failure = || Arc::new(LoadFailure::Panicked);
        if at < loads {
            let (copy, model, bytes) = self.known.loading.swap_remove(at);
            if fails {
                self.known.failing.insert(model, self.now);
                self.scheduler.loaded(copy, Err(failure()), self.now);
                self.count("failed");
            } else {
                self.known.loaded.insert(copy, (model.clone(), bytes, self.now));
                self.known.failing.remove(&model);
                self.scheduler.loaded(copy, Ok(bytes), self.now);
                self.count("loaded");
            }
        } else if at < loads + unloads {
            let copy = self.known.unloading.swap_remove(at - loads);
            self.known.loaded.remove(&copy);
            self.scheduler.unloaded(copy, self.now);
            self.count("unloaded");
        } else {
            let model = self.known.preparing.swap_remove(at - loads - unloads);
            if fails {
                self.known.failing.insert(model.clone(), self.now);
                self.scheduler.prepared(&model, Err(failure()), self.now);
            } else {
                let need = Need { cpu_bytes: need(&model), gpu_bytes: None };
                self.scheduler.prepared(&model, Ok(need), self.now);
            }
        }
    }

    /// Sees what was decided, and whether it was allowed.
    fn follow(&mut self) {
        for action in self.scheduler.take_actions() {
            match action {
                Action::Prepare { model } => {
                    assert!(!self.known.preparing.contains(&model), "one at a time");
                    self.known.preparing.push(model);
                }
                Action::Load { copy, model, bytes, .. } => {
                    let is_shared = model.as_str() != "own";
                    let there = |(_, (m, ..)): (&InstanceId, &(ModelId, u64, Instant))| *m == model;
                    if is_shared {
                        assert!(!self.known.loaded.iter().any(there), "a second copy of {model}");
                        assert!(!self.known.loading.iter().any(|(_, m, _)| *m == model));
                        assert!(self.shared_count() < self.scheduler.policy().max_shared_models);
                    }
                    assert!(self.used_bytes() + bytes <= 25, "more than the device has");
                    self.known.loading.push((copy, model, bytes));
                }
                Action::Unload { copy } => self.check_victim(copy),
                Action::Grant { waiter, granted } => {
                    let (model, want) = self.known.waiting.remove(&waiter).expect("it waits");
                    self.granted(&model, want, granted);
                }
                Action::Fail { waiter, error } => {
                    let (model, want) = self.known.waiting.remove(&waiter).expect("it waits");
                    self.refused(&model, want, &error);
                }
                Action::WaitingForRoom { waiter } => {
                    assert!(self.known.waiting.contains_key(&waiter));
                }
            }
        }
    }

    fn granted(&mut self, model: &ModelId, want: Want, granted: Granted) {
        let (Granted::Lease(_, copy) | Granted::Use(copy) | Granted::Preloaded { copy, .. }) =
            granted;
        assert_eq!(&self.known.loaded[&copy].0, model, "granted is what was asked for");
        assert!(!self.known.unloading.contains(&copy), "nobody is taken in on the way out");
        match (want, granted) {
            (Want::Lease(connection), Granted::Lease(lease, _)) => {
                assert!(!self.known.leases.contains_key(&lease));
                self.known.leases.insert(lease, (connection, model.clone(), copy));
            }
            (Want::Use, Granted::Use(_)) => self.known.uses.push((copy, model.clone())),
            (Want::UseOfLease(lease), Granted::Use(_)) => {
                self.known.uses.push((copy, model.clone()));
                self.known.leases.get_mut(&lease).expect("it is alive").2 = copy;
            }
            (Want::Preload, Granted::Preloaded { .. }) => self.touched(copy),
            other => panic!("{other:?}"),
        }
        self.count("granted");
    }

    fn refused(&mut self, model: &ModelId, want: Want, error: &WaitError) {
        match error {
            WaitError::Failed { .. } => {
                assert!(self.known.failing.contains_key(model), "{model} has not failed");
            }
            WaitError::Lease(LeaseError::TooMany(_)) => {
                let Want::Lease(connection) = want else { panic!("{want:?}") };
                let held = self.known.leases.values().filter(|(c, ..)| *c == connection).count();
                assert_eq!(held, 4);
            }
            WaitError::Lease(LeaseError::NotHeld(lease)) => {
                assert!(!self.known.leases.contains_key(lease));
            }
            WaitError::NotShared => assert_eq!((model.as_str(), want), ("own", Want::Preload)),
            WaitError::Refused { verdict, .. } => {
                // Nobody is refused while something moves that could make room, or stands idle.
                if *verdict == PlacementVerdict::TooMany {
                    let shared =
                        self.known.loaded.iter().filter(|(_, (m, ..))| m.as_str() != "own");
                    let held = shared.filter(|(copy, _)| self.is_held(**copy)).count();
                    assert!(held >= self.scheduler.policy().max_shared_models);
                }
                assert!(*verdict != PlacementVerdict::Never, "everything fits an empty device");
                self.count("refused");
            }
            WaitError::NotConfigured => panic!("all are configured"),
        }
    }

    /// What leaves must be allowed to, and be the one that was used longest ago of its kind.
    fn check_victim(&mut self, copy: InstanceId) {
        assert!(!self.is_used(copy), "a busy model leaves");
        let is_excused = self.known.excused.contains(&copy);
        assert!(!self.is_held(copy) || is_excused, "a held model leaves");
        assert!(!self.known.unloading.contains(&copy), "it leaves twice");
        assert!(self.known.loaded.contains_key(&copy), "it was never there");
        self.known.unloading.push(copy);
        self.count("victims");
    }

    fn check(&mut self) {
        let mut leases: Vec<_> = self.scheduler.leases().iter().map(|(id, _)| id).collect();
        leases.sort_unstable();
        assert_eq!(leases, self.known.leases.keys().copied().collect::<Vec<_>>());
        assert_eq!(self.scheduler.waiting(), self.known.waiting.len());
        assert!(self.used_bytes() <= 25);
        for (copy, resident) in self.scheduler.copies() {
            let uses = self.known.uses.iter().filter(|(used, _)| *used == copy).count();
            assert_eq!(resident.uses, uses);
            let bound = self.known.leases.values().filter(|(.., held)| *held == copy).count();
            assert_eq!(resident.leases, bound, "leases that are bound to it");
            if let Some(at) = self.scheduler.unload_at(resident) {
                let (.., last) = self.known.loaded[&copy];
                assert_eq!(at, last + self.scheduler.policy().unload_after, "the idle time");
            }
        }
        let stay: Vec<&Copy> = self
            .scheduler
            .copies()
            .filter(|(_, copy)| copy.model.as_str() != "own")
            .map(|(_, copy)| copy)
            .filter(|copy| !matches!(copy.state, CopyState::Draining | CopyState::Unloading))
            .collect();
        let is_idle = |copy: &&Copy| {
            let is_held = copy.leases > 0 && self.scheduler.policy().reference_counting;
            copy.state == CopyState::Ready && copy.uses == 0 && !is_held
        };
        if stay.len() > self.scheduler.policy().max_shared_models {
            assert!(!stay.iter().any(is_idle), "an idle one stays, and there are too many");
        }
        // Nobody waits for nothing: something is under way, or somebody has work to end.
        let moves = !self.known.loading.is_empty()
            || !self.known.unloading.is_empty()
            || !self.known.preparing.is_empty()
            || !self.known.uses.is_empty();
        assert!(
            moves || self.known.waiting.is_empty(),
            "{} wait for ever",
            self.known.waiting.len()
        );
    }

    fn touched(&mut self, copy: InstanceId) {
        if let Some(loaded) = self.known.loaded.get_mut(&copy) {
            loaded.2 = self.now;
        }
    }

    fn is_used(&self, copy: InstanceId) -> bool {
        self.known.uses.iter().any(|(used, _)| *used == copy)
    }

    fn is_held(&self, copy: InstanceId) -> bool {
        let is_own = self.known.loaded.get(&copy).is_some_and(|(m, ..)| m.as_str() == "own");
        let counts = self.scheduler.policy().reference_counting || is_own;
        counts && self.known.leases.values().any(|(.., held)| *held == copy)
    }

    fn shared_count(&self) -> usize {
        let own = |model: &ModelId| model.as_str() == "own";
        self.known.loaded.values().filter(|(m, ..)| !own(m)).count()
            + self.known.loading.iter().filter(|(_, m, _)| !own(m)).count()
    }

    fn used_bytes(&self) -> u64 {
        self.known.loaded.values().map(|(_, bytes, _)| bytes).sum::<u64>()
            + self.known.loading.iter().map(|(.., bytes)| bytes).sum::<u64>()
    }

    fn any<T: std::marker::Copy>(&mut self, of: impl Fn(&Known) -> Vec<T>) -> Option<T> {
        let all = of(&self.known);
        if all.is_empty() { None } else { Some(all[self.dice.below(all.len())]) }
    }

    /// All that is under way ends, all that is held is released: nothing may be left.
    fn end(mut self) -> BTreeMap<&'static str, usize> {
        for connection in (0..5).map(ConnectionId) {
            self.die(connection);
            self.follow();
        }
        for _ in 0..10_000 {
            self.follow();
            if let Some((copy, _)) = self.known.uses.pop() {
                self.touched(copy);
                self.scheduler.end_use(copy, self.now);
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
        assert_eq!(self.scheduler.copies().count(), 0, "something stays in memory for ever");
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
    // A world in which nothing happens proves nothing.
    for what in
        ["granted", "loaded", "failed", "unloaded", "victims", "refused", "died", "reloaded"]
    {
        assert!(counts.get(what).is_some_and(|count| *count > 5), "{what}: {counts:?}");
    }
}
