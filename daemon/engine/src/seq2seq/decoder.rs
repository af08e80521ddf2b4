//! A decoder: the inputs and hypotheses of a computation, and the team of threads that computes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use crate::api::error::ComputeError;
use crate::api::generation::{Decoder, EncoderOutputId, HypothesisId};
use crate::api::sequence::Sequence;
use crate::kernels::barrier::Broken;
use crate::kernels::sync::lock;
use crate::kernels::team::{Member, Task, Team};
use crate::seq2seq::encode::{EncodeScratch, Input, encode};
use crate::seq2seq::exchange::Exchange;
use crate::seq2seq::kv_cache::KvCache;
use crate::seq2seq::network::Seq2SeqNetwork;
use crate::seq2seq::step::{StepRow, StepScratch, step};

/// A decoder that computes with a team of threads. See [`Decoder`].
#[derive(Debug)]
pub(super) struct TeamDecoder {
    work: Arc<TeamState>,
    team: Team,
    /// The admitted inputs.
    inputs: BTreeSet<u32>,
    hypotheses: BTreeMap<u32, Hypothesis>,
    /// The next number to try.
    next: u32,
}

impl TeamDecoder {
    pub(super) fn new(network: Arc<Seq2SeqNetwork>, threads: usize) -> io::Result<Self> {
        let team = Team::start(threads)?;
        let state = |index| {
            Mutex::new(MemberState {
                cache: KvCache::new(&network, index, team.count()),
                encoding: EncodeScratch::default(),
                stepping: StepScratch::default(),
                logits: Vec::new(),
            })
        };
        let members = (0..team.count()).map(state).collect();
        let exchange = Exchange::new(team.count());
        Ok(Self {
            work: Arc::new(TeamState { network, exchange, members }),
            team,
            inputs: BTreeSet::new(),
            hypotheses: BTreeMap::new(),
            next: 0,
        })
    }

    /// Changes the cache of each member.
    fn for_caches(&self, mut change: impl FnMut(&mut KvCache)) {
        self.work.members.iter().for_each(|member| change(&mut lock(member).cache));
    }

    /// A number that no input and no hypothesis has.
    fn new_id(&mut self) -> u32 {
        loop {
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.inputs.contains(&id) && !self.hypotheses.contains_key(&id) {
                return id;
            }
        }
    }

    fn check_input(&self, input: &Sequence) -> Result<(), ComputeError> {
        let embedding = &self.work.network.encoder.embedding;
        let width = self.work.network.width;
        if input.ids.is_empty() {
            return refuse("the input has no tokens");
        }
        if embedding.positions(width).is_some_and(|most| input.ids.len() > most) {
            return refuse("the input is longer than the model's positions");
        }
        if input.ids.iter().any(|&id| id as usize >= embedding.tokens.len()) {
            return refuse("the input has a token beyond the vocabulary of the weights");
        }
        Ok(())
    }

    fn rows(&self, next: &[(HypothesisId, u32)]) -> Result<Vec<StepRow>, ComputeError> {
        let mut seen = HashSet::with_capacity(next.len());
        let vocabulary = self.work.network.decoder.embedding.tokens.len();
        let row = |&(HypothesisId(id), token): &(HypothesisId, u32)| {
            let Some(hypothesis) = self.hypotheses.get(&id) else {
                return refuse("there is no such hypothesis");
            };
            if !self.inputs.contains(&hypothesis.input) {
                return refuse("the input of the hypothesis was forgotten");
            }
            if hypothesis.tokens >= hypothesis.max_tokens {
                return refuse("the hypothesis has reached its greatest length");
            }
            if token as usize >= vocabulary {
                return refuse("a token lies beyond the vocabulary of the weights");
            }
            if !seen.insert(id) {
                return refuse("a hypothesis occurs twice in one step");
            }
            Ok(StepRow {
                hypothesis: id,
                input: hypothesis.input,
                token,
                position: hypothesis.tokens,
            })
        };
        next.iter().map(row).collect()
    }

    /// Encodes inputs that the caches have admitted.
    fn encode(&mut self, inputs: Vec<Input>) -> Result<(), Broken> {
        let work = Arc::clone(&self.work);
        let task: Task = Arc::new(move |member: Member<'_>| {
            let mut state = lock(&work.members[member.index]);
            let MemberState { cache, encoding, .. } = &mut *state;
            let network = &work.network;
            encode(network, &inputs, &work.exchange, member, (cache, encoding));
        });
        self.team.run(&task)
    }

    /// The encoder's rows of the inputs that were admitted last.
    #[cfg(test)]
    pub(super) fn encoded(&self) -> Vec<f32> {
        self.work.members.iter().flat_map(|member| lock(member).encoding.x.clone()).collect()
    }
}

