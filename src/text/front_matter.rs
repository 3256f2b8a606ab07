/// YAML (`---`) or TOML (`+++`) front matter, and the byte where the text after it begins.
pub fn front_matter(text: &str) -> Option<(&str, usize)> {
    let fence = text.get(..3).filter(|f| ["---", "+++"].contains(f))?;
    let mut at = text.find('\n')? + 1;
    if text[3..at].trim() != "" {
        return None;
    }
    let start = at;
    // A line of dashes may also be a rule: front matter begins with a key.
    let first = text[start..].lines().find(|line| !line.trim().is_empty())?;
    let key = first
        .split([':', '='])
        .next()
        .filter(|key| key.len() < first.len())?;
    if !key
        .trim()
        .chars()
        .all(|c| c.is_alphanumeric() || "_-.\"".contains(c))
    {
        return None;
    }
    for line in text[start..].split_inclusive('\n') {
        let end = at;
        at += line.len();
        if line.trim_end() == fence {
            return Some((&text[start..end], at));
        }
    }
    None
}
