//! The argv template: text with placeholders, checked once when the settings are read, filled in per task. A
//! filled element is exactly one argument of the command, whatever the task's text contains: no shell, no
//! splitting at spaces.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The task's fields as the template and the environment use them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) id: &'a str,
    pub(crate) attempt: u32,
    pub(crate) redelivered: bool,
    pub(crate) queue: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) argument: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// Why a task cannot be put into the command line. It never can: the task is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The template asks for a header that the task does not have.
    MissingHeader(String),
    /// An argument would hold a NUL byte, which the kernel cannot pass.
    Nul,
}

/// One element of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Argument,
    Id,
    Queue,
    Prefix,
    Attempt,
    Body,
    Header(String),
}

impl Template {
    /// Reads one element of `command`. The error text says what is wrong and which placeholders there are.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(format!("{text:?} has a lone }}: write }}}} for the character itself"));
            }
            let Some(end) = rest.find('}') else {
                return Err(format!("{text:?} has a lone {{: write {{{{ for the character itself"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(placeholder(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// The text, when the element has no placeholder.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The argument for one task.
    pub(crate) fn fill(&self, fields: &Fields<'_>) -> Result<OsString, Unfit> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
                Piece::Argument => bytes.extend_from_slice(fields.argument.as_bytes()),
                Piece::Id => bytes.extend_from_slice(fields.id.as_bytes()),
                Piece::Queue => bytes.extend_from_slice(fields.queue.as_bytes()),
                Piece::Prefix => bytes.extend_from_slice(fields.prefix.as_bytes()),
                Piece::Attempt => bytes.extend_from_slice(fields.attempt.to_string().as_bytes()),
                Piece::Body => bytes.extend_from_slice(fields.body),
                Piece::Header(name) => {
                    let header = fields.headers.iter().find(|(have, _)| have == name);
                    let (_, value) = header.ok_or_else(|| Unfit::MissingHeader(name.clone()))?;
                    bytes.extend_from_slice(value.as_bytes());
                }
            }
        }
        if bytes.contains(&0) {
            return Err(Unfit::Nul);
        }
        Ok(OsString::from_vec(bytes))
    }
}

fn placeholder(name: &str) -> Result<Piece, String> {
    Ok(match name {
        "argument" => Piece::Argument,
        "id" => Piece::Id,
        "queue" => Piece::Queue,
        "prefix" => Piece::Prefix,
        "attempt" => Piece::Attempt,
        "body" => Piece::Body,
        _ => match name.strip_prefix("header:") {
            Some("") => return Err("{header:} names no header: write {header:NAME}".to_owned()),
            Some(header) => Piece::Header(header.to_owned()),
            None => {
                return Err(format!(
                    "{{{name}}} is no placeholder: there are {{argument}}, {{id}}, {{queue}}, {{prefix}}, {{attempt}}, \
                     {{body}} and {{header:NAME}}; write {{{{ and }}}} for the characters themselves"
                ));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields<'static> = Fields {
        id: "t-1",
        attempt: 2,
        redelivered: false,
        queue: "q",
        prefix: "Convert",
        argument: "a b; rm -rf $HOME",
        content_type: "text/plain",
        body: b"Convert a b; rm -rf $HOME\xff",
        headers: &[("lang", "de"), ("empty", "")],
    };

    fn filled(text: &str) -> Result<Vec<u8>, Unfit> {
        Template::parse(text).expect(text).fill(&FIELDS).map(OsString::into_vec)
    }

    #[test]
    fn placeholders_become_part_of_one_argument() {
        for (text, argument) in [
            ("plain", b"plain".as_slice()),
            ("", b""),
            ("{argument}", b"a b; rm -rf $HOME"),
            ("--in={argument}.txt", b"--in=a b; rm -rf $HOME.txt"),
            ("{id}/{queue}/{prefix}/{attempt}", b"t-1/q/Convert/2"),
            ("{body}", b"Convert a b; rm -rf $HOME\xff"),
            ("{header:lang}{header:empty}", b"de"),
            ("{{argument}}", b"{argument}"),
            ("{{{id}}}", b"{t-1}"),
            ("a}}b{{c", b"a}b{c"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(argument), "{text}");
        }
    }

    #[test]
    fn what_is_filled_in_is_not_read_as_a_template_again() {
        let fields = Fields { argument: "{id}", ..FIELDS };
        let argument = Template::parse("<{argument}>").expect("known").fill(&fields);
        assert_eq!(argument, Ok(OsString::from("<{id}>")));
    }

    #[test]
    fn a_task_that_cannot_be_an_argument_is_unfit() {
        assert_eq!(filled("{header:colour}"), Err(Unfit::MissingHeader("colour".to_owned())));
        let fields = Fields { body: b"a\0b", ..FIELDS };
        assert_eq!(Template::parse("{body}").expect("known").fill(&fields), Err(Unfit::Nul));
    }

    #[test]
    fn wrong_templates_are_refused_with_what_to_write() {
        for (text, part) in [
            ("{arg}", "{arg} is no placeholder: there are {argument}"),
            ("{}", "{} is no placeholder"),
            ("{Argument}", "is no placeholder"),
            ("{header:}", "write {header:NAME}"),
            ("{id", "lone {: write {{"),
            ("id}", "lone }: write }}"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn only_elements_without_placeholder_are_literal() {
        let literal = |text: &str| Template::parse(text).expect(text).literal().map(str::to_owned);
        assert_eq!(literal("/bin/{{x}}"), Some("/bin/{x}".to_owned()));
        assert_eq!(literal(""), Some(String::new()));
        assert_eq!(literal("/bin/{id}"), None);
    }
}
