use crate::support::{ClientProcess, Daemon, eventually, tiny_model};
use emberd_client::Client;
use emberd_protocol::{ErrorCode, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Steps of a run; `EMBERD_RANDOM_STEPS` makes it longer.
const STEPS: usize = 400;

const SHARED: [&str; 4] = ["a", "b", "c", "d"];

/// Not shared: each lease has its own instance.
const OWN: &str = "own";

/// A random number generator that is the same on every machine (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// A client process, and what it believes it holds.
struct Actor {
    process: ClientProcess,
    /// The models of its leases; `None` once released.
    leases: Vec<Option<&'static str>>,
}

impl Actor {
    fn new(daemon: &Daemon) -> Self {
        Self { process: ClientProcess::start(daemon, "actor", "-", 0), leases: Vec::new() }
    }

    fn tell(&mut self, command: &str) -> String {
        self.process.say(command);
        self.process.line()
    }

    fn held(&self) -> Vec<usize> {
        (0..self.leases.len()).filter(|at| self.leases[*at].is_some()).collect()
    }
}

struct World {
    daemon: Daemon,
    client: Client,
    actors: Vec<Actor>,
    models: String,
    max_shared: usize,
    dice: Dice,
    counts: BTreeMap<&'static str, usize>,
}

impl World {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn configure(&mut self, unload_after: usize) {
        let text = format!(
            "sharing.max_shared_models = {}\nsharing.unload_after_seconds = {unload_after}\n{}",
            self.max_shared, self.models
        );
        std::fs::write(self.daemon.settings_file(), text).unwrap();
        self.client.reload().unwrap();
    }

    fn any_model(&mut self) -> &'static str {
        match self.dice.below(6) {
            5 => OWN,
            _ => SHARED[self.dice.below(SHARED.len())],
        }
    }

    /// Shared models that a client holds.
    fn leased(&self) -> BTreeSet<&'static str> {
        let all = self.actors.iter().flat_map(|actor| actor.leases.iter().flatten());
        all.filter(|model| **model != OWN).copied().collect()
    }

    fn leases_of(&self, model: &str) -> usize {
        let all = self.actors.iter().flat_map(|actor| actor.leases.iter().flatten());
        all.filter(|held| **held == model).count()
    }

    /// Whether a model is available: it is loaded, or there is room after an eviction.
    fn has_room(&self, model: &str) -> bool {
        model == OWN || self.leased().contains(model) || self.leased().len() < self.max_shared
    }

    fn step(&mut self) {
        let at = self.dice.below(self.actors.len());
        match self.dice.below(16) {
            0..4 => {
                let model = self.any_model();
                let answer = self.actors[at].tell(&format!("lease {model}"));
                if self.has_room(model) {
                    assert_eq!(answer, "done", "{model} has room");
                    self.actors[at].leases.push(Some(model));
                    self.count("leased");
                } else {
                    assert_eq!(answer, "failed LIMIT_EXCEEDED", "{model} has no room");
                    self.count("no room");
                }
            }
            4..7 => {
                let held = self.actors[at].held();
                if !held.is_empty() {
                    let lease = held[self.dice.below(held.len())];
                    assert_eq!(self.actors[at].tell(&format!("release {lease}")), "done");
                    self.actors[at].leases[lease] = None;
                    self.count("released");
                }
            }
            7..10 => {
                let held = self.actors[at].held();
                if !held.is_empty() {
                    let lease = held[self.dice.below(held.len())];
                    let rows = 1 + self.dice.below(400);
                    assert_eq!(self.actors[at].tell(&format!("embed {lease} {rows}")), "done");
                    self.count("embedded");
                }
            }
            10 => {
                let (model, rows) = (self.any_model(), 1 + self.dice.below(50));
                let answer = self.actors[at].tell(&format!("use {model} {rows}"));
                let expected = if self.has_room(model) { "done" } else { "failed LIMIT_EXCEEDED" };
                assert_eq!(answer, expected, "use of {model}");
                self.count("used");
            }
            11 | 12 => {
                // At once, or in the middle of a request.
                if self.dice.below(2) == 0 {
                    let model = self.any_model();
                    self.actors[at].process.say(&format!("use {model} 400"));
                }
                self.actors[at].process.kill();
                self.actors[at] = Actor::new(&self.daemon);
                self.count("killed");
            }
            13 => {
                let model = self.any_model();
                if self.leases_of(model) > 0 {
                    assert_eq!(
                        self.client.unload(model).unwrap_err().code(),
                        Some(ErrorCode::ReferenceError)
                    );
                    self.count("held");
                } else {
                    // A request of a dead client may still be on its way to the daemon.
                    eventually("it can be unloaded", || match self.client.unload(model) {
                        Ok(_) => true,
                        Err(error) => {
                            assert!(error.to_string().contains("being loaded"), "{error}");
                            false
                        }
                    });
                    self.count("unloaded");
                }
            }
            14 => {
                self.client.cleanup_unused_models().unwrap();
                // Models that were already being unloaded are not waited for.
                eventually("only what is held stays", || {
                    let in_memory = self.in_memory(&self.client.status().unwrap());
                    in_memory.is_subset(&self.leased())
                });
                self.count("cleaned up");
            }
            _ => {
                self.max_shared = 1 + self.dice.below(4);
                let unload_after = [0, 1, 1800][self.dice.below(3)];
                self.configure(unload_after);
                self.count("reloaded");
            }
        }
        // The daemon notices deaths with a delay, so the rules hold soon, not at once.
        let mut wrong = String::new();
        let mut is_right = || {
            wrong = self.wrong().unwrap_or_default();
            wrong.is_empty()
        };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the daemon's status is what the rules say", &mut is_right);
        }));
        assert!(result.is_ok(), "{wrong}");
    }

    fn in_memory(&self, status: &Status) -> BTreeSet<&'static str> {
        let is_in = |name: &&&str| {
            let of = |model: &&emberd_protocol::ModelStatus| model.id.as_str() == **name;
            status.models.iter().find(of).is_some_and(|model| model.copies > 0)
        };
        SHARED.iter().filter(is_in).copied().collect()
    }

    /// The first rule that the status breaks.
    fn wrong(&self) -> Option<String> {
        let status = self.client.status().unwrap();
        let mut known: Vec<(String, u32)> = Vec::new();
        for actor in &self.actors {
            let models = actor.leases.iter().flatten();
            known.extend(models.map(|model| ((*model).to_owned(), actor.process.id())));
        }
        let mut reported: Vec<(String, u32)> =
            status.leases.iter().map(|lease| (lease.model.to_string(), lease.pid)).collect();
        known.sort();
        reported.sort();
        if reported != known {
            return Some(format!("leases {reported:?}, known are {known:?}"));
        }
        let (in_memory, leased, max) = (self.in_memory(&status), self.leased(), self.max_shared);
        if !leased.is_subset(&in_memory) || in_memory.len() > max.max(leased.len()) {
            return Some(format!("in memory {in_memory:?}, leased {leased:?}, at most {max}"));
        }
        let own = status.models.iter().find(|model| model.id.as_str() == OWN).unwrap();
        if own.copies as usize != self.leases_of(OWN) {
            return Some(format!("{} copies for {} leases", own.copies, self.leases_of(OWN)));
        }
        let busy = status.models.iter().find(|model| model.busy > 0 || model.queued_texts > 0)?;
        Some(format!("{} has work and nobody to want it: {busy:?}", busy.id))
    }
}

