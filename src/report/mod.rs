//! What a person reads about an index: a document as it was cut, in the terminal or as a page of HTML.

pub mod document;
pub mod examples;
pub mod html;
pub mod terminal;
