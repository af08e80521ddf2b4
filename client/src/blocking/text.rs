//! A leased model that generates texts, or fills masks in them.

use super::client::Client;
use super::lease::Lease;
use crate::calls::leased_model::leased_model;
use crate::error::Error;
use crate::results::Piece;
use crate::wire::request::{ANY_LEASE, PreparedRequest, model_id};
use emberd_protocol::{Event, GenerateOptions, Generated, MasksFilled, ModelKind, Target};

#[cfg(doc)]
use emberd_protocol::ModelInfo;

/// A lease on a model of type `text2text`. Clones share it.
///
/// ```no_run
/// use emberd_client::{Client, GenerateOptions};
///
/// let client = Client::connect()?;
/// let model = client.text_model("builtin-t5")?;
/// let options = GenerateOptions { max_new_tokens: Some(16), ..GenerateOptions::default() };
/// let answer = model.generate(&["number: four hundred and seven"], &options)?;
/// println!("{}", answer.texts[0].sequences[0].text); // 407
/// # Ok::<(), emberd_client::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TextModel {
    lease: Lease,
}

impl TextModel {
    /// Generates a text from each text, in their order. The model's folder and the daemon's settings
    /// decide what `options` leave open.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` if the model only fills masks; `INVALID_REQUEST` for options that
    /// contradict each other; `LIMIT_EXCEEDED` when a request has too many texts, or when the
    /// generated texts exceed the size of a response; `OVERLOADED`; `REFERENCE_ERROR` after a
    /// release.
    pub fn generate<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let request = PreparedRequest::generate(ANY_LEASE, texts, options, false)?;
        self.lease.send(request)?.generated(texts.len())
    }

    /// As [`TextModel::generate`], passing on each piece as it is generated. `on_piece` is called
    /// on this thread, with all pieces in order, before this returns.
    ///
    /// When the connection dies before the first piece, the request is repeated as others are.
    /// After that it is not repeated, so that no piece is passed on twice.
    ///
    /// # Errors
    /// As [`TextModel::generate`], and `INVALID_REQUEST` with beams or several sequences for a text;
    /// [`Error::Transport`] when the connection died after a piece.
    pub fn generate_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
        mut on_piece: impl FnMut(Piece),
    ) -> Result<Generated, Error> {
        let request = PreparedRequest::generate(ANY_LEASE, texts, options, true)?;
        let on_event = |event| Piece::from_event(event).into_iter().for_each(&mut on_piece);
        self.lease.send_with(request, on_event)?.generated(texts.len())
    }

    /// The `top_k` most likely tokens for each mask in each text. A mask is spelled as the model's
    /// tokenizer spells it, such as `[MASK]`.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` if the model generates texts instead; `INVALID_REQUEST` for a text without
    /// a mask, or for an invalid `top_k`.
    pub fn fill_mask<T: AsRef<str>>(&self, texts: &[T], top_k: u32) -> Result<MasksFilled, Error> {
        let request = PreparedRequest::fill_mask(ANY_LEASE, texts, top_k)?;
        self.lease.send(request)?.filled(texts.len(), top_k)
    }
}

leased_model!(TextModel, Lease, Client);

impl Client {
    /// A lease on a model that generates texts from texts, or fills masks in them;
    /// [`ModelInfo::methods`] tells which of the two.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn text_model(&self, id: &str) -> Result<TextModel, Error> {
        let lease = Lease::acquire(self, id, Some(ModelKind::Text2Text))?;
        Ok(TextModel { lease })
    }

    /// As [`Client::text_model`], reporting the progress of the load: see [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::text_model`].
    pub fn text_model_with(
        &self,
        id: &str,
        on_event: impl FnMut(Event),
    ) -> Result<TextModel, Error> {
        let lease = Lease::acquire_with(self, id, Some(ModelKind::Text2Text), on_event)?;
        Ok(TextModel { lease })
    }

    /// Generates a text from each text, with a lease for this call only.
    ///
    /// # Errors
    /// As [`Client::text_model`] and [`TextModel::generate`].
    pub fn generate_text<T: AsRef<str>>(
        &self,
        id: &str,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let target = Target::Model(model_id(id)?);
        let request = PreparedRequest::generate(target, texts, options, false)?;
        self.send(request)?.generated(texts.len())
    }

    /// Candidates for the masks in texts, with a lease for this call only.
    ///
    /// # Errors
    /// As [`Client::text_model`] and [`TextModel::fill_mask`].
    pub fn fill_mask<T: AsRef<str>>(
        &self,
        id: &str,
        texts: &[T],
        top_k: u32,
    ) -> Result<MasksFilled, Error> {
        let request = PreparedRequest::fill_mask(Target::Model(model_id(id)?), texts, top_k)?;
        self.send(request)?.filled(texts.len(), top_k)
    }
}
