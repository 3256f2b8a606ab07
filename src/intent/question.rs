//! Turns a line a generator wrote into a question, or refuses it.

/// Longest question kept, in code points; beyond it a model is rambling.
const LONGEST: usize = 300;

/// The line without list marks, labels, quotes and control characters, its white space collapsed; None if no phrase of at
/// least two words is left.
pub fn clean(line: &str) -> Option<String> {
    let shown = |c: &char| !c.is_control() || c.is_whitespace();
    let line: String = line.chars().filter(shown).collect();
    let mut text = line.trim();
    loop {
        let shorter = strip_mark(text).trim_start();
        if shorter.len() == text.len() {
            break;
        }
        text = shorter;
    }
    let text = text.trim_matches(|c: char| c.is_whitespace() || "\"'`*_“”«»".contains(c));
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    // Scripts without spaces write a question as one word.
    let phrase = words.len() >= 2 || (letters >= 4 && !text.is_ascii());
    (phrase && letters >= 4 && text.chars().count() <= LONGEST).then_some(text)
}

/// Whether the text is asked as a question, in the scripts whose question marks we know.
pub fn is_asked(text: &str) -> bool {
    text.trim_end()
        .ends_with(['?', '？', '؟', '\u{37e}', '՞', '፧'])
}

/// What two questions are compared by when looking for repeats: letters and digits, in lower case.
pub fn normal_form(text: &str) -> String {
    let letters: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .flat_map(char::to_lowercase)
        .collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `1. `, `(2)`, `- `, `Q3:`, `Question: ` at the start of the text.
fn strip_mark(text: &str) -> &str {
    if let Some(rest) = text.strip_prefix(['-', '*', '•', '–', '>', '#']) {
        return rest;
    }
    let lower = text.to_ascii_lowercase();
    for label in ["question", "query", "q"] {
        if let Some(rest) = lower.strip_prefix(label) {
            let rest = rest
                .trim_start()
                .trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.starts_with([':', '.', ')']) {
                return &text[text.len() - rest.len() + 1..];
            }
        }
    }
    let open = text.strip_prefix('(').unwrap_or(text);
    let rest = open.trim_start_matches(|c: char| c.is_ascii_digit());
    match rest.strip_prefix(['.', ')', ':']) {
        Some(after) if rest.len() < open.len() && after.starts_with([' ', '\t', '*']) => after,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_go_and_the_question_stays() {
        for line in [
            "1. How does it work?",
            "- How does it work?",
            "(2) How does it work?",
            "Q3: How does it work?",
            "**Question:** \"How does  it work?\"",
            "Question 4: How does it work?",
            "12) How does it work?",
            "How\u{0}\tdoes it work?",
        ] {
            let expected = "How does it work?";
            assert_eq!(clean(line).as_deref(), Some(expected), "{line}");
        }
        assert_eq!(
            clean("3.5 mm jack or USB?").as_deref(),
            Some("3.5 mm jack or USB?")
        );
        assert_eq!(clean("什么是索引？").as_deref(), Some("什么是索引？"));
        for line in ["", "  ", "1.", "—", "ok", "?? !!"] {
            assert_eq!(clean(line), None, "{line}");
        }
    }

    #[test]
    fn headers_are_not_questions() {
        assert!(!is_asked("Here are five questions:"));
        assert!(is_asked("What is a shard?"));
    }

    #[test]
    fn repeats_differ_in_form_alone() {
        assert_eq!(
            normal_form("What's  a Shard?"),
            normal_form("what s a shard")
        );
    }
}
