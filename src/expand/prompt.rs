//! The few-shot prompts. Everything before the chunk is the same for all chunks, so a runtime that shares prefixes reads it once;
//! the empty passage that scores are taken against has the same form.

use crate::{
    job::spec::Example,
    model::{Generate, Message, ModelError, Prompt, Role},
};

const INSTRUCTION: &str = "You are given a passage. Write one short question that a person would type into a search \
engine and that the passage answers. The question must make sense to someone who has not seen the passage. Answer with \
the question alone.";

const LIST_INSTRUCTION: &str = "You are given a passage and keywords. Write search queries that the passage answers, one \
per line: some short keyword queries, some full questions. Each uses at least one keyword, together they cover all of the \
passage, and each makes sense to someone who has not seen the passage.";

const VOCABULARY_INSTRUCTION: &str = "You are given a passage. Write eight words or short phrases that people who look for \
this information might type into a search engine, but that do not occur in the passage: synonyms, everyday names, broader \
terms. One per line.";

const RELEVANCE_INSTRUCTION: &str = "You are given a passage and a search query. Answer Yes if the passage answers the query, \
and No if it does not.";

/// A passage with what is written of it, as people type it.
struct Shown {
    passage: &'static str,
    question: &'static str,
    keywords: &'static str,
    queries: &'static str,
    vocabulary: &'static str,
}

/// Of different kinds.
const EXAMPLES: [Shown; 3] = [
    Shown {
        passage: "The Suez Canal opened in November 1869 after ten years of work. It joined the Mediterranean to the Red \
                  Sea and shortened the voyage from London to Mumbai by about 7,000 km.",
        question: "how much shorter did the Suez Canal make the voyage from London to Mumbai?",
        keywords: "suez canal, 1869, mediterranean, red sea",
        queries: "when did the Suez Canal open?\nSuez Canal construction years\nhow much shorter did the Suez Canal make \
                  the voyage from London to Mumbai?\ncanal between the Mediterranean and the Red Sea",
        vocabulary: "Egyptian waterway\nshipping route to India\nship passage\n19th century engineering\nshortcut for ships",
    },
    Shown {
        passage: "To undo the last commit but keep its changes in the working tree, run `git reset --soft HEAD~1`. With \
                  `--hard` the changes are thrown away as well.",
        question: "how do I undo my last git commit without losing the changes?",
        keywords: "git reset, undo commit, working tree",
        queries: "how do I undo my last git commit without losing the changes?\ngit reset soft vs hard\nundo commit but \
                  keep working tree\nwhat does git reset --hard throw away?",
        vocabulary: "revert\nversion control\nroll back a change\nundo a check-in\ncommand line",
    },
    Shown {
        passage: "Wild yeast is most active between 24 and 28 °C. In a cold kitchen a sourdough starter may need more \
                  than twelve hours to peak after a feeding, so bakers keep it near the oven in winter.",
        question: "why does a sourdough starter rise slowly in winter?",
        keywords: "sourdough starter, wild yeast, temperature",
        queries: "why does a sourdough starter rise slowly in winter?\nbest temperature for wild yeast\nsourdough starter \
                  hours to peak after feeding cold kitchen\nwhere to keep a sourdough starter in winter",
        vocabulary: "bread baking\nfermentation\nleaven\nwarm place\nslow proofing",
    },
];

/// The part of a chunk that the generator reads, its title first, and how many tokens were cut.
pub fn passage(
    title: Option<&str>,
    text: &str,
    most_tokens: usize,
    generator: &dyn Generate,
) -> Result<(String, usize), ModelError> {
    let title = title.map(|t| format!("{t}\n")).unwrap_or_default();
    let whole = format!("{title}{text}");
    let tokens = generator.token_offsets(&whole)?;
    match tokens.get(most_tokens) {
        Some(&(start, _)) => {
            let end = whole.floor_char_boundary(start);
            Ok((whole[..end].to_owned(), tokens.len() - most_tokens))
        }
        None => Ok((whole, 0)),
    }
}

