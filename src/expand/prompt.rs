//! The few-shot prompt. Everything before the chunk is the same for all chunks, so a runtime that shares prefixes
//! reads it once; the empty passage that scores are taken against has the same form.

use crate::{
    job::spec,
    model::{Generate, Message, ModelError, Prompt, Role},
};

use super::Chunk;

const INSTRUCTION: &str = "You are given a passage. Write one short question that a person would type into a search \
engine and that the passage answers. The question must make sense to someone who has not seen the passage. Answer with \
the question alone.";

/// Passages of different kinds, each with a question as people type them.
const EXAMPLES: [(&str, &str); 3] = [
    (
        "The Suez Canal opened in November 1869 after ten years of work. It joined the Mediterranean to the Red Sea \
         and shortened the voyage from London to Mumbai by about 7,000 km.",
        "how much shorter did the Suez Canal make the voyage from London to Mumbai?",
    ),
    (
        "To undo the last commit but keep its changes in the working tree, run `git reset --soft HEAD~1`. With \
         `--hard` the changes are thrown away as well.",
        "how do I undo my last git commit without losing the changes?",
    ),
    (
        "Wild yeast is most active between 24 and 28 °C. In a cold kitchen a sourdough starter may need more than \
         twelve hours to peak after a feeding, so bakers keep it near the oven in winter.",
        "why does a sourdough starter rise slowly in winter?",
    ),
];

/// The part of a chunk that the generator reads, its title first, and how many tokens were cut.
pub fn passage(
    chunk: &Chunk,
    settings: &spec::Expand,
    generator: &dyn Generate,
) -> Result<(String, usize), ModelError> {
    let title = chunk.title.map(|t| format!("{t}\n")).unwrap_or_default();
    let whole = format!("{title}{}", chunk.text);
    let tokens = generator.token_offsets(&whole)?;
    match tokens.get(settings.passage_tokens) {
        Some(&(start, _)) => {
            let end = whole.floor_char_boundary(start);
            Ok((
                whole[..end].to_owned(),
                tokens.len() - settings.passage_tokens,
            ))
        }
        None => Ok((whole, 0)),
    }
}

/// The prompt whose continuation is a question about the passage.
pub fn prompt(passage: &str, settings: &spec::Expand) -> Prompt {
    let mut messages = vec![message(Role::System, INSTRUCTION.into())];
    let mut example = |passage: &str, question: &str| {
        messages.push(message(Role::User, format!("Passage: {passage}")));
        messages.push(message(Role::Assistant, question.to_owned()));
    };
    if settings.examples.is_empty() {
        EXAMPLES
            .iter()
            .for_each(|(passage, question)| example(passage, question));
    } else {
        settings
            .examples
            .iter()
            .for_each(|e| example(&e.passage, &e.question));
    }
    messages.push(message(Role::User, format!("Passage: {passage}")));
    Prompt { messages }
}

fn message(role: Role, content: String) -> Message {
    Message { role, content }
}
