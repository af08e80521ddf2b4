//! A leased model that makes texts, or fills masks in them.

use crate::client::Client;
use crate::error::Error;
use crate::lease::Lease;
use crate::question::{Question, model_id};
use emberd_protocol::{
    Event, GenerateOptions, Generated, LeaseId, MasksFilled, ModelInfo, ModelKind, Target,
};

/// What a lease's target is until it is aimed.
pub(crate) const UNAIMED: Target = Target::Lease(LeaseId(0));

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

/// The next piece of a text that is being made: whole characters, in order. Together the pieces of a
/// text are its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text that it belongs to, by its position in the request.
    pub text: usize,
    /// What comes next.
    pub piece: String,
    /// Tokens that were made for this text so far.
    pub tokens: u32,
}

impl Piece {
    /// The piece that an event brings.
    pub(crate) fn of(event: Event) -> Option<Self> {
        match event {
            Event::Piece { text, piece, tokens } => {
                Some(Self { text: text as usize, piece, tokens })
            }
            _ => None,
        }
    }
}

impl Client {
    /// A lease on a model that makes texts from texts, or fills masks in them; its
    /// [`ModelInfo::methods`] tell which.
    ///
    /// # Errors
    /// As [`Client::model`], and `WRONG_MODEL_TYPE`.
    pub fn text_model(&self, id: &str) -> Result<TextModel, Error> {
        let kind = Some(ModelKind::Text2Text);
        Ok(TextModel { lease: Lease::acquire(self.clone(), model_id(id)?, kind, None)? })
    }

    /// As [`Client::text_model`], told how far the load is: see [`Client::model_with`].
    ///
    /// # Errors
    /// As [`Client::text_model`].
    pub fn text_model_with(
        &self,
        id: &str,
        mut on_event: impl FnMut(Event),
    ) -> Result<TextModel, Error> {
        let kind = Some(ModelKind::Text2Text);
        let lease = Lease::acquire(self.clone(), model_id(id)?, kind, Some(&mut on_event))?;
        Ok(TextModel { lease })
    }

    /// Texts made from texts, with a lease for the call only.
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
        let mut question = Question::generate(target, texts, options.clone(), false)?;
        self.ask_on(&mut question, None)?.1.generated(texts.len())
    }

    /// What may stand at the masks of texts, with a lease for the call only.
    ///
    /// # Errors
    /// As [`Client::text_model`] and [`TextModel::fill_mask`].
    pub fn fill_mask<T: AsRef<str>>(
        &self,
        id: &str,
        texts: &[T],
        top_k: u32,
    ) -> Result<MasksFilled, Error> {
        let mut question = Question::fill_mask(Target::Model(model_id(id)?), texts, top_k)?;
        self.ask_on(&mut question, None)?.1.filled(texts.len(), top_k)
    }
}

impl TextModel {
    /// A text made from each text, in their order. What `options` leave open the model's folder and
    /// the daemon's settings decide.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` where the model only fills masks; `INVALID_REQUEST` for options that
    /// contradict each other; `LIMIT_EXCEEDED` when the texts are too many for one request, or their
    /// answers too long for one answer; `OVERLOADED`; `REFERENCE_ERROR` after a release.
    pub fn generate<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &GenerateOptions,
    ) -> Result<Generated, Error> {
        let question = Question::generate(UNAIMED, texts, options.clone(), false)?;
        self.lease.ask(question, &mut |_| {})?.generated(texts.len())
    }

    /// As [`TextModel::generate`], shown piece by piece as it is made. Pieces are called in order, on
    /// this thread, each before the answer, and none is left out.
    ///
    /// When the connection dies before the first piece, the request is repeated as others are;
    /// afterwards it is not, so that no piece is shown twice.
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
        let question = Question::generate(UNAIMED, texts, options.clone(), true)?;
        let mut on_event = |event| Piece::of(event).into_iter().for_each(&mut on_piece);
        self.lease.ask(question, &mut on_event)?.generated(texts.len())
    }

    /// The `top_k` likeliest tokens for each mask of each text. A mask is spelled as the model's
    /// tokenizer has it, such as `[MASK]`.
    ///
    /// # Errors
    /// `WRONG_MODEL_TYPE` where the model makes texts instead; `INVALID_REQUEST` for a text without a
    /// mask, or a `top_k` that cannot be.
    pub fn fill_mask<T: AsRef<str>>(&self, texts: &[T], top_k: u32) -> Result<MasksFilled, Error> {
        let question = Question::fill_mask(UNAIMED, texts, top_k)?;
        self.lease.ask(question, &mut |_| {})?.filled(texts.len(), top_k)
    }

    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        self.lease.info()
    }

    /// The lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The client that took it.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.lease.client()
    }

    /// Releases it for all clones, and waits until the daemon has.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time.
    pub fn release(&self) -> Result<(), Error> {
        self.lease.release()
    }
}
