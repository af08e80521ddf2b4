//! Keys and values that stay: those of the input, and those of the tokens made so far.
//!
//! Each member of the team keeps them for its own heads, packed as its products want them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::kernels::packed::{PANEL, packed_len};
use crate::seq2seq::network::{Heads, Network};

/// Tokens of a block. One panel of keys.
pub(crate) const BLOCK: usize = PANEL;

/// Blocks that are kept for answers to come, at most: allocating them anew costs page faults.
const SPARE_BLOCKS: usize = 64;

/// Tokens of inputs whose room is kept for inputs to come, at most, for the same reason.
const SPARE_TOKENS: usize = 1024;

/// What a member keeps between steps.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The heads that are this member's.
    pub(crate) heads: Range<usize>,
    pub(crate) shape: Shape,
    sources: HashMap<u32, Source>,
    answers: HashMap<u32, Vec<Arc<Block>>>,
    spares: Vec<Arc<Block>>,
    spare_sources: Vec<Vec<f32>>,
    scores: Vec<f32>,
}

/// Sizes of what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    layers: usize,
    /// The member's own heads.
    heads: usize,
    head_width: usize,
}

/// Keys and values of an input: for each layer and head, packed keys, then packed values.
#[derive(Debug)]
pub(crate) struct Source {
    values: Vec<f32>,
    tokens: usize,
    shape: Shape,
}

/// Keys and values of [`BLOCK`] tokens, for all layers. Answers that began alike share blocks.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    values: Vec<f32>,
    shape: Shape,
}

impl Shape {
    fn padded_width(self) -> usize {
        self.head_width.next_multiple_of(PANEL)
    }

    /// Values of a head's keys and values in a block.
    fn of_head(self) -> usize {
        BLOCK * (self.head_width + self.padded_width())
    }

    fn of_block(self) -> usize {
        self.layers * self.heads * self.of_head()
    }
}