#[test]
fn random_steps_of_several_processes_follow_the_rules() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let steps = number("EMBERD_RANDOM_STEPS").unwrap_or(STEPS);
    let seed = number("EMBERD_RANDOM_SEED").unwrap_or(7);
    let folder = tempfile::tempdir().unwrap();
    let path = tiny_model(folder.path());
    let model = |name: &str| {
        format!("models.{name}.type = \"embedding\"\nmodels.{name}.local_path = {path:?}\n")
    };
    let mut models: String = SHARED.iter().map(|name| model(name)).collect();
    models += &model(OWN);
    models += &format!("models.{OWN}.shared = false\n");
    // Rows must be computed.
    models += "embedding_cache.enabled = false\n";
    let daemon = Daemon::with_settings(&format!("sharing.max_shared_models = 2\n{models}"));
    let mut world = World {
        client: daemon.client(),
        actors: (0..4).map(|_| Actor::new(&daemon)).collect(),
        daemon,
        models,
        max_shared: 2,
        dice: Dice((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        counts: BTreeMap::new(),
    };
    for step in 0..steps {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
        assert!(result.is_ok(), "seed {seed}, step {step}, see above");
    }
    // A run in which nothing happens proves nothing.
    for what in ["leased", "no room", "released", "embedded", "used", "killed", "held", "unloaded"]
    {
        assert!(world.counts.get(what).is_some_and(|count| *count > 2), "{:?}", world.counts);
    }
    // All clients end, in one way or another: nothing of theirs may be left.
    world.actors.iter_mut().for_each(|actor| actor.process.kill());
    world.actors.clear();
    world.configure(0);
    eventually("all models have left", || {
        let status = world.client.status().unwrap();
        status.leases.is_empty() && status.models.iter().all(|model| model.copies == 0)
    });
    assert_eq!(world.client.status().unwrap().connections.len(), 1);
}
