//! Bounded windows over long texts, for libraries whose cost grows faster than their input.

/// End of the window that starts at byte `from`: at most `bytes` further, before white space where there is any, else
/// between two characters. Always past `from` unless `from` is the end.
pub(crate) fn window_end(text: &str, from: usize, bytes: usize) -> usize {
    if text.len() - from <= bytes {
        return text.len();
    }
    let limit = text.floor_char_boundary(from + bytes);
    match text[from..limit].rfind(char::is_whitespace) {
        Some(space) if space > 0 => from + space,
        _ if limit > from => limit,
        _ => text.ceil_char_boundary(from + 1),
    }
}
