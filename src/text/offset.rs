//! Datasets count in Unicode code points, Rust in bytes. One converter walks along a text with its caller, so that all
//! of a document's offsets together cost one pass.

/// Converts byte offsets into one text to code points.
#[derive(Debug, Clone)]
pub struct CodePoints<'a> {
    text: &'a str,
    byte: usize,
    point: usize,
}

impl<'a> CodePoints<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            byte: 0,
            point: 0,
        }
    }

    /// Code points before `byte`. Ask in ascending order: O(text) in total. An offset below the last one asked for is
    /// counted from the start again; one past the end counts as the end.
    pub fn at(&mut self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        if byte < self.byte {
            (self.byte, self.point) = (0, 0);
        }
        let passed = &self.text.as_bytes()[self.byte..byte];
        self.point += passed.iter().filter(|&&b| !is_continuation(b)).count();
        self.byte = byte;
        self.point
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}
