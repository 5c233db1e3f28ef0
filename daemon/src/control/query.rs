//! The query part of a request target: `a=b&c=d` with percent-encoding. Pure; both ends use it. By hand, because
//! `form_urlencoded` replaces a bad escape without an error.

/// Joins the pairs that have a value into `?a=b&c=d`; empty when none has.
pub(super) fn encode(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            escape(name, &mut text);
            text.push('=');
            escape(value, &mut text);
        }
    }
    text
}

/// Splits `a=b&c=d`; an error is a sentence for the caller.
pub(super) fn decode(query: &str) -> Result<Vec<(String, String)>, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescape(name)?, unescape(value)?))
        })
        .collect()
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            into.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err(format!("`{text}` holds a `%` without two hexadecimal digits"));
                };
                bytes.push((high * 16 + low) as u8);
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let hostile = "a b&c=d%/?#+ü\n\0";
        let text = encode(&[("queue", Some(hostile)), ("none", None), ("type", Some("order.v1"))]);
        assert!(text.starts_with("?queue=a%20b%26c%3Dd%25"), "{text}");
        assert_eq!(
            decode(&text[1..]).unwrap(),
            [("queue".to_owned(), hostile.to_owned()), ("type".to_owned(), "order.v1".to_owned())]
        );
        assert_eq!(encode(&[("none", None)]), "");
    }

    #[test]
    fn bad_escapes_are_refused() {
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        assert_eq!(decode("a=1+2&b").unwrap()[0].1, "1 2");
    }
}
