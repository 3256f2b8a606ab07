//! The map stages are functions of a DataFusion session, so that SQL and other executors can call them.

mod common;

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use common::{Place, documents};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use intendex::{
    engine::{fingerprint::Fingerprints, functions, models::Models},
    job::Job,
};

#[test]
fn stages_can_be_called_from_sql_and_a_bad_row_is_alone() {
    let place = Place::new(&documents());
    let folder = place.path("");
    let set = |key: &str, file: &str| format!("{key}={}", folder.join(file).display());
    let overrides = [
        set("models.embedder.model", "bert"),
        set("models.generator.model", "qwen2.gguf"),
    ];
    let job = Job::load(&place.path("job.toml"), &overrides).unwrap();
    let models = Models::find(&job.models, true).unwrap();
    let identities = (
        models.embedder_identity(),
        models.generator_identity(),
        None,
    );
    let fingerprints = Fingerprints::new(&job, identities, false);
    let ctx = SessionContext::new();
    functions::register(&ctx, &job, &fingerprints, &models, Arc::new(()));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let query = |sql: &str| {
        runtime.block_on(async {
            let path = place.path("corpus.parquet");
            ctx.deregister_table("corpus").unwrap();
            ctx.register_parquet(
                "corpus",
                path.to_str().unwrap(),
                ParquetReadOptions::default(),
            )
            .await
            .unwrap();
            let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
        })
    };
    let chunks =
        query("SELECT unnest(get_field(chunk(title, text, NULL), 'value')) AS c FROM corpus");
    assert!(chunks.num_rows() >= 4);
    let vectors = query("SELECT embed(title, text) AS v, embed_query('tides') AS q FROM corpus");
    let value = vectors
        .column(0)
        .as_struct()
        .column_by_name("value")
        .unwrap()
        .clone();
    assert_eq!(
        value.as_fixed_size_list().value_length() as usize,
        models.dim()
    );
    let scores = query("SELECT score(title, text, 'what causes tides') AS s FROM corpus");
    let errors = scores
        .column(0)
        .as_struct()
        .column_by_name("error")
        .unwrap()
        .clone();
    assert_eq!(errors.null_count(), 4, "{errors:?}");

    // Lists that look alike when they are joined have keys of their own.
    for key in ["chunk_key", "intents_key"] {
        let lists = ["['a\nb']", "['a', 'b']", "['ab']", "['']", "[]", "NULL"];
        let keys = lists.map(|list| format!("{key}('t', 'x', {list})"));
        let keys = query(&format!("SELECT {}", keys.join(", ")));
        let keys: Vec<&[u8]> = keys
            .columns()
            .iter()
            .map(|c| c.as_fixed_size_binary().value(0))
            .collect();
        let same = keys.iter().enumerate().any(|(i, k)| keys[..i].contains(k));
        // No intents and an empty list cut alike; of the corpus they do not mean the same.
        assert_eq!(same, key == "chunk_key", "{key}");
        assert_eq!(keys[4] == keys[5], key == "chunk_key", "{key}");
    }
}
