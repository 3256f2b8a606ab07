//! A continuation's text as its tokens arrive: tokens are bytes, and a character or a stop string may span several.

/// The bytes of a continuation so far.
#[derive(Debug, Default)]
pub struct Text {
    bytes: Vec<u8>,
}

impl Text {
    /// Adds a token's bytes. True if a stop string now ends the text; it is cut off with all that follows it.
    pub fn push(&mut self, token: &[u8], stop: &[String]) -> bool {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(token);
        let found = stop
            .iter()
            .filter_map(|s| self.find(s.as_bytes(), before))
            .min();
        if let Some(at) = found {
            self.bytes.truncate(at);
        }
        found.is_some()
    }

    /// Where `stop` first occurs, if it ends after the first `before` bytes.
    fn find(&self, stop: &[u8], before: usize) -> Option<usize> {
        if stop.is_empty() {
            return None;
        }
        let from = before.saturating_sub(stop.len() - 1);
        self.bytes[from..]
            .windows(stop.len())
            .position(|w| w == stop)
            .map(|at| from + at)
    }

    /// The text; a character whose last bytes never came is dropped.
    pub fn finish(self) -> String {
        let mut text = String::with_capacity(self.bytes.len());
        let mut chunks = self.bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let incomplete = chunks.peek().is_none()
                && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
            if !chunk.invalid().is_empty() && !incomplete {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(stop: &[&str]) -> Vec<String> {
        stop.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn a_stop_string_may_span_tokens() {
        let stop = stops(&["\n\n", "END"]);
        let mut text = Text::default();
        assert!(!text.push(b"one\n", &stop));
        assert!(!text.push(b"two E", &stop));
        assert!(text.push(b"ND three", &stop));
        assert_eq!(text.finish(), "one\ntwo ");
    }

    #[test]
    fn the_earliest_stop_string_counts() {
        let mut text = Text::default();
        assert!(text.push(b"a|b;c", &stops(&[";", "|", ""])));
        assert_eq!(text.finish(), "a");
    }

    #[test]
    fn half_a_character_at_the_end_is_dropped_and_a_broken_one_is_marked() {
        let mut text = Text::default();
        text.push(b"caf\xC3\xA9 \xFF \xE2\x82", &[]);
        assert_eq!(text.finish(), "café \u{FFFD} ");
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(text in ".{0,40}", stop in ".{1,3}", size in 1usize..5) {
            let stop = vec![stop];
            let mut pieces = Text::default();
            let stopped = text.as_bytes().chunks(size).any(|piece| pieces.push(piece, &stop));
            prop_assert_eq!(stopped, text.contains(&stop[0]));
            let expected = text.split(stop[0].as_str()).next().unwrap_or("");
            prop_assert_eq!(pieces.finish(), expected);
        }
    }
}
