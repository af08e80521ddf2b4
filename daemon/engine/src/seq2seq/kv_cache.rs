//! The keys and values of inputs and of hypotheses, kept from step to step.
//!
//! Each member of the team keeps those of its own heads, packed as its products need them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::kernels::panels::{PANEL, packed_len};
use crate::seq2seq::network::{AttentionHeads, Seq2SeqNetwork};

/// Tokens of a block: one panel of keys.
pub(super) const BLOCK: usize = PANEL;

/// The most unused blocks that are kept for later hypotheses: new allocations cost page faults.
const SPARE_BLOCKS: usize = 64;

/// The most unused memory that is kept for later inputs, in tokens; for the same reason.
const SPARE_TOKENS: usize = 1024;

/// One member's keys and values.
#[derive(Debug)]
pub(super) struct KvCache {
    /// The heads of this member, among those of the decoder.
    pub(super) heads: Range<usize>,
    pub(super) shape: KvShape,
    inputs: HashMap<u32, InputKv>,
    hypotheses: HashMap<u32, Vec<Arc<KvBlock>>>,
    spares: Vec<Arc<KvBlock>>,
    spare_inputs: Vec<Vec<f32>>,
    scores: Vec<f32>,
}

/// The sizes of a member's keys and values.
#[derive(Debug, Clone, Copy)]
pub(super) struct KvShape {
    layers: usize,
    /// Heads of this member.
    heads: usize,
    head_width: usize,
}

/// Keys and values of an input: packed keys and then packed values, for each layer and head.
#[derive(Debug)]
pub(super) struct InputKv {
    values: Vec<f32>,
    tokens: usize,
    shape: KvShape,
}

/// Keys and values of [`BLOCK`] tokens, for all layers. Hypotheses with a common beginning share
/// blocks.
#[derive(Debug, Clone)]
pub(super) struct KvBlock {
    values: Vec<f32>,
    shape: KvShape,
}

impl KvShape {
    fn padded_width(self) -> usize {
        self.head_width.next_multiple_of(PANEL)
    }

    /// Length of one head's keys and values in a block.
    fn of_head(self) -> usize {
        BLOCK * (self.head_width + self.padded_width())
    }

    fn of_block(self) -> usize {
        self.layers * self.heads * self.of_head()
    }
}

