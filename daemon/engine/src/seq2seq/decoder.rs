//! The state of one computation: what was admitted, what was begun, and the team that computes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::{Arc, Mutex};

use crate::api::embedding::{ComputeError, Sequence};
use crate::api::generation::{Decoder, EncoderOutputId, HypothesisId};
use crate::kernels::team::lock;
use crate::kernels::team::{Broken, Member, Task, Team};
use crate::seq2seq::encode;
use crate::seq2seq::encode::{Input, encode};
use crate::seq2seq::exchange::Exchange;
use crate::seq2seq::kv_cache::Cache;
use crate::seq2seq::model::EncoderDecoder;
use crate::seq2seq::step;
use crate::seq2seq::step::{Row, step};

/// What the team works on. Each member has a state of its own, locked by nobody else meanwhile.
#[derive(Debug)]
struct Workplace {
    model: Arc<EncoderDecoder>,
    exchange: Exchange,
    members: Vec<Mutex<MemberState>>,
}

#[derive(Debug)]
pub(crate) struct MemberState {
    cache: Cache,
    encoding: encode::Scratch,
    stepping: step::Scratch,
    logits: Vec<f32>,
}

/// An answer in the making.
#[derive(Debug, Clone, Copy)]
struct Answer {
    source: u32,
    tokens: usize,
    max_tokens: usize,
}

/// See [`Decoder`].
#[derive(Debug)]
pub(crate) struct NetworkDecoder {
    work: Arc<Workplace>,
    team: Team,
    /// The inputs that are there.
    sources: BTreeSet<u32>,
    answers: BTreeMap<u32, Answer>,
    /// The next number to give out.
    next: u32,
}

impl From<Broken> for ComputeError {
    fn from(_: Broken) -> Self {
        Self::Generation("a thread of the computation panicked before")
    }
}

fn refuse<T>(why: &'static str) -> Result<T, ComputeError> {
    Err(ComputeError::Generation(why))
}

impl NetworkDecoder {
    pub(crate) fn new(model: Arc<EncoderDecoder>, threads: usize) -> io::Result<Self> {
        let team = Team::start(threads)?;
        let state = |index| {
            Mutex::new(MemberState {
                cache: Cache::new(&model.network, index, team.count()),
                encoding: encode::Scratch::default(),
                stepping: step::Scratch::default(),
                logits: Vec::new(),
            })
        };
        let members = (0..team.count()).map(state).collect();
        let exchange = Exchange::new(team.count());
        Ok(Self {
            work: Arc::new(Workplace { model, exchange, members }),
            team,
            sources: BTreeSet::new(),
            answers: BTreeMap::new(),
            next: 0,
        })
    }

    /// Does something with the cache of every member.
    fn for_caches(&self, mut change: impl FnMut(&mut Cache)) {
        self.work.members.iter().for_each(|member| change(&mut lock(member).cache));
    }

    /// A number that neither an input nor an answer has.
    fn new_id(&mut self) -> u32 {
        loop {
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.sources.contains(&id) && !self.answers.contains_key(&id) {
                return id;
            }
        }
    }

    fn check_input(&self, input: &Sequence) -> Result<(), ComputeError> {
        let embedding = &self.work.model.network.encoder.embedding;
        let width = self.work.model.network.width;
        if input.ids.is_empty() {
            return refuse("an input without tokens");
        }
        if embedding.reach(width).is_some_and(|reach| input.ids.len() > reach) {
            return refuse("an input is longer than the model reads");
        }
        if input.ids.iter().any(|&id| id as usize >= embedding.tokens.len()) {
            return refuse("an input has a token beyond the vocabulary of the weights");
        }
        Ok(())
    }

    fn rows(&self, next: &[(HypothesisId, u32)]) -> Result<Vec<Row>, ComputeError> {
        let mut seen = HashSet::with_capacity(next.len());
        let vocabulary = self.work.model.network.decoder.embedding.tokens.len();
        let row = |&(HypothesisId(id), token): &(HypothesisId, u32)| {
            let Some(answer) = self.answers.get(&id) else {
                return refuse("there is no such answer");
            };
            if !self.sources.contains(&answer.source) {
                return refuse("the answer's input was forgotten");
            }
            if answer.tokens >= answer.max_tokens {
                return refuse("the answer is full");
            }
            if token as usize >= vocabulary {
                return refuse("a token beyond the vocabulary of the weights");
            }
            if !seen.insert(id) {
                return refuse("an answer stands twice in one step");
            }
            Ok(Row { answer: id, source: answer.source, token, position: answer.tokens })
        };
        next.iter().map(row).collect()
    }

