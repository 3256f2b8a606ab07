//! How many rows may fail before a run ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A count of rows, or a share of a stage's input rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MaxFailures {
    /// Rows.
    Count(u64),
    /// From 0 to below 1.
    Share(f64),
    /// A number from 0 to 100 and `%`.
    Percentage(String),
}

impl MaxFailures {
    /// The most of `rows` input rows that may fail; 0 where this is no share that [`MaxFailures::share`] knows.
    pub fn limit(&self, rows: u64) -> u64 {
        match (self, self.share()) {
            (Self::Count(count), _) => *count,
            // 0.29 × 100 is a little below 29.
            (_, Some(share)) => (share * rows as f64 * (1.0 + 1e-12)).floor() as u64,
            (_, None) => 0,
        }
    }

    /// From 0 to 1; None for a count, and for what is out of range.
    pub fn share(&self) -> Option<f64> {
        match self {
            Self::Count(_) => None,
            Self::Share(share) => Some(*share).filter(|s| (0.0..1.0).contains(s)),
            Self::Percentage(text) => {
                let percent: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
                Some(percent / 100.0).filter(|s| (0.0..=1.0).contains(s))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_limited_by_count_or_share() {
        let percent = |text: &str| MaxFailures::Percentage(text.into());
        for (limit, rows, most) in [
            (MaxFailures::Count(3), 0, 3),
            (MaxFailures::Count(3), 1_000_000, 3),
            (MaxFailures::Share(0.29), 100, 29),
            (MaxFailures::Share(0.0), 100, 0),
            (percent("1%"), 99, 0),
            (percent("1%"), 200, 2),
            (percent(" 0.5 % "), 1000, 5),
            (percent("100%"), 7, 7),
        ] {
            assert_eq!(limit.limit(rows), most, "{limit:?} of {rows}");
        }
        for wrong in ["1", "%", "101%", "-1%", "x%", "nan%"] {
            assert_eq!(percent(wrong).share(), None, "{wrong}");
        }
        for wrong in [1.0, -0.1, f64::NAN] {
            assert_eq!(MaxFailures::Share(wrong).share(), None, "{wrong}");
        }
    }
}