impl Cache {
    pub(crate) fn new(network: &Network, member: usize, members: usize) -> Self {
        let Heads { count, width, .. } = network.decoder.heads;
        let heads = count * member / members..count * (member + 1) / members;
        let shape =
            Shape { layers: network.decoder.layers.len(), heads: heads.len(), head_width: width };
        Self {
            heads,
            shape,
            sources: HashMap::new(),
            answers: HashMap::new(),
            spares: Vec::new(),
            spare_sources: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Room for the keys and values of an input.
    pub(crate) fn admit(&mut self, id: u32, tokens: usize) {
        let mut source = Source { values: Vec::new(), tokens, shape: self.shape };
        let len = source.len();
        // None that is much too long: a short input would hold it for as long as it is answered.
        let fits = |at: &usize| (len..=2 * len).contains(&self.spare_sources[*at].capacity());
        let fitting = (0..self.spare_sources.len()).filter(fits);
        let closest = fitting.min_by_key(|&at| self.spare_sources[at].capacity());
        match closest.map(|at| self.spare_sources.remove(at)) {
            Some(mut spare) => {
                // What is left in it is written over, or belongs to no token.
                spare.resize(len, 0.0);
                source.values = spare;
            }
            None => source.values = vec![0.0; len],
        }
        self.sources.insert(id, source);
    }

    pub(crate) fn forget(&mut self, id: u32) {
        let Some(source) = self.sources.remove(&id) else { return };
        self.spare_sources.push(source.values);
        // The oldest go: inputs of their length came longest ago.
        let most = Source { values: Vec::new(), tokens: SPARE_TOKENS, shape: self.shape }.len();
        let mut kept: usize = self.spare_sources.iter().map(Vec::capacity).sum();
        self.spare_sources.retain(|spare| {
            let is_kept = kept <= most && spare.capacity() > 0;
            kept -= if is_kept { 0 } else { spare.capacity() };
            is_kept
        });
    }

    pub(crate) fn source_mut(&mut self, id: u32) -> Option<&mut Source> {
        self.sources.get_mut(&id)
    }

    pub(crate) fn begin(&mut self, id: u32) {
        self.answers.insert(id, Vec::new());
    }

    pub(crate) fn end(&mut self, id: u32) {
        for block in self.answers.remove(&id).into_iter().flatten() {
            self.spare(block);
        }
    }

    /// Afterwards each of these answers holds what the other one held before.
    pub(crate) fn reorder(&mut self, moves: &[(u32, u32)]) {
        let before: Vec<_> =
            moves.iter().map(|(_, from)| self.answers.get(from).cloned()).collect();
        for ((to, _), blocks) in moves.iter().zip(before) {
            let left = self.answers.insert(*to, blocks.unwrap_or_default());
            for block in left.into_iter().flatten() {
                self.spare(block);
            }
        }
    }

    /// Makes room for the token of an answer at this position, that of nobody else.
    pub(crate) fn prepare(&mut self, answer: u32, position: usize) {
        let blocks = self.answers.entry(answer).or_default();
        if blocks.len() <= position / BLOCK {
            let spare = self.spares.pop();
            blocks.push(spare.unwrap_or_else(|| Arc::new(Block::new(self.shape))));
        }
        if let Some(last) = blocks.last_mut() {
            // Copied where another answer holds it too.
            Arc::make_mut(last);
        }
    }

    /// The blocks of an answer that was [prepared](Self::prepare), and room for scores.
    pub(crate) fn answer(&mut self, id: u32) -> Option<(&mut [Arc<Block>], &mut Vec<f32>)> {
        self.answers.get_mut(&id).map(|blocks| (blocks.as_mut_slice(), &mut self.scores))
    }

    /// An input, and room for scores.
    pub(crate) fn source(&mut self, id: u32) -> Option<(&Source, &mut Vec<f32>)> {
        self.sources.get(&id).map(|source| (source, &mut self.scores))
    }

    /// How many rooms of inputs are kept.
    #[cfg(test)]
    pub(crate) fn spare_rooms(&self) -> usize {
        self.spare_sources.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.answers.is_empty()
    }

    fn spare(&mut self, block: Arc<Block>) {
        if self.spares.len() < SPARE_BLOCKS && Arc::strong_count(&block) == 1 {
            self.spares.push(block);
        }
    }
}

impl Source {
    /// Values for all layers.
    fn len(&self) -> usize {
        self.shape.layers * self.shape.heads * self.of_head()
    }

    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    fn key_len(&self) -> usize {
        packed_len(self.shape.head_width, self.tokens)
    }

    fn of_head(&self) -> usize {
        self.key_len() + packed_len(self.tokens, self.shape.head_width)
    }

    /// Packed keys and values of one of the member's heads. Both go on with what is read next.
    pub(crate) fn head(&self, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let at = (layer * self.shape.heads + head) * self.of_head();
        (&self.values[at..], &self.values[at + self.key_len()..])
    }

    /// The same, each by itself, to be written.
    pub(crate) fn head_mut(&mut self, layer: usize, head: usize) -> (&mut [f32], &mut [f32]) {
        let (len, keys) = (self.of_head(), self.key_len());
        let at = (layer * self.shape.heads + head) * len;
        self.values[at..][..len].split_at_mut(keys)
    }
}

impl Block {
    fn new(shape: Shape) -> Self {
        Self { values: vec![0.0; shape.of_block()], shape }
    }

    /// Keys and values of one of the member's heads: one panel of keys, and for each panel of the
    /// head's values as many rows as the block has tokens. Both go on to the end of the block, so that
    /// what is read next can be asked for.
    pub(crate) fn head(&self, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let at = (layer * self.shape.heads + head) * self.shape.of_head();
        (&self.values[at..], &self.values[at + BLOCK * self.shape.head_width..])
    }

    /// The same, each by itself, to be written.
    pub(crate) fn head_mut(&mut self, layer: usize, head: usize) -> (&mut [f32], &mut [f32]) {
        let len = self.shape.of_head();
        let at = (layer * self.shape.heads + head) * len;
        self.values[at..][..len].split_at_mut(BLOCK * self.shape.head_width)
    }
}