    /// Encodes what has its place in the caches already.
    fn encode(&mut self, inputs: Vec<Input>) -> Result<(), Broken> {
        let work = Arc::clone(&self.work);
        let task: Task = Arc::new(move |member: Member<'_>| {
            let mut state = lock(&work.members[member.index]);
            let MemberState { cache, encoding, .. } = &mut *state;
            let network = &work.model.network;
            encode(network, &inputs, &work.exchange, member, (cache, encoding));
        });
        self.team.run(&task)
    }

    /// The last rows of the encoder, of all inputs that were admitted last.
    #[cfg(test)]
    pub(crate) fn encoded(&self) -> Vec<f32> {
        self.work.members.iter().flat_map(|member| lock(member).encoding.x.clone()).collect()
    }
}

impl Decoder for NetworkDecoder {
    fn admit(&mut self, inputs: &[&Sequence]) -> Result<Vec<EncoderOutputId>, ComputeError> {
        inputs.iter().try_for_each(|input| self.check_input(input))?;
        let mut admitted = Vec::with_capacity(inputs.len());
        for input in inputs {
            let source = self.new_id();
            self.sources.insert(source);
            self.for_caches(|cache| cache.admit(source, input.ids.len()));
            admitted.push(Input { source, ids: input.ids.clone() });
        }
        let ids: Vec<EncoderOutputId> =
            admitted.iter().map(|input| EncoderOutputId(input.source)).collect();
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
        let EncoderOutputId(source) = source;
        if !self.sources.contains(&source) {
            return refuse("there is no such input");
        }
        let network = &self.work.model.network;
        let reach = network.decoder.embedding.reach(network.width).unwrap_or(usize::MAX);
        let id = self.new_id();
        self.answers.insert(id, Answer { source, tokens: 0, max_tokens: max_tokens.min(reach) });
        self.for_caches(|cache| cache.begin(id));
        Ok(HypothesisId(id))
    }

