//! Reads the tensors of a network by name and keeps account of them.
//!
//! Both families of networks read their weights here. How tensors become candle layers is in
//! [`layer_reader`](crate::checkpoint::layer_reader); an encoder-decoder packs its matrices itself.

use std::collections::BTreeSet;

use candle_core::Device;

use crate::api::weight_type::WeightType;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::weights::Weights;

/// Reads the tensors of one model.
#[derive(Debug)]
pub(crate) struct TensorReader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    /// The type in which matrices and token tables are held.
    held_as: WeightType,
    /// Precedes the encoder's names in a file that was saved with a head around the encoder.
    prefix: &'static str,
    /// One matrix, or some rows of it, before it is packed.
    buffer: Vec<f32>,
    bytes_held: u64,
    names_read: BTreeSet<String>,
}

impl<'a> TensorReader<'a> {
    /// A reader that holds everything as `f32`.
    pub(crate) fn new(weights: &'a Weights, device: &'a Device) -> Self {
        Self {
            weights,
            device,
            held_as: WeightType::F32,
            prefix: "",
            buffer: Vec::new(),
            bytes_held: 0,
            names_read: BTreeSet::new(),
        }
    }

    /// The same, with matrices and token tables held as another type. A GPU holds `f32` in any case.
    pub(crate) fn holding(self, held_as: WeightType) -> Self {
        let held_as = if self.device.is_cpu() { held_as } else { WeightType::F32 };
        Self { held_as, ..self }
    }

    /// Puts a prefix in front of all later names: the first of `prefixes` under which the file has
    /// `tensor`, or none.
    pub(crate) fn enter(&mut self, prefixes: &[&'static str], tensor: &str) {
        let is_there = |prefix: &&&str| self.weights.contains(&format!("{prefix}{tensor}"));
        self.prefix = prefixes.iter().find(is_there).copied().unwrap_or_default();
    }

    /// From here on names have no prefix.
    pub(crate) fn leave(&mut self) {
        self.prefix = "";
    }

    /// Whether the file has the tensor.
    pub(crate) fn contains(&self, tensor: &str) -> bool {
        self.weights.contains(&format!("{}{tensor}", self.prefix))
    }

    /// The first of `names` that the file has. If it has none of them, the first one, so that
    /// reading it names the missing tensor.
    pub(crate) fn first_of<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().find(|name| self.contains(name)).unwrap_or(&names[0])
    }

    /// Bytes in memory of all tensors read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_held
    }

    /// All values of a tensor, row-major, as `f32`.
    pub(crate) fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let name = self.full_name(name);
        let mut values = Vec::new();
        self.weights.read(&name, shape, &mut values)?;
        self.note(name, values.len(), WeightType::F32);
        Ok(values)
    }

    /// All values of a matrix, in a buffer that the next matrix reuses.
    pub(crate) fn matrix_values(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<&[f32], LoadError> {
        let name = self.full_name(name);
        self.weights.read(&name, shape, &mut self.buffer)?;
        self.note(name, self.buffer.len(), self.held_as);
        Ok(&self.buffer)
    }

    /// Hands a large tensor of two dimensions to `take` in pieces of whole rows, each with the index
    /// of its first row: the tensor never lies in memory as a whole.
    pub(crate) fn for_rows(
        &mut self,
        name: &str,
        [rows, width]: [usize; 2],
        mut take: impl FnMut(usize, &[f32]),
    ) -> Result<(), LoadError> {
        let name = self.full_name(name);
        let at_once = (VALUES_AT_ONCE / width.max(1)).max(1);
        for first in (0..rows).step_by(at_once) {
            let piece = first..rows.min(first + at_once);
            self.weights.read_rows(&name, &[rows, width], piece, &mut self.buffer)?;
            take(first, &self.buffer);
        }
        self.note(name, rows * width, self.held_as);
        Ok(())
    }

    /// Checks a tensor's shape before memory is allocated for it: the file's own size bounds its
    /// tensors, while a configuration may claim anything.
    pub(crate) fn check_shape(&self, name: &str, wanted: &[usize]) -> Result<(), LoadError> {
        let tensor = self.full_name(name);
        let found = self.weights.shape(&tensor)?;
        if found == wanted {
            return Ok(());
        }
        let (found, wanted) = (found.to_vec(), wanted.to_vec());
        Err(LoadError::TensorShape { file: self.weights.file().to_owned(), tensor, found, wanted })
    }

    /// Refuses a file with unread tensors in the named parts of the encoder: its configuration
    /// belongs to another model and would lead to wrong rows.
    pub(crate) fn check_extra(&self, parts: &[&str]) -> Result<(), LoadError> {
        self.check_extra_where(|name| {
            let is_constant = CONSTANTS.iter().any(|constant| name.ends_with(constant));
            parts.iter().any(|part| name.starts_with(part)) && !is_constant
        })
    }

    /// Refuses a file with an unread tensor for which `is_part` holds. Names come without the prefix.
    pub(crate) fn check_extra_where(
        &self,
        is_part: impl Fn(&str) -> bool,
    ) -> Result<(), LoadError> {
        let is_extra = |name: &&str| is_part(name.strip_prefix(self.prefix).unwrap_or(name));
        match self.unread().find(is_extra) {
            None => Ok(()),
            Some(tensor) => Err(LoadError::ExtraTensor {
                file: self.weights.file().to_owned(),
                tensor: tensor.to_owned(),
            }),
        }
    }

    /// Logs how many tensors of the file were not read.
    pub(crate) fn log_unread(&self) {
        let mut unread = self.unread();
        if let Some(first) = unread.next() {
            let (file, count) = (self.weights.file().display(), 1 + unread.count());
            tracing::info!(%file, count, first, "tensors beside the model are not used");
        }
    }

    /// The device of the tensors.
    pub(super) fn device(&self) -> &'a Device {
        self.device
    }

    /// The type in which matrices and token tables are held.
    pub(super) fn held_as(&self) -> WeightType {
        self.held_as
    }

    /// The error for values that the device has no memory for.
    pub(super) fn placing(&self, source: candle_core::Error) -> LoadError {
        LoadError::Tensor { file: self.weights.file().to_owned(), source }
    }

    fn unread(&self) -> impl Iterator<Item = &str> {
        self.weights.names().filter(|name| !self.names_read.contains(*name))
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn note(&mut self, name: String, values: usize, held_as: WeightType) {
        if self.names_read.insert(name) {
            self.bytes_held += held_as.bytes() * u64::try_from(values).unwrap_or(u64::MAX);
        }
    }
}

/// Values of a large tensor that are read at a time.
const VALUES_AT_ONCE: usize = 1 << 18;

/// Names of constants that old files keep among the weights; they are computed instead.
const CONSTANTS: [&str; 3] = ["position_ids", "token_type_ids", "inv_freq"];
