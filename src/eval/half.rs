//! Halves of a set: parameters are chosen on one, and figures reported of the other.

/// A half, by the first bit of the BLAKE3 of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Half {
    Tune,
    Report,
}

impl Half {
    pub fn has(self, id: &str) -> bool {
        let first = blake3::hash(id.as_bytes()).as_bytes()[0] >> 7;
        (first == 0) == (self == Half::Tune)
    }

    pub fn name(self) -> &'static str {
        match self {
            Half::Tune => "tune",
            Half::Report => "report",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_in_one_half_and_stays_there() {
        let ids: Vec<String> = (0..1000).map(|i| format!("document {i}")).collect();
        let tune = ids.iter().filter(|id| Half::Tune.has(id)).count();
        let report = ids.iter().filter(|id| Half::Report.has(id)).count();
        assert_eq!(tune + report, 1000);
        assert!((450..550).contains(&tune), "{tune}");
        // The BLAKE3 of nothing begins with af, of which the first bit is 1.
        assert!(Half::Report.has("") && !Half::Tune.has(""));
    }
}