    fn step(
        &mut self,
        next: &[(HypothesisId, u32)],
        logits: &mut Vec<f32>,
    ) -> Result<(), ComputeError> {
        logits.clear();
        let rows: Arc<[Row]> = self.rows(next)?.into();
        if rows.is_empty() {
            return Ok(());
        }
        let (work, batch) = (Arc::clone(&self.work), Arc::clone(&rows));
        let task: Task = Arc::new(move |member: Member<'_>| {
            let mut state = lock(&work.members[member.index]);
            let MemberState { cache, stepping, logits, .. } = &mut *state;
            step(&work.model.network, &batch, &work.exchange, member, (cache, stepping), logits);
        });
        self.team.run(&task)?;
        let parts: Vec<_> = self.work.members.iter().map(lock).collect();
        logits.reserve(rows.len() * self.work.model.network.output.outputs());
        for (r, row) in rows.iter().enumerate() {
            for part in parts.iter().map(|part| &part.logits) {
                let width = part.len() / rows.len();
                logits.extend_from_slice(&part[r * width..][..width]);
            }
            if let Some(answer) = self.answers.get_mut(&row.answer) {
                answer.tokens += 1;
            }
        }
        Ok(())
    }

    fn reorder(&mut self, beams: &[HypothesisId], from: &[usize]) -> Result<(), ComputeError> {
        if beams.len() != from.len() {
            return refuse("beams and what they become are not as many");
        }
        let mut moves = Vec::with_capacity(beams.len());
        let mut became = Vec::with_capacity(beams.len());
        for (to, &from) in beams.iter().zip(from) {
            let Some(from) = beams.get(from) else { return refuse("there is no such beam") };
            let (Some(own), Some(held)) = (self.answers.get(&to.0), self.answers.get(&from.0))
            else {
                return refuse("there is no such answer");
            };
            became.push((to.0, Answer { max_tokens: own.max_tokens, ..*held }));
            moves.push((to.0, from.0));
        }
        self.answers.extend(became);
        self.for_caches(|cache| cache.reorder(&moves));
        Ok(())
    }

    fn end(&mut self, hypothesis: HypothesisId) {
        if self.answers.remove(&hypothesis.0).is_some() {
            self.for_caches(|cache| cache.end(hypothesis.0));
        }
    }

    fn forget(&mut self, source: EncoderOutputId) {
        if self.sources.remove(&source.0) {
            self.for_caches(|cache| cache.forget(source.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use safetensors::SafeTensors;

    use super::NetworkDecoder;
    use crate::api::embedding::Sequence;
    use crate::api::generation::{Decoder, Seq2SeqModel};
    use crate::seq2seq::files::Files;
    use crate::seq2seq::model::{EncoderDecoder, load};

    fn data(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
    }

    fn model(name: &str) -> Arc<EncoderDecoder> {
        Arc::new(load(&Files::open(&data(name)).unwrap()).unwrap())
    }

    fn json(path: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(data(path)).unwrap()).unwrap()
    }

    /// The last rows of the encoder are those of transformers, alone and packed with others.
    #[test]
    fn encoded_rows_are_those_of_the_reference() {
        let texts = json("texts.json");
        for name in ["t5-relu-tied", "flan-t5-gated-untied", "mt5", "bart", "marian"] {
            let model = model(name);
            let prefix = json(&format!("expected/{name}.json"))["prefix"].clone();
            let bytes = std::fs::read(data(&format!("expected/{name}.safetensors"))).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let want = |i: usize| -> Vec<f32> {
                let tensor = tensors.tensor(&format!("encoder_last_hidden_state.{i}")).unwrap();
                tensor.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
            };
            let input = |i: usize| {
                let text = texts[i]["text"].as_str().unwrap();
                model.encode(&format!("{}{text}", prefix.as_str().unwrap()), 64).unwrap()
            };
            let (one, five) = (input(1), input(5));
            for threads in [1, 2, 4] {
                let mut decoder = NetworkDecoder::new(Arc::clone(&model), threads).unwrap();
                for (inputs, want) in [
                    (vec![&one], want(1)),
                    (vec![&five], want(5)),
                    (vec![&one, &five, &one], [want(1), want(5), want(1)].concat()),
                    // More tokens for each member than go through a layer at once.
                    (vec![&five; 40], want(5).repeat(40)),
                ] {
                    decoder.admit(&inputs).unwrap();
                    let got = decoder.encoded();
                    assert_eq!(got.len(), want.len());
                    let scale = want.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
                    for (got, want) in got.iter().zip(&want) {
                        assert!((got - want).abs() < 1e-5 * scale, "{name}: {got} is not {want}");
                    }
                }
            }
        }
    }

    /// The logits after the first token.
    fn first_logits(decoder: &mut NetworkDecoder, input: &Sequence) -> Vec<f32> {
        let source = decoder.admit(&[input]).unwrap()[0];
        let answer = decoder.begin(source, 10).unwrap();
        let mut logits = Vec::new();
        decoder.step(&[(answer, 0)], &mut logits).unwrap();
        decoder.end(answer);
        decoder.forget(source);
        logits
    }

    /// Room that another input left is used as if it were new, whatever is left in it.
    #[test]
    fn an_input_in_the_room_of_a_longer_one_is_answered_as_in_a_new_one() {
        let model = model("mt5");
        let new = |input: &Sequence| {
            first_logits(&mut NetworkDecoder::new(Arc::clone(&model), 2).unwrap(), input)
        };
        let sequence = |tokens: u32| Sequence {
            ids: (0..tokens).map(|t| 3 + t * 7 % 50).collect(),
            ..Sequence::default()
        };
        let (long, short) = (sequence(47), sequence(33));
        let mut decoder = NetworkDecoder::new(Arc::clone(&model), 2).unwrap();
        first_logits(&mut decoder, &long);
        decoder.for_caches(|cache| assert_eq!(cache.spare_rooms(), 1));
        assert_eq!(first_logits(&mut decoder, &short), new(&short));
        decoder.for_caches(|cache| assert_eq!(cache.spare_rooms(), 1));
        // One that is much shorter gets its own, and what is kept stays bounded.
        assert_eq!(first_logits(&mut decoder, &sequence(3)), new(&sequence(3)));
        decoder.for_caches(|cache| assert_eq!(cache.spare_rooms(), 2));
        for tokens in [400, 401, 402, 1500] {
            let input = sequence(tokens);
            assert_eq!(first_logits(&mut decoder, &input), new(&input));
        }
        decoder.for_caches(|cache| assert_eq!(cache.spare_rooms(), 0));
    }

    /// What was given up leaves nothing behind but what is kept for the next.
    #[test]
    fn numbers_that_were_given_up_hold_nothing() {
        let model = model("mt5");
        let input = model.encode("a text", 64).unwrap();
        let mut decoder = NetworkDecoder::new(model, 2).unwrap();
        for _ in 0..3 {
            let source = decoder.admit(&[&input]).unwrap()[0];
            let answer = decoder.begin(source, 10).unwrap();
            decoder.step(&[(answer, 0)], &mut Vec::new()).unwrap();
            decoder.end(answer);
            decoder.forget(source);
        }
        decoder.for_caches(|cache| assert!(cache.is_empty()));
        assert!(decoder.sources.is_empty() && decoder.answers.is_empty());
    }
}
