//! Rust source with its comments and literals blanked out, so that a search finds code only.
//!
//! Owns: just enough of Rust's lexical grammar (Reference, "Tokens"). Knows nothing of: the checks.
//!
//! Invariants
//! - The result has the same lines as the source; only what stands on them differs.

/// What the scan is inside of.
enum State {
    Code,
    LineComment,
    BlockComment { depth: u32 },
    Text { hashes: Option<usize> },
}

/// Replaces comments and the insides of string and character literals by spaces.
pub(crate) fn mask(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut state = State::Code;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let taken = match state {
            State::Code => code(&chars, at, &mut state, &mut out),
            State::LineComment => {
                if c == '\n' {
                    state = State::Code;
                }
                blank(&mut out, c);
                1
            }
            State::BlockComment { depth } => block_comment(&chars, at, depth, &mut state, &mut out),
            State::Text { hashes } => text(&chars, at, hashes, &mut state, &mut out),
        };
        at += taken;
    }
    out
}

fn blank(out: &mut String, c: char) {
    out.push(if c == '\n' { '\n' } else { ' ' });
}

/// One step outside comments and literals; returns how many characters it took.
fn code(chars: &[char], at: usize, state: &mut State, out: &mut String) -> usize {
    let peek = |ahead: usize| chars.get(at + ahead).copied();
    let word_before = at.checked_sub(1).and_then(|i| chars.get(i)).is_some_and(|c| is_word(*c));
    match (peek(0), peek(1)) {
        (Some('/'), Some('/')) => {
            *state = State::LineComment;
            out.push_str("  ");
            2
        }
        (Some('/'), Some('*')) => {
            *state = State::BlockComment { depth: 1 };
            out.push_str("  ");
            2
        }
        (Some('"'), _) => {
            *state = State::Text { hashes: None };
            out.push('"');
            1
        }
        (Some('r'), Some('"' | '#')) if !word_before || peek_back_is_byte(chars, at) => {
            let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
            if peek(1 + hashes) == Some('"') {
                *state = State::Text { hashes: Some(hashes) };
                out.push_str(&" ".repeat(hashes + 1));
                out.push('"');
                hashes + 2
            } else {
                out.push('r');
                1
            }
        }
        (Some('\''), Some(_)) => char_literal(chars, at, out),
        (Some(c), _) => {
            out.push(c);
            1
        }
        (None, _) => 1,
    }
}

/// Whether the character before `at` is the `b` or `c` of a raw byte or C string.
fn peek_back_is_byte(chars: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|i| chars.get(i)).copied();
    matches!(before(1), Some('b' | 'c')) && !before(2).is_some_and(is_word)
}

/// A character literal is blanked; a lifetime is kept.
fn char_literal(chars: &[char], at: usize, out: &mut String) -> usize {
    let peek = |ahead: usize| chars.get(at + ahead).copied();
    let length = if peek(1) == Some('\\') {
        // An escape: up to the closing quote, which may not be the escaped one.
        chars.iter().skip(at + 3).position(|c| *c == '\'').map(|n| n + 4)
    } else if peek(2) == Some('\'') {
        Some(3)
    } else {
        None
    };
    if let Some(length) = length {
        out.push_str(&" ".repeat(length));
        length
    } else {
        out.push('\'');
        1
    }
}

fn block_comment(
    chars: &[char],
    at: usize,
    depth: u32,
    state: &mut State,
    out: &mut String,
) -> usize {
    match (chars.get(at), chars.get(at + 1)) {
        (Some('*'), Some('/')) => {
            *state =
                if depth == 1 { State::Code } else { State::BlockComment { depth: depth - 1 } };
            out.push_str("  ");
            2
        }
        (Some('/'), Some('*')) => {
            *state = State::BlockComment { depth: depth + 1 };
            out.push_str("  ");
            2
        }
        (Some(c), _) => {
            blank(out, *c);
            1
        }
        (None, _) => 1,
    }
}

fn text(
    chars: &[char],
    at: usize,
    hashes: Option<usize>,
    state: &mut State,
    out: &mut String,
) -> usize {
    match (chars.get(at), hashes) {
        (Some('\\'), None) => {
            for c in chars.iter().skip(at).take(2) {
                blank(out, *c);
            }
            2
        }
        (Some('"'), None) => {
            *state = State::Code;
            out.push('"');
            1
        }
        (Some('"'), Some(n))
            if chars.iter().skip(at + 1).take(n).filter(|c| **c == '#').count() == n =>
        {
            *state = State::Code;
            out.push('"');
            out.push_str(&" ".repeat(n));
            n + 1
        }
        (Some(c), _) => {
            blank(out, *c);
            1
        }
        (None, _) => 1,
    }
}

/// Whether `c` can be part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The places (line from 1, text from there on) where `word` stands as a word of its own.
pub(crate) fn words<'a>(
    text: &'a str,
    word: &'a str,
) -> impl Iterator<Item = (usize, &'a str)> + 'a {
    text.lines().enumerate().flat_map(move |(index, line)| {
        line.match_indices(word).filter_map(move |(at, _)| {
            let (before, from) = line.split_at_checked(at)?;
            let after = from.get(word.len()..)?;
            let starts = word.starts_with(is_word) && before.ends_with(is_word);
            let goes_on = word.ends_with(is_word) && after.starts_with(is_word);
            (!starts && !goes_on).then_some((index + 1, from))
        })
    })
}
