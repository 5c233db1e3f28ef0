//! The text of a task without what is not its own: one newline at the end, the label `Task <n>:` at the beginning.

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
    label_end(text).map_or(text, |end| &text[end..])
}

fn label_end(text: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(b"Task")?;
    let number = trim_blanks(rest);
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if number.len() == rest.len() || digits == 0 {
        return None;
    }
    let after = trim_blanks(&number[digits..]).strip_prefix(b":")?;
    Some(text.len() - trim_blanks(after).len())
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}
