//! Wildcards of AWS policies: `*` is any run of characters, `?` is one character.
//!
//! Owns: matching. Knows nothing of: what is matched.
//!
//! Invariants
//! - At most length of pattern times length of text steps, whatever the pattern; no allocation.

use std::str::Chars;

/// Whether `text` is of the form `pattern`, from end to end.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // What follows the last star, and where in the text its run would end next. An earlier star
    // never has to be tried again: the last one can take whatever it could.
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let mut after = pattern.clone();
        match after.next() {
            Some('*') => {
                retry = Some((after.clone(), text.clone()));
                pattern = after;
                continue;
            }
            Some(wanted) => {
                let mut rest = text.clone();
                if rest.next().is_some_and(|found| wanted == '?' || wanted == found) {
                    (pattern, text) = (after, rest);
                    continue;
                }
            }
            None if text.as_str().is_empty() => return true,
            None => {}
        }
        let Some((after_star, run_end)) = &mut retry else {
            return false;
        };
        if run_end.next().is_none() {
            return false;
        }
        (pattern, text) = (after_star.clone(), run_end.clone());
    }
}

/// Whether two ARNs have six parts each that match one by one, as `ArnLike` compares them: a
/// wildcard does not reach over a colon, but in the last part.
pub(super) fn matches_arn(pattern: &str, text: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.splitn(6, ':'), text.splitn(6, ':'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches(pattern, part) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
