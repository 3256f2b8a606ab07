//! Some chunks with all that was generated from them, for reading.

use std::io::{self, Write};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::expanded::Expanded;
use crate::report::terminal::harmless;

/// Writes `n` chunks, or all there are, in their order; the same ones whenever it is asked for.
pub fn write_sample(out: &mut impl Write, expanded: &Expanded, n: usize) -> io::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let chunks = expanded.chunks.len();
    let mut drawn = rand::seq::index::sample(&mut rng, chunks, n.min(chunks)).into_vec();
    drawn.sort_unstable();
    for chunk in drawn {
        let of = &expanded.chunks[chunk];
        writeln!(out, "──── {} ────\n{}", of.id, harmless(&of.text))?;
        if !of.keywords.is_empty() {
            writeln!(out, "  keywords: {}", harmless(&of.keywords.join(", ")))?;
        }
        let queries = expanded.queries.iter().enumerate();
        for (i, query) in queries.filter(|(_, query)| query.chunk == chunk) {
            let scores = expanded.scores.iter().filter_map(|scores| {
                let score = scores.values[i]?;
                Some(format!("  {} {score:.3}", scores.name))
            });
            let scores: String = scores.collect();
            let (id, origin, text) = (&query.id, &query.origin, harmless(&query.text));
            writeln!(out, "  {id}  {origin:<10}{scores}  {text}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{expanded, scored};
    use super::*;

    fn written(expanded: &Expanded, n: usize) -> String {
        let mut out = Vec::new();
        write_sample(&mut out, expanded, n).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn chunks_are_shown_with_their_queries_and_the_scores_that_these_have() {
        let found = scored("gain", &[0.25, 0.5], ("intent", "free\u{1b}"));
        let expected = "──── 0#0 ────\nThe tide follows the moon.\n  0#0?0  sample      gain 0.250  0.25\n  \
                        0#0?2  intent      free\u{fffd}\n\n\
                        ──── 1#0 ────\nA kitten sleeps.\n  1#0?1  sample      gain 0.500  0.5\n\n";
        assert_eq!(written(&found, 9), expected);
    }

    #[test]
    fn as_many_are_drawn_as_asked_for_and_always_the_same() {
        let mut found = expanded(&[]);
        for i in 0..50 {
            let chunk = expanded(&[]).chunks.remove(0);
            let id = format!("{i}");
            found
                .chunks
                .push(super::super::expanded::Chunk { id, ..chunk });
        }
        let drawn = written(&found, 7);
        assert_eq!(drawn.matches("────\n").count(), 7);
        assert_eq!(drawn, written(&found, 7));
    }
}
