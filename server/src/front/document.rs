//! The error document of S3.
//!
//! Owns: its XML. Knows nothing of: codes and what they mean.

use crate::error::ApiError;

/// Writes the document of `error`. `extra` elements come before the three that every document has.
pub(super) fn write(error: &ApiError, resource: &str, request_id: &str, host_id: &str) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    element(&mut text, "Code", &error.code);
    element(&mut text, "Message", &error.message);
    for (name, value) in &error.extra {
        element(&mut text, name, value);
    }
    element(&mut text, "Resource", resource);
    element(&mut text, "RequestId", request_id);
    element(&mut text, "HostId", host_id);
    text.push_str("</Error>");
    text
}

fn element(text: &mut String, name: &str, value: &str) {
    text.push('<');
    text.push_str(name);
    text.push('>');
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\t' | '\n' => text.push(character),
            '\r' => text.push_str("&#13;"),
            // XML 1.0 has no way to write these (§2.2 "Characters").
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            _ => text.push(character),
        }
    }
    text.push_str("</");
    text.push_str(name);
    text.push('>');
}
