//! The public API, named item by item: what compiles here must keep compiling.

use emberd_client::protocol::{
    CacheCleared, Decision, ErrorCode, Event, Freed, LeaseId, ModelInfo, ModelSummary, Preloaded,
    Reloaded, Status, Welcome,
};
use emberd_client::{
    Client, ClientBuilder, ConnectError, EarlyStopping, ElementType, EmbedOptions, EmbeddingModel,
    Embeddings, Error, GenerateOptions, Generated, Lease, MasksFilled, Piece, Prompt,
    ProtocolError, QuantizationRanges, Ranked, RerankModel, ScoreActivation, Scores, StartError,
    StartOptions, TextModel, TransportError,
};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::slice::ChunksExact;
use std::time::Duration;

/// Checks that a method exists on a type, by its path, and has a signature.
macro_rules! signatures {
    ($($path:expr => $signature:ty),* $(,)?) => { $(let _: $signature = $path;)* };
}

#[test]
#[expect(clippy::type_complexity, reason = "signatures as they are")]
fn every_method_keeps_its_path_and_its_signature() {
    signatures!(
        Client::connect => fn() -> Result<Client, Error>,
        Client::connect_or_start => fn() -> Result<Client, Error>,
        Client::builder => fn() -> ClientBuilder,
        Client::ping => fn(&Client) -> Result<(), Error>,
        Client::daemon => fn(&Client) -> Result<Welcome, Error>,
        Client::model => fn(&Client, &str) -> Result<Lease, Error>,
        Client::embedding_model => fn(&Client, &str) -> Result<EmbeddingModel, Error>,
        Client::rerank_model => fn(&Client, &str) -> Result<RerankModel, Error>,
        Client::text_model => fn(&Client, &str) -> Result<TextModel, Error>,
        Client::generate_embeddings::<&str> => fn(&Client, &[&'static str], &str) -> Result<Embeddings, Error>,
        Client::generate_embeddings_with::<&str> => fn(&Client, &[&'static str], &str, &EmbedOptions) -> Result<Embeddings, Error>,
        Client::rerank::<&str> => fn(&Client, &str, &str, &[&'static str]) -> Result<Vec<Ranked>, Error>,
        Client::generate_text::<&str> => fn(&Client, &str, &[&'static str], &GenerateOptions) -> Result<Generated, Error>,
        Client::fill_mask::<&str> => fn(&Client, &str, &[&'static str], u32) -> Result<MasksFilled, Error>,
        Client::status => fn(&Client) -> Result<Status, Error>,
        Client::available_models => fn(&Client) -> Result<Vec<ModelSummary>, Error>,
        Client::model_config => fn(&Client, &str) -> Result<Vec<(String, String)>, Error>,
        Client::preload => fn(&Client, &str) -> Result<Preloaded, Error>,
        Client::unload => fn(&Client, &str) -> Result<Freed, Error>,
        Client::cleanup_unused_models => fn(&Client) -> Result<Freed, Error>,
        Client::clear_embedding_cache => fn(&Client) -> Result<CacheCleared, Error>,
        Client::reload => fn(&Client) -> Result<Reloaded, Error>,
        Client::why => fn(&Client, &str) -> Result<Vec<Decision>, Error>,
        Client::plan => fn(&Client, &str) -> Result<Decision, Error>,
        Lease::info => fn(&Lease) -> ModelInfo,
        Lease::id => fn(&Lease) -> LeaseId,
        Lease::client => fn(&Lease) -> &Client,
        Lease::release => fn(&Lease) -> Result<(), Error>,
        EmbeddingModel::embed::<&str> => fn(&EmbeddingModel, &[&'static str]) -> Result<Embeddings, Error>,
        EmbeddingModel::embed_with::<&str> => fn(&EmbeddingModel, &[&'static str], &EmbedOptions) -> Result<Embeddings, Error>,
        EmbeddingModel::embed_one => fn(&EmbeddingModel, &str) -> Result<Embeddings, Error>,
        EmbeddingModel::dimension => fn(&EmbeddingModel) -> usize,
        EmbeddingModel::info => fn(&EmbeddingModel) -> ModelInfo,
        EmbeddingModel::lease => fn(&EmbeddingModel) -> &Lease,
        EmbeddingModel::client => fn(&EmbeddingModel) -> &Client,
        EmbeddingModel::release => fn(&EmbeddingModel) -> Result<(), Error>,
        RerankModel::rerank::<&str> => fn(&RerankModel, &str, &[&'static str]) -> Result<Vec<Ranked>, Error>,
        RerankModel::scores::<&str, String> => fn(&RerankModel, &[(&'static str, String)], ScoreActivation) -> Result<Scores, Error>,
        RerankModel::info => fn(&RerankModel) -> ModelInfo,
        RerankModel::lease => fn(&RerankModel) -> &Lease,
        RerankModel::client => fn(&RerankModel) -> &Client,
        RerankModel::release => fn(&RerankModel) -> Result<(), Error>,
        TextModel::generate::<&str> => fn(&TextModel, &[&'static str], &GenerateOptions) -> Result<Generated, Error>,
        TextModel::fill_mask::<&str> => fn(&TextModel, &[&'static str], u32) -> Result<MasksFilled, Error>,
        TextModel::info => fn(&TextModel) -> ModelInfo,
        TextModel::lease => fn(&TextModel) -> &Lease,
        TextModel::client => fn(&TextModel) -> &Client,
        TextModel::release => fn(&TextModel) -> Result<(), Error>,
        ClientBuilder::inline_only => fn(ClientBuilder) -> ClientBuilder,
        ClientBuilder::trusted_uid => fn(ClientBuilder, u32) -> ClientBuilder,
        ClientBuilder::handshake_timeout => fn(ClientBuilder, Duration) -> ClientBuilder,
        ClientBuilder::repeat_requests => fn(ClientBuilder, bool) -> ClientBuilder,
        ClientBuilder::reconnect_patience => fn(ClientBuilder, Duration) -> ClientBuilder,
        ClientBuilder::connect => fn(ClientBuilder) -> Result<Client, Error>,
        ClientBuilder::connect_or_start => fn(ClientBuilder, StartOptions) -> Result<Client, Error>,
        StartOptions::patience => fn(StartOptions, Duration) -> StartOptions,
        Embeddings::len => fn(&Embeddings) -> usize,
        Embeddings::is_empty => fn(&Embeddings) -> bool,
        Embeddings::dimension => fn(&Embeddings) -> usize,
        Embeddings::element => fn(&Embeddings) -> ElementType,
        Embeddings::ranges => fn(&Embeddings) -> Option<&QuantizationRanges>,
        Embeddings::as_slice => fn(&Embeddings) -> &[f32],
        Embeddings::as_bytes => fn(&Embeddings) -> &[u8],
        Embeddings::row_bytes => fn(&Embeddings, usize) -> Option<&[u8]>,
        Embeddings::as_i8 => fn(&Embeddings) -> Option<&[i8]>,
        Embeddings::row => fn(&Embeddings, usize) -> &[f32],
        Embeddings::get => fn(&Embeddings, usize) -> Option<&[f32]>,
        Embeddings::rows => fn(&Embeddings) -> ChunksExact<'_, f32>,
        Embeddings::to_vec => fn(&Embeddings) -> Vec<f32>,
        Embeddings::into_vec => fn(Embeddings) -> Vec<f32>,
        Embeddings::truncated => fn(&Embeddings) -> &[u32],
        Embeddings::tokens => fn(&Embeddings) -> u64,
        Embeddings::is_shared => fn(&Embeddings) -> bool,
        Scores::len => fn(&Scores) -> usize,
        Scores::is_empty => fn(&Scores) -> bool,
        Scores::labels => fn(&Scores) -> &[String],
        Scores::row => fn(&Scores, usize) -> &[f32],
        Scores::rows => fn(&Scores) -> ChunksExact<'_, f32>,
        Scores::as_slice => fn(&Scores) -> &[f32],
        Scores::truncated => fn(&Scores) -> &[u32],
        Scores::tokens => fn(&Scores) -> u64,
        Error::code => fn(&Error) -> Option<ErrorCode>,
    );
    let _ = |client: &Client, text: &TextModel| {
        Client::connect_to("path")?;
        ClientBuilder::connect_to(Client::builder(), "path")?;
        let on_event = |_: Event| {};
        client.model_with("m", on_event)?;
        client.embedding_model_with("m", on_event)?;
        client.text_model_with("m", on_event)?;
        client.preload_with("m", on_event)?;
        text.generate_with(&["text"], &GenerateOptions::default(), |_: Piece| {})?;
        Ok::<_, Error>(())
    };
    let _ = ClientBuilder::default().name("name");
    let _ = StartOptions::default().program("program").socket("socket").argument("argument");
}

#[test]
fn every_type_keeps_its_traits() {
    fn is_free<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
    fn is_cloned<T: Clone + std::fmt::Debug>() {}
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_free::<Client>();
    is_free::<ClientBuilder>();
    is_free::<Lease>();
    is_free::<EmbeddingModel>();
    is_free::<RerankModel>();
    is_free::<TextModel>();
    is_free::<Embeddings>();
    is_free::<Scores>();
    is_cloned::<Client>();
    is_cloned::<ClientBuilder>();
    is_cloned::<StartOptions>();
    is_cloned::<Lease>();
    is_cloned::<EmbeddingModel>();
    is_cloned::<RerankModel>();
    is_cloned::<TextModel>();
    is_cloned::<Scores>();
    is_cloned::<(Ranked, Piece, EarlyStopping, Prompt)>();
    is_error::<Error>();
    is_error::<ConnectError>();
    is_error::<StartError>();
    is_error::<TransportError>();
    is_error::<ProtocolError>();
}
