//! Sequence classification: from token rows to a logit for each label.

use std::ops::Range;

use candle_core::{Result as TensorResult, Tensor};

use crate::api::sequence::Sequence;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::head_names::{ClassifierNames, ClassifierPooling};
use crate::encoder::workspace::{Workspace, view};
use crate::layers::activation::Activation;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::spans::span_means;

/// A classification head: from token rows to the logits of the labels.
#[derive(Debug)]
pub(crate) struct Classifier {
    pooling: ClassifierPooling,
    dense: Linear,
    norm: Option<Norm>,
    output: Linear,
    pub(super) weight_bytes: u64,
}

impl Classifier {
    pub(super) fn read(
        reader: &mut TensorReader<'_>,
        names: ClassifierNames,
        width: usize,
        labels: usize,
    ) -> Result<Self, LoadError> {
        let dense = &[(names.dense.to_owned(), width)];
        let output = &[(names.output.to_owned(), labels)];
        let mut norm = None;
        if let Some(names) = names.norm {
            norm = Some(reader.layer_norm(names.name, width, names.bias, names.epsilon)?);
        }
        Ok(Self {
            pooling: names.pooling,
            dense: reader.linear(dense, width, names.dense_bias, names.activation)?,
            norm,
            output: reader.linear(output, width, true.into(), Activation::None)?,
            weight_bytes: 0,
        })
    }

    /// The logits of each packed sequence, in the workspace: `[sequences, labels]`.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        batch: &[&Sequence],
        workspace: &mut Workspace,
    ) -> TensorResult<Tensor> {
        let (count, width, labels) = (batch.len(), self.dense.outputs(), self.output.outputs());
        let buffers = workspace.buffers(count, [width, width, labels], hidden.device())?;
        let pooled = view(&buffers[0], count, width)?;
        let inner = view(&buffers[1], count, width)?;
        let values = view(&buffers[2], count, labels)?;
        let mut end = 0;
        let span = |sequence: &&Sequence| -> Range<usize> {
            let start = end;
            end += sequence.ids.len();
            match self.pooling {
                ClassifierPooling::First => start..end.min(start + 1),
                ClassifierPooling::Mean => start..end,
            }
        };
        let spans: Vec<Range<usize>> = batch.iter().map(span).collect();
        span_means(hidden, &spans, &pooled)?;
        self.dense.forward(&pooled, &inner)?;
        if let Some(norm) = &self.norm {
            norm.apply(&inner)?;
        }
        self.output.forward(&inner, &values)?;
        Ok(values)
    }
}
