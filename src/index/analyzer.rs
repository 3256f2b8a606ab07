//! How text becomes terms, by language.
//!
//! The index uses only pipelines that Tantivy's Python package can rebuild. `en_stem` (English) and `default` (no
//! language) are registered in every Tantivy. Any other language is the same pipeline with its own stemmer, under
//! a name such as `fr_stem`, which a reader must register before it opens the index for text queries:
//! simple tokenizer, remove tokens over 40 bytes, lower-case, stem.
//!
//! Stop words stay in the index, so that a reader may search phrases; they are dropped from a query, before
//! stemming, unless the query has no other words.

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
    TokenizerManager,
};

use crate::job::spec::SparseLanguage;

/// Tokens of more bytes are left out, as in Tantivy's own pipelines.
const MAX_TOKEN_BYTES: usize = 40;

/// Each language with Tantivy's name for it and the name its pipeline is registered under.
const LANGUAGES: [(SparseLanguage, Language, &str); 13] = [
    (SparseLanguage::Danish, Language::Danish, "da_stem"),
    (SparseLanguage::Dutch, Language::Dutch, "nl_stem"),
    (SparseLanguage::English, Language::English, "en_stem"),
    (SparseLanguage::Finnish, Language::Finnish, "fi_stem"),
    (SparseLanguage::French, Language::French, "fr_stem"),
    (SparseLanguage::German, Language::German, "de_stem"),
    (SparseLanguage::Hungarian, Language::Hungarian, "hu_stem"),
    (SparseLanguage::Italian, Language::Italian, "it_stem"),
    (SparseLanguage::Norwegian, Language::Norwegian, "no_stem"),
    (SparseLanguage::Portuguese, Language::Portuguese, "pt_stem"),
    (SparseLanguage::Russian, Language::Russian, "ru_stem"),
    (SparseLanguage::Spanish, Language::Spanish, "es_stem"),
    (SparseLanguage::Swedish, Language::Swedish, "sv_stem"),
];

/// The name that an index of this language gives its analyzer.
pub fn name(language: SparseLanguage) -> &'static str {
    LANGUAGES
        .iter()
        .find(|(l, ..)| *l == language)
        .map_or("default", |(.., name)| name)
}

/// Tantivy's own analyzers and one for every language of the job file.
pub fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    for (_, language, name) in LANGUAGES
        .iter()
        .filter(|(l, ..)| *l != SparseLanguage::English)
    {
        let pipeline = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(MAX_TOKEN_BYTES))
            .filter(LowerCaser)
            .filter(Stemmer::new(*language));
        manager.register(name, pipeline.build());
    }
    manager
}

/// The analyzer of queries against an index whose analyzer is `name`: the same without stop words. Nothing when
/// the language has none.
pub fn without_stop_words(name: &str) -> Option<TextAnalyzer> {
    let (_, language, _) = LANGUAGES.iter().find(|(.., n)| *n == name)?;
    let pipeline = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(MAX_TOKEN_BYTES))
        .filter(LowerCaser)
        .filter(StopWordFilter::new(*language)?)
        .filter(Stemmer::new(*language));
    Some(pipeline.build())
}

/// The words of a text as they are shown, not as they are indexed: lower case, without NLTK's stop words (Tantivy's for English
/// are 33, and "against" none of them), not stemmed.
pub fn words(language: SparseLanguage) -> TextAnalyzer {
    let name = name(language);
    let stop_words = name
        .split_once('_')
        .and_then(|(code, _)| stop_words::lookup(code));
    let stop_words = stop_words.unwrap_or_default().iter().copied();
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(MAX_TOKEN_BYTES))
        .filter(LowerCaser)
        .filter(StopWordFilter::remove(stop_words.map(str::to_owned)))
        .build()
}

/// The terms of `text` in order.
pub fn terms(analyzer: &mut TextAnalyzer, text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    analyzer
        .token_stream(text)
        .process(&mut |token| terms.push(token.text.clone()));
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_an_analyzer_and_stop_words() {
        for (language, _, name) in LANGUAGES {
            assert!(tokenizers().get(super::name(language)).is_some(), "{name}");
            assert!(without_stop_words(name).is_some(), "{name}");
            let code = name.split_once('_').unwrap().0;
            assert!(stop_words::lookup(code).is_some(), "{name}");
        }
        assert_eq!(name(SparseLanguage::None), "default");
        assert!(without_stop_words("default").is_none());
    }

    #[test]
    fn query_terms_are_the_terms_of_the_index_less_stop_words() {
        let text = "The running of the Bulls";
        let mut index = tokenizers().get("en_stem").unwrap();
        assert_eq!(terms(&mut index, text), ["the", "run", "of", "the", "bull"]);
        assert_eq!(
            terms(&mut without_stop_words("en_stem").unwrap(), text),
            ["run", "bull"]
        );
    }
}
