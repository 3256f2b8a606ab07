//! Comparing a list of ids with rows.

use std::collections::VecDeque;

/// How far a list is searched for an id that does not come next.
const AHEAD: usize = 64;

/// Follows a list of ids along the rows they should be the ids of. What is missing, or does not belong, is told, and
/// the rows after it are in step again.
#[derive(Debug)]
pub struct InStep {
    /// What an entry is called, and the number of the first.
    unit: (&'static str, usize),
    /// Entries read and not yet passed.
    ahead: VecDeque<String>,
    passed: usize,
    ended: bool,
    /// Whether it was told that the list ends too early.
    told: bool,
}

/// The next entry of a list: none at its end, an error where it cannot be read.
pub type Entry = Result<Option<String>, String>;

impl InStep {
    pub fn new(unit: &'static str, first: usize) -> Self {
        Self {
            unit: (unit, first),
            ahead: VecDeque::new(),
            passed: 0,
            ended: false,
            told: false,
        }
    }

    /// Entries read so far.
    pub fn read(&self) -> usize {
        self.passed + self.ahead.len()
    }

    /// Looks for the id that comes next: the place it is at (from 0), and what is wrong.
    pub fn expect(
        &mut self,
        id: &str,
        mut entries: impl FnMut() -> Entry,
    ) -> (Option<usize>, Option<String>) {
        if let Err(message) = self.read_ahead(1, &mut entries) {
            return (None, Some(message));
        }
        if self.ahead.front().is_some_and(|entry| entry == id) {
            return (Some(self.pass(1)), None);
        }
        if let Err(message) = self.read_ahead(AHEAD, &mut entries) {
            return (None, Some(message));
        }
        match self.ahead.iter().position(|entry| entry == id) {
            Some(before) => {
                let message = self.odd(before);
                (Some(self.pass(before + 1)), Some(message))
            }
            None => (None, self.missing(id)),
        }
    }

    /// What is left at the end.
    pub fn finish(&mut self, mut entries: impl FnMut() -> Entry) -> Option<String> {
        match self.read_ahead(AHEAD, &mut entries) {
            Ok(()) if self.ahead.is_empty() => None,
            Ok(()) => Some(self.odd(self.ahead.len())),
            Err(message) => Some(message),
        }
    }

    fn read_ahead(&mut self, n: usize, entries: &mut impl FnMut() -> Entry) -> Result<(), String> {
        while !self.ended && self.ahead.len() < n {
            match entries() {
                Ok(Some(entry)) => self.ahead.push_back(entry),
                Ok(None) => self.ended = true,
                Err(message) => {
                    self.ended = true;
                    return Err(message);
                }
            }
        }
        Ok(())
    }

    /// Passes `n` entries; the place of the last.
    fn pass(&mut self, n: usize) -> usize {
        self.ahead.drain(..n.min(self.ahead.len()));
        self.passed += n;
        self.passed - 1
    }

    /// The next `n` entries do not belong.
    fn odd(&self, n: usize) -> String {
        let (unit, first) = self.unit;
        let entry = self.ahead.front().map_or("", String::as_str);
        let more = match n {
            1 => String::new(),
            n => format!(" and {} more after it", n - 1),
        };
        let number = self.passed + first;
        format!("{unit} {number} does not belong there: `{entry}`{more}")
    }

    fn missing(&mut self, id: &str) -> Option<String> {
        let (unit, first) = self.unit;
        let number = self.passed + first;
        if let Some(entry) = self.ahead.front() {
            return Some(format!(
                "`{id}` is missing before {unit} {number}, `{entry}`"
            ));
        }
        let message = format!("ends where {unit} {number} belongs, `{id}`");
        (!std::mem::replace(&mut self.told, true)).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(list: &[&str], rows: &[&str]) -> (Vec<Option<usize>>, Vec<String>) {
        let mut list = list.iter().map(|id| id.to_string());
        let mut step = InStep::new("line", 1);
        let (mut places, mut said) = (Vec::new(), Vec::new());
        for row in rows {
            let (place, message) = step.expect(row, || Ok(list.next()));
            places.push(place);
            said.extend(message);
        }
        said.extend(step.finish(|| Ok(list.next())));
        (places, said)
    }

    #[test]
    fn what_is_wrong_is_told_once() {
        let rows = ["a", "b", "c", "d"];
        let cases: [(&[&str], &[&str]); 8] = [
            (&rows, &[]),
            (&["a", "c", "d"], &["`b` is missing before line 2, `c`"]),
            (
                &["c", "d"],
                &["`a` is missing before line 1", "`b` is missing"],
            ),
            (
                &["a", "x", "y", "b", "c", "d"],
                &["line 2 does not belong there: `x` and 1 more"],
            ),
            (
                &["a", "x", "c", "d"],
                &["`b` is missing before line 2", "line 2 does not belong"],
            ),
            (&["a", "b"], &["ends where line 3 belongs, `c`"]),
            (
                &["a", "b", "c", "d", "e"],
                &["line 5 does not belong there: `e`"],
            ),
            (
                &["b", "a", "c", "d"],
                &["line 1 does not belong", "`b` is missing before line 3"],
            ),
        ];
        for (list, expected) in cases {
            let (_, said) = follow(list, &rows);
            assert_eq!(said.len(), expected.len(), "{list:?}: {said:?}");
            for (said, expected) in said.iter().zip(expected) {
                assert!(said.starts_with(expected), "{list:?}: {said}");
            }
        }
        assert_eq!(follow(&[], &rows).1.len(), 1);
    }

    #[test]
    fn places_are_those_of_the_list() {
        let (places, _) = follow(&["b", "a", "x", "d"], &["a", "b", "c", "d"]);
        assert_eq!(places, [Some(1), None, None, Some(3)]);
    }
}