impl Decoder for TeamDecoder {
    fn admit(&mut self, inputs: &[&Sequence]) -> Result<Vec<EncoderOutputId>, ComputeError> {
        inputs.iter().try_for_each(|input| self.check_input(input))?;
        let mut admitted = Vec::with_capacity(inputs.len());
        for input in inputs {
            let number = self.new_id();
            self.inputs.insert(number);
            self.for_caches(|cache| cache.admit(number, input.ids.len()));
            admitted.push(Input { number, ids: input.ids.clone() });
        }
        let ids: Vec<EncoderOutputId> =
            admitted.iter().map(|input| EncoderOutputId(input.number)).collect();
        let encoded = if admitted.is_empty() { Ok(()) } else { self.encode(admitted) };
        if encoded.is_err() {
            ids.iter().for_each(|&id| self.forget(id));
        }
        Ok(encoded.map(|()| ids)?)
    }

    fn begin(
        &mut self,
        source: EncoderOutputId,
        max_tokens: usize,
    ) -> Result<HypothesisId, ComputeError> {
        let EncoderOutputId(input) = source;
        if !self.inputs.contains(&input) {
            return refuse("there is no such input");
        }
        let network = &self.work.network;
        let positions = network.decoder.embedding.positions(network.width).unwrap_or(usize::MAX);
        let id = self.new_id();
        self.hypotheses
            .insert(id, Hypothesis { input, tokens: 0, max_tokens: max_tokens.min(positions) });
        self.for_caches(|cache| cache.begin(id));
        Ok(HypothesisId(id))
    }

    fn step(
        &mut self,
        next: &[(HypothesisId, u32)],
        logits: &mut Vec<f32>,
    ) -> Result<(), ComputeError> {
        logits.clear();
        let rows: Arc<[StepRow]> = self.rows(next)?.into();
        if rows.is_empty() {
            return Ok(());
        }
        let (work, batch) = (Arc::clone(&self.work), Arc::clone(&rows));
        let task: Task = Arc::new(move |member: Member<'_>| {
            let mut state = lock(&work.members[member.index]);
            let MemberState { cache, stepping, logits, .. } = &mut *state;
            step(&work.network, &batch, &work.exchange, member, (cache, stepping), logits);
        });
        self.team.run(&task)?;
        let parts: Vec<_> = self.work.members.iter().map(lock).collect();
        logits.reserve(rows.len() * self.work.network.output.outputs());
        for (r, row) in rows.iter().enumerate() {
            for part in parts.iter().map(|part| &part.logits) {
                let width = part.len() / rows.len();
                logits.extend_from_slice(&part[r * width..][..width]);
            }
            if let Some(hypothesis) = self.hypotheses.get_mut(&row.hypothesis) {
                hypothesis.tokens += 1;
            }
        }
        Ok(())
    }

    fn reorder(&mut self, beams: &[HypothesisId], from: &[usize]) -> Result<(), ComputeError> {
        if beams.len() != from.len() {
            return refuse("the beams and the beams to continue differ in number");
        }
        let mut moves = Vec::with_capacity(beams.len());
        let mut became = Vec::with_capacity(beams.len());
        for (to, &from) in beams.iter().zip(from) {
            let Some(from) = beams.get(from) else { return refuse("there is no such beam") };
            let (Some(own), Some(held)) =
                (self.hypotheses.get(&to.0), self.hypotheses.get(&from.0))
            else {
                return refuse("there is no such hypothesis");
            };
            became.push((to.0, Hypothesis { max_tokens: own.max_tokens, ..*held }));
            moves.push((to.0, from.0));
        }
        self.hypotheses.extend(became);
        self.for_caches(|cache| cache.reorder(&moves));
        Ok(())
    }

    fn end(&mut self, hypothesis: HypothesisId) {
        if self.hypotheses.remove(&hypothesis.0).is_some() {
            self.for_caches(|cache| cache.end(hypothesis.0));
        }
    }

    fn forget(&mut self, source: EncoderOutputId) {
        if self.inputs.remove(&source.0) {
            self.for_caches(|cache| cache.forget(source.0));
        }
    }
}

impl From<Broken> for ComputeError {
    fn from(_: Broken) -> Self {
        Self::Generation("a thread of the computation has panicked")
    }
}

/// What the team's tasks share. Each member locks its own state only.
#[derive(Debug)]
struct TeamState {
    network: Arc<Seq2SeqNetwork>,
    exchange: Exchange,
    members: Vec<Mutex<MemberState>>,
}

/// What one member keeps from task to task.
#[derive(Debug)]
struct MemberState {
    cache: KvCache,
    encoding: EncodeScratch,
    stepping: StepScratch,
    logits: Vec<f32>,
}

/// A hypothesis: the input that it belongs to, and its length.
#[derive(Debug, Clone, Copy)]
struct Hypothesis {
    input: u32,
    tokens: usize,
    max_tokens: usize,
}

fn refuse<T>(why: &'static str) -> Result<T, ComputeError> {
    Err(ComputeError::Generation(why))
}

#[cfg(test)]
mod tests;
