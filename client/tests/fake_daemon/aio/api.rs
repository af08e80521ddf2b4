//! The public API for futures, named item by item: what compiles here must keep compiling.

use emberd_client::aio::{Client, EmbeddingModel, Lease, RerankModel, TextModel, TextStream};
use emberd_client::protocol::{
    CacheCleared, Decision, Event, Freed, LeaseId, ModelInfo, ModelSummary, Preloaded, Reloaded,
    Status, Welcome,
};
use emberd_client::{
    ClientBuilder, EmbedOptions, Embeddings, Error, GenerateOptions, Generated, MasksFilled, Piece,
    Ranked, ScoreActivation, Scores, StartOptions,
};

/// Never run: each line names a method by its path and the type of its result.
async fn connects(builder: ClientBuilder) -> Result<(), Error> {
    let _: Client = Client::connect().await?;
    let _: Client = Client::connect_to("path").await?;
    let _: Client = Client::connect_or_start().await?;
    let _: ClientBuilder = Client::builder();
    let _: Client = ClientBuilder::connect_async(builder.clone()).await?;
    let _: Client = ClientBuilder::connect_to_async(builder.clone(), "path").await?;
    let options = StartOptions::default();
    let _: Client = ClientBuilder::connect_or_start_async(builder, options).await?;
    Ok(())
}

async fn asks(client: &Client) -> Result<(), Error> {
    let on_event = |_: Event| {};
    let (texts, embed, generate) = (["a"], EmbedOptions::default(), GenerateOptions::default());
    let _: () = Client::ping(client).await?;
    let _: Welcome = Client::daemon(client).await?;
    let _: Lease = Client::model(client, "m").await?;
    let _: Lease = Client::model_with(client, "m", on_event).await?;
    let _: EmbeddingModel = Client::embedding_model(client, "m").await?;
    let _: EmbeddingModel = Client::embedding_model_with(client, "m", on_event).await?;
    let _: RerankModel = Client::rerank_model(client, "m").await?;
    let _: TextModel = Client::text_model(client, "m").await?;
    let _: TextModel = Client::text_model_with(client, "m", on_event).await?;
    let _: Embeddings = Client::generate_embeddings(client, &texts, "m").await?;
    let _: Embeddings = Client::generate_embeddings_with(client, &texts, "m", &embed).await?;
    let _: Vec<Ranked> = Client::rerank(client, "m", "q", &texts).await?;
    let _: Generated = Client::generate_text(client, "m", &texts, &generate).await?;
    let _: MasksFilled = Client::fill_mask(client, "m", &texts, 1).await?;
    let _: Status = Client::status(client).await?;
    let _: Vec<ModelSummary> = Client::available_models(client).await?;
    let _: Vec<(String, String)> = Client::model_config(client, "m").await?;
    let _: Preloaded = Client::preload(client, "m").await?;
    let _: Preloaded = Client::preload_with(client, "m", on_event).await?;
    let _: Freed = Client::unload(client, "m").await?;
    let _: Freed = Client::cleanup_unused_models(client).await?;
    let _: CacheCleared = Client::clear_embedding_cache(client).await?;
    let _: Reloaded = Client::reload(client).await?;
    let _: Vec<Decision> = Client::why(client, "m").await?;
    let _: Decision = Client::plan(client, "m").await?;
    Ok(())
}

async fn leases(
    lease: &Lease,
    embedding: &EmbeddingModel,
    rerank: &RerankModel,
    text: &TextModel,
) -> Result<(), Error> {
    let (texts, embed, generate) = (["a"], EmbedOptions::default(), GenerateOptions::default());
    let _: [ModelInfo; 4] = [
        Lease::info(lease),
        EmbeddingModel::info(embedding),
        RerankModel::info(rerank),
        TextModel::info(text),
    ];
    let _: [&Client; 4] = [
        Lease::client(lease),
        EmbeddingModel::client(embedding),
        RerankModel::client(rerank),
        TextModel::client(text),
    ];
    let _: [&Lease; 3] =
        [EmbeddingModel::lease(embedding), RerankModel::lease(rerank), TextModel::lease(text)];
    let _: LeaseId = Lease::id(lease);
    Lease::release(lease).await?;
    EmbeddingModel::release(embedding).await?;
    RerankModel::release(rerank).await?;
    TextModel::release(text).await?;
    let _: Embeddings = EmbeddingModel::embed(embedding, &texts).await?;
    let _: Embeddings = EmbeddingModel::embed_with(embedding, &texts, &embed).await?;
    let _: Embeddings = EmbeddingModel::embed_one(embedding, "a").await?;
    let _: usize = EmbeddingModel::dimension(embedding);
    let _: Vec<Ranked> = RerankModel::rerank(rerank, "q", &texts).await?;
    let activation = ScoreActivation::Identity;
    let _: Scores = RerankModel::scores(rerank, &[("a", "b")], activation).await?;
    let _: Generated = TextModel::generate(text, &texts, &generate).await?;
    let _: Generated = TextModel::generate_with(text, &texts, &generate, |_: Piece| {}).await?;
    let _: MasksFilled = TextModel::fill_mask(text, &texts, 1).await?;
    let mut stream: TextStream = TextModel::stream(text, &texts, &generate)?;
    let _: Option<Piece> = TextStream::next(&mut stream).await;
    let _: Generated = TextStream::answer(stream).await?;
    Ok(())
}

#[test]
fn every_future_may_go_to_other_threads() {
    fn is_free<T: Send + Sync + Unpin + Clone + std::fmt::Debug + 'static>() {}
    fn may_go<T: Send, A>(_: impl Fn(A) -> T) {}
    is_free::<Client>();
    is_free::<Lease>();
    is_free::<EmbeddingModel>();
    is_free::<RerankModel>();
    is_free::<TextModel>();
    may_go(connects);
    let _ = |client: &Client| may_go(|()| asks(client));
    let _ = |l: &Lease, e: &EmbeddingModel, r: &RerankModel, t: &TextModel| {
        may_go(|()| leases(l, e, r, t));
    };
}
