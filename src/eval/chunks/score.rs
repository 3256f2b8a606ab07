//! What a ranking of chunks is worth to a reader.

use super::set::{Document, Question};
use super::span::{Coverage, Span, coverage};

/// Tokens that a reader takes.
pub const BUDGETS: [usize; 3] = [200, 400, 800];

/// Names of [`Scores::values`], as in tables and Parquet files.
pub const NAMES: [&str; 12] = [
    "r@1",
    "r@5",
    "mrr",
    "recall@200",
    "precision@200",
    "iou@200",
    "recall@400",
    "precision@400",
    "iou@400",
    "recall@800",
    "precision@800",
    "iou@800",
];

/// A chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub span: Span,
    /// Of the document's tokens.
    pub tokens: usize,
    pub text: String,
}

/// The measures of one question.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Rank of the first chunk that holds a whole answer, from 1.
    pub rank: Option<usize>,
    /// Of the text read within each budget.
    pub coverage: [Coverage; BUDGETS.len()],
}

impl Scores {
    /// `ranking` are indexes into `pieces`, best first.
    pub fn of(
        ranking: &[usize],
        pieces: &[Piece],
        documents: &[Document],
        question: &Question,
    ) -> Self {
        let holds = |&piece: &usize| {
            let answers = &mut question.answers.iter();
            answers.any(|answer| pieces[piece].span.holds(answer))
        };
        let read = |budget| {
            let retrieved = read(ranking, pieces, documents, budget);
            coverage(&retrieved, &question.answers)
        };
        Self {
            rank: ranking.iter().position(holds).map(|i| i + 1),
            coverage: BUDGETS.map(read),
        }
    }

    pub fn values(&self) -> [f64; NAMES.len()] {
        let within = |most: usize| f64::from(u8::from(self.rank.is_some_and(|rank| rank <= most)));
        let mut values = [0.0; NAMES.len()];
        values[0] = within(1);
        values[1] = within(5);
        values[2] = self.rank.map_or(0.0, |rank| 1.0 / rank as f64);
        for (i, c) in self.coverage.iter().enumerate() {
            values[3 + 3 * i..6 + 3 * i].copy_from_slice(&[c.recall, c.precision, c.iou]);
        }
        values
    }
}

/// The chunks in order until the budget is spent; the last one's beginning only, if it is too long.
fn read(ranking: &[usize], pieces: &[Piece], documents: &[Document], budget: usize) -> Vec<Span> {
    let (mut spans, mut left) = (Vec::new(), budget);
    for &piece in ranking {
        if left == 0 {
            break;
        }
        let Piece {
            mut span, tokens, ..
        } = pieces[piece];
        if tokens > left {
            span.end = documents[span.document].end_of(span.start, left);
        }
        left -= tokens.min(left);
        spans.push(span);
    }
    spans
}
