//! What is wrong, and a list of it that stays readable.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// Findings of one check on one file that are told one by one.
const TOLD: u64 = 10;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked: `files`, `datasets`, `documents`, `intents`, `chunks`, `queries`, `topics`, `chunk_topics`, `scores`,
    /// `selection`, `outcomes`, `quarantine`, `vectors`, `ids`, `dense`, `sparse`, `ciff` or `model`.
    pub check: &'static str,
    /// The file below the generation's folder, or the model.
    pub what: String,
    pub message: String,
}

impl Finding {
    pub fn new(check: &'static str, what: &str, message: impl Into<String>) -> Self {
        Self {
            check,
            what: what.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.what, self.message)
    }
}

/// Findings in the order they were made; of one kind, the first few and how many more there are, as one lost row may
/// put a million out of step.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    counts: BTreeMap<(&'static str, String), u64>,
}

impl Findings {
    pub fn add(&mut self, check: &'static str, what: &str, message: impl Into<String>) {
        self.push(Finding::new(check, what, message));
    }

    pub fn push(&mut self, finding: Finding) {
        let count = self
            .counts
            .entry((finding.check, finding.what.clone()))
            .or_default();
        *count += 1;
        if *count <= TOLD {
            self.list.push(finding);
        }
    }

    pub fn into_list(self) -> Vec<Finding> {
        let mut list = self.list;
        for ((check, what), count) in self.counts {
            if count > TOLD {
                let message = format!("and {} more", count - TOLD);
                list.push(Finding::new(check, &what, message));
            }
        }
        list
    }
}
