//! How a queue that somebody else declared was declared. AMQP has no request for that. So the queue is declared again; the
//! broker refuses and names the first difference with its value, and the next declaration has that value.

use std::collections::BTreeMap;

use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::question::{QuestionError, ask};

/// The most declarations for one queue: more than a queue has arguments.
const MAX_DIFFERENCES: usize = 24;
/// The argument that names the type.
const TYPE: &str = "x-queue-type";

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Detail {
    /// The type only.
    Type,
    /// The type and every argument.
    All,
}

/// A queue as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `classic`, `quorum`, `stream`; `None`: the broker did not come to it.
    pub kind: Option<String>,
    /// It survives a restart of the broker.
    pub durable: bool,
    /// Its arguments but the type, as text. Those that a policy sets are not among them.
    pub arguments: BTreeMap<String, String>,
}

/// One thing in which a queue differs from how it was asked for.
#[derive(Debug, PartialEq)]
enum Difference<'a> {
    Type(&'a str),
    NotDurable,
    AutoDelete,
    Argument(&'a str, AMQPValue),
}

/// Asks how the queue was declared. To be asked only of one that is there; declares nothing unless the queue is deleted
/// in this very moment, and then the same again.
pub(in crate::broker) async fn describe(
    connection: &Connection,
    name: &str,
    detail: Detail,
) -> Result<Description, QuestionError> {
    let mut arguments = FieldTable::default();
    arguments.insert(TYPE.into(), text("classic"));
    let mut options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut kind = None;
    for _ in 0..MAX_DIFFERENCES {
        let why = match ask(connection, name, options, arguments.clone()).await {
            Ok(_) => {
                kind.get_or_insert_with(|| "classic".to_owned());
                break;
            }
            Err(QuestionError::Different(why)) => why,
            Err(error) => return Err(error),
        };
        match difference(&why) {
            Some(Difference::Type(real)) if kind.is_none() => {
                kind = Some(real.to_owned());
                arguments.insert(TYPE.into(), text(real));
                if detail == Detail::Type {
                    break;
                }
            }
            Some(Difference::Argument(argument, value)) if !arguments.contains_key(argument) => {
                arguments.insert(argument.into(), value);
            }
            Some(Difference::NotDurable) if options.durable => options.durable = false,
            Some(Difference::AutoDelete) if !options.auto_delete => options.auto_delete = true,
            _ => break,
        }
    }
    let shown = arguments.inner().iter().filter(|(name, _)| name.as_str() != TYPE);
    let arguments = shown.map(|(name, value)| (name.to_string(), shown_value(value))).collect();
    Ok(Description { kind, durable: options.durable, arguments })
}

/// `inequivalent arg 'x-max-age' for queue 'q' in vhost '/': received none but current is the value '1h' of type
/// 'longstr'`, and the shorter form for what is no argument.
fn difference(why: &str) -> Option<Difference<'_>> {
    let (argument, rest) = why.split_once("inequivalent arg '")?.1.split_once('\'')?;
    let (_, current) = rest.rsplit_once("current is ")?;
    match (argument, current.strip_prefix('\'').and_then(|word| word.split_once('\''))) {
        (TYPE, Some((kind, _))) => return Some(Difference::Type(kind)),
        ("durable", Some(("false", _))) => return Some(Difference::NotDurable),
        ("auto_delete", Some(("true", _))) => return Some(Difference::AutoDelete),
        (_, Some(_)) => return None,
        (_, None) => {}
    }
    let (value, rest) = rest.split_once("current is the value '")?.1.rsplit_once("' of type '")?;
    if argument == TYPE {
        return Some(Difference::Type(value));
    }
    let value = match rest.split_once('\'')?.0 {
        "longstr" => text(value),
        "bool" => AMQPValue::Boolean(value == "true"),
        // The broker compares numbers whatever their size.
        _ => AMQPValue::LongLongInt(value.parse().ok()?),
    };
    ShortString::try_new(argument).ok().map(|_| Difference::Argument(argument, value))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn shown_value(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::Boolean(flag) => flag.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_words_give_the_argument_to_ask_with() {
        let about = |rest: &str| format!("PRECONDITION_FAILED - inequivalent arg {rest}");
        let table = [
            (
                "'x-max-age' for queue 'q' in vhost '/': received none but current is the value '1h' of type 'longstr'",
                Some(Difference::Argument("x-max-age", text("1h"))),
            ),
            (
                "'x-max-length-bytes' for queue 'q' in vhost '/': received none but current is the value '1000' of type 'long'",
                Some(Difference::Argument("x-max-length-bytes", AMQPValue::LongLongInt(1000))),
            ),
            (
                "'x-dead-letter-routing-key' for queue 'q' in vhost '/': received none but current is the value 'it's' of type 'longstr'",
                Some(Difference::Argument("x-dead-letter-routing-key", text("it's"))),
            ),
            (
                "'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'",
                Some(Difference::Type("quorum")),
            ),
            (
                "'x-queue-type' for queue 'q' in vhost '/': received the value 'classic' of type 'longstr' but current is the value 'stream' of type 'longstr'",
                Some(Difference::Type("stream")),
            ),
            (
                "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
                Some(Difference::NotDurable),
            ),
            (
                "'auto_delete' for queue 'q' in vhost '/': received 'false' but current is 'true'",
                Some(Difference::AutoDelete),
            ),
            ("'exclusive' for queue 'q' in vhost '/': received 'false' but current is 'true'", None),
        ];
        for (words, expected) in table {
            assert_eq!(difference(&about(words)), expected, "{words}");
        }
        assert_eq!(difference("NOT_FOUND - no queue 'q' in vhost '/'"), None);
    }
}