impl KvCache {
    pub(super) fn new(network: &Seq2SeqNetwork, member: usize, members: usize) -> Self {
        let AttentionHeads { count, width, .. } = network.decoder.heads;
        let heads = count * member / members..count * (member + 1) / members;
        let shape =
            KvShape { layers: network.decoder.layers.len(), heads: heads.len(), head_width: width };
        Self {
            heads,
            shape,
            inputs: HashMap::new(),
            hypotheses: HashMap::new(),
            spares: Vec::new(),
            spare_inputs: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Allocates the keys and values of an input.
    pub(super) fn admit(&mut self, id: u32, tokens: usize) {
        let mut input = InputKv { values: Vec::new(), tokens, shape: self.shape };
        let len = input.len();
        // At most twice as long: a short input would keep a long allocation busy.
        let fits = |at: &usize| (len..=2 * len).contains(&self.spare_inputs[*at].capacity());
        let fitting = (0..self.spare_inputs.len()).filter(fits);
        let closest = fitting.min_by_key(|&at| self.spare_inputs[at].capacity());
        match closest.map(|at| self.spare_inputs.remove(at)) {
            Some(mut spare) => {
                // Old values are overwritten, or belong to no token.
                spare.resize(len, 0.0);
                input.values = spare;
            }
            None => input.values = vec![0.0; len],
        }
        self.inputs.insert(id, input);
    }

    /// Drops an input; its memory may serve a later one.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(input) = self.inputs.remove(&id) else { return };
        self.spare_inputs.push(input.values);
        // The oldest are freed first: inputs of their length came longest ago.
        let most = InputKv { values: Vec::new(), tokens: SPARE_TOKENS, shape: self.shape }.len();
        let mut kept: usize = self.spare_inputs.iter().map(Vec::capacity).sum();
        self.spare_inputs.retain(|spare| {
            let is_kept = kept <= most && spare.capacity() > 0;
            kept -= if is_kept { 0 } else { spare.capacity() };
            is_kept
        });
    }

    /// An input, to be filled.
    pub(super) fn input_mut(&mut self, id: u32) -> Option<&mut InputKv> {
        self.inputs.get_mut(&id)
    }

    /// Adds a hypothesis without tokens.
    pub(super) fn begin(&mut self, id: u32) {
        self.hypotheses.insert(id, Vec::new());
    }

    /// Drops a hypothesis.
    pub(super) fn end(&mut self, id: u32) {
        for block in self.hypotheses.remove(&id).into_iter().flatten() {
            self.spare(block);
        }
    }

    /// For each pair `(to, from)`, `to` becomes what `from` was before the call.
    pub(super) fn reorder(&mut self, moves: &[(u32, u32)]) {
        let before: Vec<_> =
            moves.iter().map(|(_, from)| self.hypotheses.get(from).cloned()).collect();
        for ((to, _), blocks) in moves.iter().zip(before) {
            let left = self.hypotheses.insert(*to, blocks.unwrap_or_default());
            for block in left.into_iter().flatten() {
                self.spare(block);
            }
        }
    }

    /// Makes the block of a hypothesis at this position writable, and adds it if it is new.
    pub(super) fn prepare(&mut self, hypothesis: u32, position: usize) {
        let blocks = self.hypotheses.entry(hypothesis).or_default();
        if blocks.len() <= position / BLOCK {
            let spare = self.spares.pop();
            blocks.push(spare.unwrap_or_else(|| Arc::new(KvBlock::new(self.shape))));
        }
        if let Some(last) = blocks.last_mut() {
            // Copies the block if another hypothesis shares it.
            Arc::make_mut(last);
        }
    }

    /// The blocks of a [prepared](Self::prepare) hypothesis, and a buffer for scores.
    pub(super) fn hypothesis(&mut self, id: u32) -> Option<(&mut [Arc<KvBlock>], &mut Vec<f32>)> {
        self.hypotheses.get_mut(&id).map(|blocks| (blocks.as_mut_slice(), &mut self.scores))
    }

    /// An input, and a buffer for scores.
    pub(super) fn input(&mut self, id: u32) -> Option<(&InputKv, &mut Vec<f32>)> {
        self.inputs.get(&id).map(|input| (input, &mut self.scores))
    }

    /// How many allocations are kept for later inputs.
    #[cfg(test)]
    pub(super) fn spare_inputs_kept(&self) -> usize {
        self.spare_inputs.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.hypotheses.is_empty()
    }

    fn spare(&mut self, block: Arc<KvBlock>) {
        if self.spares.len() < SPARE_BLOCKS && Arc::strong_count(&block) == 1 {
            self.spares.push(block);
        }
    }
}

impl InputKv {
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Packed keys and values of one of the member's heads. Both slices extend beyond the head, to what
    /// is read next, so that it can be prefetched.
    pub(super) fn head(&self, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let at = (layer * self.shape.heads + head) * self.of_head();
        (&self.values[at..], &self.values[at + self.key_len()..])
    }

    /// The same without what follows, to be written.
    pub(super) fn head_mut(&mut self, layer: usize, head: usize) -> (&mut [f32], &mut [f32]) {
        let (len, keys) = (self.of_head(), self.key_len());
        let at = (layer * self.shape.heads + head) * len;
        self.values[at..][..len].split_at_mut(keys)
    }

    /// Length of all keys and values.
    fn len(&self) -> usize {
        self.shape.layers * self.shape.heads * self.of_head()
    }

    fn key_len(&self) -> usize {
        packed_len(self.shape.head_width, self.tokens)
    }

    fn of_head(&self) -> usize {
        self.key_len() + packed_len(self.tokens, self.shape.head_width)
    }
}

impl KvBlock {
    /// Keys and values of one of the member's heads: one panel of keys, and [`BLOCK`] rows for each panel
    /// of values. Both slices extend to the end of the block, so that what is read next can be
    /// prefetched.
    pub(super) fn head(&self, layer: usize, head: usize) -> (&[f32], &[f32]) {
        let at = (layer * self.shape.heads + head) * self.shape.of_head();
        (&self.values[at..], &self.values[at + BLOCK * self.shape.head_width..])
    }

    /// The same without what follows, to be written.
    pub(super) fn head_mut(&mut self, layer: usize, head: usize) -> (&mut [f32], &mut [f32]) {
        let len = self.shape.of_head();
        let at = (layer * self.shape.heads + head) * len;
        self.values[at..][..len].split_at_mut(BLOCK * self.shape.head_width)
    }

    fn new(shape: KvShape) -> Self {
        Self { values: vec![0.0; shape.of_block()], shape }
    }
}