/// The prompt whose continuation is a question about the passage.
pub fn question(passage: &str, examples: &[Example]) -> Prompt {
    let own = examples
        .iter()
        .map(|e| (shown(&e.passage), e.question.clone()));
    let built_in = EXAMPLES
        .iter()
        .map(|e| (shown(e.passage), e.question.to_owned()));
    few_shot(INSTRUCTION, own, built_in, shown(passage))
}

/// The prompt whose continuation is a list of queries, steered by keywords. Of the job's examples those with queries are shown.
pub fn list(passage: &str, keywords: &[String], examples: &[Example]) -> Prompt {
    let steered =
        |passage: &str, keywords: &str| format!("{}\nKeywords: {keywords}", shown(passage));
    let own = examples.iter().filter(|e| !e.queries.is_empty());
    let own = own.map(|e| {
        let passage = steered(&e.passage, &e.keywords.join(", "));
        (passage, e.queries.join("\n"))
    });
    let built_in = EXAMPLES
        .iter()
        .map(|e| (steered(e.passage, e.keywords), e.queries.to_owned()));
    let asked = steered(passage, &keywords.join(", "));
    few_shot(LIST_INSTRUCTION, own, built_in, asked)
}

/// What the prompts of [`question`] and [`list`] show as answers, for passages other than this: a generator may repeat one for
/// any passage.
pub fn shown_answers<'a>(passage: &str, examples: &'a [Example]) -> Vec<&'a str> {
    let own = || examples.iter().filter(|e| e.passage != passage);
    let mut shown: Vec<&str> = own().map(|e| e.question.as_str()).collect();
    shown.extend(own().flat_map(|e| e.queries.iter().map(String::as_str)));
    if examples.is_empty() {
        shown.extend(EXAMPLES.iter().map(|e| e.question));
    }
    if examples.iter().all(|e| e.queries.is_empty()) {
        shown.extend(EXAMPLES.iter().flat_map(|e| e.queries.lines()));
    }
    shown
}

/// The same of [`vocabulary`].
pub fn shown_vocabulary() -> Vec<&'static str> {
    EXAMPLES.iter().flat_map(|e| e.vocabulary.lines()).collect()
}

/// The prompt whose continuation is words that the passage lacks.
pub fn vocabulary(passage: &str) -> Prompt {
    let built_in = EXAMPLES
        .iter()
        .map(|e| (shown(e.passage), e.vocabulary.to_owned()));
    few_shot(
        VOCABULARY_INSTRUCTION,
        std::iter::empty(),
        built_in,
        shown(passage),
    )
}

/// The prompt whose continuation is Yes or No.
pub fn relevance(passage: &str, query: &str) -> Prompt {
    let asked = |passage: &str, query: &str| format!("{}\nQuery: {query}", shown(passage));
    let [first, second, _] = &EXAMPLES;
    let built_in = [
        (asked(first.passage, first.question), "Yes".to_owned()),
        (
            asked(second.passage, "how do I rename a git branch?"),
            "No".to_owned(),
        ),
    ];
    few_shot(
        RELEVANCE_INSTRUCTION,
        std::iter::empty(),
        built_in.into_iter(),
        asked(passage, query),
    )
}

fn shown(passage: &str) -> String {
    format!("Passage: {passage}")
}

/// The built-in examples stand where there are none of the job's own.
fn few_shot(
    instruction: &str,
    own: impl Iterator<Item = (String, String)>,
    built_in: impl Iterator<Item = (String, String)>,
    asked: String,
) -> Prompt {
    let mut own = own.peekable();
    let mut messages = vec![message(Role::System, instruction.into())];
    let mut show = |(asked, answer): (String, String)| {
        messages.push(message(Role::User, asked));
        messages.push(message(Role::Assistant, answer));
    };
    match own.peek() {
        Some(_) => own.for_each(&mut show),
        None => built_in.for_each(&mut show),
    }
    messages.push(message(Role::User, asked));
    Prompt { messages }
}

fn message(role: Role, content: String) -> Message {
    Message { role, content }
}
