//! The head of a masked language model: from the row of a mask to a score for each token.

use std::ops::Range;

use candle_core::{Result as TensorResult, Tensor};

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::head_names::MaskHeadNames;
use crate::encoder::network::Network;
use crate::encoder::workspace::{Workspace, view};
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::spans::span_means;
use crate::layers::table_product::TableProduct;

/// A dense layer, a norm, and the product with a row for each token of the vocabulary.
#[derive(Debug)]
pub(super) struct MaskHead {
    dense: Linear,
    norm: Norm,
    scores: TableProduct,
}

impl MaskHead {
    /// Reads the head of `network`. `is_tied`: its output matrix is the token table.
    pub(super) fn read(
        reader: &mut TensorReader<'_>,
        names: MaskHeadNames,
        network: &Network,
        is_tied: bool,
    ) -> Result<Self, LoadError> {
        // The dense layer writes rows as wide as the token table's, which may be narrower than its input.
        let (hidden, width) = (network.widths.hidden, network.widths.embedding);
        let tokens = &network.embedding.tokens;
        let vocabulary = tokens.elem_count() / width;
        let table = if is_tied {
            tokens.clone()
        } else {
            reader.tensor(names.decoder, &[vocabulary, width])?
        };
        let mut bias = None;
        if let Some(name) = names.bias {
            // A separate matrix may have a bias of its own; the other one is then unused.
            let own = names.decoder.replace(".weight", ".bias");
            let name = if !is_tied && reader.contains(&own) { own.as_str() } else { name };
            bias = Some(reader.tensor(name, &[vocabulary])?);
        }
        let dense = &[(names.dense.to_owned(), width)];
        let norm = names.norm;
        Ok(Self {
            dense: reader.linear(dense, hidden, names.dense_bias, names.activation)?,
            norm: reader.layer_norm(norm.name, width, norm.bias, norm.epsilon)?,
            scores: TableProduct { table, bias },
        })
    }

    /// Scores of all tokens for some rows of `hidden`, in the workspace: `[rows, vocabulary]`.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        rows: &[Range<usize>],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let (count, read, width) = (rows.len(), hidden.dim(1)?, self.dense.outputs());
        let vocabulary = self.scores.table.dim(0)?;
        let buffers = workspace.buffers(count, [read, width, vocabulary], hidden.device())?;
        let masks = view(&buffers[0], count, read)?;
        let inner = view(&buffers[1], count, width)?;
        let scores = view(&buffers[2], count, vocabulary)?;
        span_means(hidden, rows, &masks)?;
        self.dense.forward(&masks, &inner)?;
        self.norm.apply(&inner)?;
        self.scores.forward(&inner, &scores)?;
        Ok(scores)
    }
}
