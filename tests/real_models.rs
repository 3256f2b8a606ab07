//! One whole build with the models of `make models`: what a tiny random model cannot show.

mod common;

use std::{fs, path::PathBuf};

use common::{Place, peers, read, row, texts};
use serde_json::Value;

fn models() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("INTENDEX_MODELS")?);
    let file = folder.join("qwen2.5-coder-1.5b/model.gguf");
    file.is_file().then_some(folder)
}

#[test]
fn questions_are_about_their_chunks_and_find_them() {
    let Some(models) = models() else {
        common::skipped(
            "real models: INTENDEX_MODELS names no folder with qwen2.5-coder-1.5b/model.gguf",
        );
        return;
    };
    let place = Place::new(&[
        row(
            "tides",
            "Tides",
            "Tides are the rise and fall of the sea. They are caused by the gravity of the Moon and, less, of the Sun. \
             Spring tides come at full moon and at new moon. Neap tides come at half moon and are weak.",
        ),
        row(
            "bread",
            "Bread",
            "Bread dough is made of flour, water, salt and yeast. Salt slows the yeast down. \
             A loaf is baked for forty minutes at 230 degrees until its crust is brown.",
        ),
    ]);
    fs::write(
        place.path("job.toml"),
        format!(
            "version = 1\n[corpus]\npath = \"corpus.parquet\"\ntitle = \"title\"\n[output]\npath = \"out\"\n\
             [models]\noffline = true\n[models.embedder]\nmodel = \"{0}/minilm\"\n\
             [models.generator]\nmodel = \"{0}/qwen2.5-coder-1.5b/model.gguf\"\n[expand]\nqueries = 2\n",
            models.display()
        ),
    )
    .unwrap();
    place.build_expecting(0, &[]);
    let generation = place.generation(1);
    peers(&[
        &generation,
        "--schemas".as_ref(),
        &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas"),
    ]);
    let queries = read(&generation, "queries");
    let about = |doc: &str, words: &[&str]| {
        let ids = texts(&queries, "query_id");
        let mine = ids.iter().zip(texts(&queries, "text"));
        let mine: Vec<String> = mine
            .filter(|(id, _)| id.starts_with(doc))
            .map(|q| q.1)
            .collect();
        let hits = mine
            .iter()
            .filter(|q| words.iter().any(|w| q.to_lowercase().contains(w)));
        assert!(mine.len() >= 2 && 2 * hits.count() > mine.len(), "{mine:?}");
    };
    about("tides#", &["tide", "moon", "sea", "sun"]);
    about(
        "bread#",
        &["bread", "dough", "yeast", "loaf", "salt", "bak", "crust"],
    );

    for (question, chunk) in [
        ("why does the sea rise and fall?", "tides#"),
        ("how long to bake a loaf", "bread#"),
    ] {
        let output = place.run(&[
            "search", "out", question, "--mode", "dense", "--format", "json", "-k", "1",
        ]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(found.to_string().contains(chunk), "{question}: {found}");
    }
}
