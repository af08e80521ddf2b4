//! The block that BERT brought, under whatever names: attention and feed-forward, each added to
//! what it read and normalised together with it.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::network::{Block, FeedForward, Norms, SelfAttention, Widths};
use crate::layers::activation::Activation;
use crate::layers::attention::Attention;

/// Its sizes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostNorm {
    pub(crate) width: usize,
    /// Divides `width`.
    pub(crate) heads: usize,
    pub(crate) inner: usize,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
}

/// What a file calls its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) qkv: [&'static str; 3],
    pub(crate) attended: &'static str,
    pub(crate) attended_norm: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) norm: &'static str,
}

impl PostNorm {
    pub(crate) fn widths(&self) -> Widths {
        let (hidden, inner) = (self.width, self.inner);
        Widths { hidden, qkv: 3 * hidden, context: hidden, inner, gated: false }
    }

    /// Reads the blocks `{stem}.0` to `{stem}.{count - 1}`.
    pub(crate) fn blocks(
        &self,
        reader: &mut Reader<'_>,
        stem: &str,
        count: usize,
        names: Names,
    ) -> Result<Vec<Block>, LoadError> {
        (0..count).map(|i| self.block(reader, &format!("{stem}.{i}"), names)).collect()
    }

    fn block(
        &self,
        reader: &mut Reader<'_>,
        block: &str,
        names: Names,
    ) -> Result<Block, LoadError> {
        let Self { width, heads, inner, activation, epsilon } = *self;
        let mut linear = |parts: &[&str], inputs, outputs, activation| {
            let parts: Vec<_> =
                parts.iter().map(|part| (format!("{block}.{part}"), outputs)).collect();
            reader.linear(&parts, inputs, Bias::Each, activation)
        };
        let attention = SelfAttention {
            qkv: linear(&names.qkv, width, width, Activation::None)?,
            head_norm: None,
            rotary: None,
            shape: Attention::full(heads, width / heads),
            output: linear(&[names.attended], width, width, Activation::None)?,
        };
        let feed = FeedForward {
            up: linear(&[names.up], width, inner, activation)?,
            gate: None,
            down: linear(&[names.down], inner, width, Activation::None)?,
        };
        let mut norm =
            |part: &str| reader.layer_norm(&format!("{block}.{part}"), width, Bias::Each, epsilon);
        let norms = Norms::After { attention: norm(names.attended_norm)?, feed: norm(names.norm)? };
        Ok(Block { attention, feed, norms })
    }
}
