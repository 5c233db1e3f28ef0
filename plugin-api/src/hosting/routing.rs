//! How the text of a task is read before its prefix is looked for: the newline at its end, its label, the boundaries of
//! its words.

/// The text without one newline at its end (`\n` or `\r\n`): `amqp-publish -l` and `echo` add one.
pub fn trim_newline(text: &[u8]) -> &[u8] {
    match text {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n'] => rest,
        _ => text,
    }
}

/// The text without its label `Task <n>:` and the blanks after it; without a label, the text as it is. `<n>` is one
/// or more digits, with at least one blank before it and any number before the colon.
pub fn split_label(text: &[u8]) -> &[u8] {
    after_label(text).unwrap_or(text)
}

/// Whether no word of `text` is cut in two where `prefix`, with which it begins, ends.
pub fn ends_on_word_boundary(prefix: &[u8], text: &[u8]) -> bool {
    match (prefix.last(), text.get(prefix.len())) {
        (Some(&last), Some(&next)) => !(is_word(last) && is_word(next)),
        _ => true,
    }
}

fn after_label(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"Task")?;
    let number = trim_blanks(rest);
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if number.len() == rest.len() || digits == 0 {
        return None;
    }
    Some(trim_blanks(trim_blanks(&number[digits..]).strip_prefix(b":")?))
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

/// Letters, digits and `_` of ASCII, and every byte of a character beyond ASCII.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
