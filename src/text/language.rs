//! The language of a document, from its first few kilobytes.

/// ISO 639-3 for a language that could not be told.
pub const UNDETERMINED: &str = "und";

/// Bytes looked at. Trigram statistics are settled by then, and a 20 MB document costs what a page costs.
const PREFIX: usize = 4096;

/// ISO 639-3 code of the language `text` begins in, or [`UNDETERMINED`] where whatlang is not sure.
pub fn language(text: &str) -> &'static str {
    let text = text.trim_start();
    let prefix = &text[..text.floor_char_boundary(PREFIX)];
    match whatlang::detect(prefix) {
        Some(info) if info.is_reliable() => info.lang().code(),
        _ => UNDETERMINED,
    }
}

/// The ISO 639-1 code sentencex knows a language by; it falls back to a related language by itself, and English is
/// what it does best with an unknown one.
pub(super) fn two_letters(language: &str) -> &'static str {
    match language {
        "afr" => "af",
        "amh" => "am",
        "ara" => "ar",
        "aze" => "az",
        "bel" => "be",
        "ben" => "bn",
        "bul" => "bg",
        "cat" => "ca",
        "ces" => "cs",
        "cmn" => "zh",
        "dan" => "da",
        "deu" => "de",
        "ell" => "el",
        "est" => "et",
        "fin" => "fi",
        "fra" => "fr",
        "guj" => "gu",
        "heb" => "he",
        "hin" => "hi",
        "hrv" => "hr",
        "hun" => "hu",
        "hye" => "hy",
        "ind" => "id",
        "ita" => "it",
        "jpn" => "ja",
        "kan" => "kn",
        "kat" => "ka",
        "kor" => "ko",
        "lav" => "lv",
        "lit" => "lt",
        "mal" => "ml",
        "mar" => "mr",
        "mkd" => "mk",
        "mya" => "my",
        "nep" => "ne",
        "nld" => "nl",
        "nob" => "nb",
        "pan" => "pa",
        "pes" => "fa",
        "pol" => "pl",
        "por" => "pt",
        "ron" => "ro",
        "rus" => "ru",
        "slk" => "sk",
        "slv" => "sl",
        "spa" => "es",
        "srp" => "sr",
        "swe" => "sv",
        "tam" => "ta",
        "tel" => "te",
        "tur" => "tr",
        "ukr" => "uk",
        "urd" => "ur",
        "vie" => "vi",
        _ => "en",
    }
}
