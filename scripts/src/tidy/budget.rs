//! Size and shape: how long a file, a function and a comment line may be, and how a file opens.
//!
//! Owns: the numbers. Knows nothing of: what the code does.

use super::Finding;
use super::source::is_word;
use super::tree::{File, Tree};

/// Lines of code in a file, comments and blank lines not counted.
const FILE_LINES_MAX: usize = 700;
/// Lines of code in a function's body.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters on a comment line; rustfmt looks after the code.
const COLUMNS_MAX: usize = 100;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in tree.rust() {
        findings.extend(opening(path, file));
        findings.extend(length(path, code_lines(&file.code)));
        findings.extend(comment_columns(path, file));
        findings.extend(rust_functions(path, &file.code));
    }
    for (path, file) in tree.ending(".py") {
        findings.extend(python_opening(path, file));
        findings.extend(length(path, code_lines(&file.text)));
        findings.extend(python_functions(path, &file.text));
    }
    findings
}

fn opening(path: &str, file: &File) -> Option<Finding> {
    let opens = file.text.starts_with("//! ");
    (!opens).then(|| Finding {
        path: path.to_owned(),
        line: 1,
        what: "open the file with `//!`: its purpose, what it owns, what it does not know".into(),
    })
}

fn python_opening(path: &str, file: &File) -> Option<Finding> {
    let opens = file.text.starts_with("\"\"\"") || file.text.starts_with("#!/");
    (!opens && !file.text.trim().is_empty()).then(|| Finding {
        path: path.to_owned(),
        line: 1,
        what: "open the file with a docstring that says what it is for".into(),
    })
}

fn code_lines(code: &str) -> usize {
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

fn length(path: &str, lines: usize) -> Option<Finding> {
    (lines > FILE_LINES_MAX).then(|| Finding {
        path: path.to_owned(),
        line: 1,
        what: format!("{lines} lines of code; split the file, {FILE_LINES_MAX} is the most"),
    })
}

fn comment_columns<'a>(path: &'a str, file: &'a File) -> impl Iterator<Item = Finding> + 'a {
    file.text.lines().enumerate().filter_map(move |(index, line)| {
        let comment = line.trim_start().strip_prefix("//")?;
        let width = line.chars().count();
        // A table row or an address cannot be broken.
        let breakable = !comment.contains("://") && !comment.contains('|');
        (width > COLUMNS_MAX && breakable).then(|| Finding {
            path: path.to_owned(),
            line: index + 1,
            what: format!("the comment is {width} columns wide, {COLUMNS_MAX} is the most"),
        })
    })
}

/// Every `fn name … { … }` whose body is too long.
fn rust_functions(path: &str, code: &str) -> Vec<Finding> {
    let lines: Vec<&str> = code.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let body = body_lines(lines.get(index..).unwrap_or_default());
        if body > FUNCTION_LINES_MAX {
            findings.push(too_long(path, index + 1, name, body));
        }
    }
    findings
}

fn too_long(path: &str, line: usize, name: &str, lines: usize) -> Finding {
    Finding {
        path: path.to_owned(),
        line,
        what: format!("`{name}` is {lines} lines long; split it, {FUNCTION_LINES_MAX} is the most"),
    }
}

/// The name of the function that is declared on this line.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    if before.ends_with(is_word) {
        return None;
    }
    let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
    after.get(..end).filter(|name| !name.is_empty())
}

/// Lines of code between a declaration's braces; 0 for a declaration without a body.
fn body_lines(lines: &[&str]) -> usize {
    let (mut depth, mut counted, mut round) = (0_usize, 0_usize, 0_usize);
    for line in lines {
        let was_inside = depth > 0;
        for c in line.chars() {
            match c {
                '(' | '[' => round += 1,
                ')' | ']' => round = round.saturating_sub(1),
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return counted;
                    }
                }
                ';' if depth == 0 && round == 0 => return 0,
                _ => {}
            }
        }
        if was_inside && !line.trim().is_empty() {
            counted += 1;
        }
    }
    counted
}

/// Every `def` of Python that is too long: it ends where a line is indented no deeper.
fn python_functions(path: &str, text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let declared = line.trim_start();
        let declared = declared.strip_prefix("async ").unwrap_or(declared);
        let Some(rest) = declared.strip_prefix("def ") else {
            continue;
        };
        let name = rest.split('(').next().unwrap_or(rest);
        let indent = indent_of(line);
        let body = lines
            .iter()
            .skip(index + 1)
            .take_while(|l| l.trim().is_empty() || indent_of(l) > indent || l.starts_with(')'))
            .filter(|l| !l.trim().is_empty())
            .count();
        if body > FUNCTION_LINES_MAX {
            findings.push(too_long(path, index + 1, name, body));
        }
    }
    findings
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}
