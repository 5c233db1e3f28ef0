//! Subject and text templates: literal text with `{names}`, parsed once, filled in for each task.

use serde_json::{Map, Value};
use std::fmt;
use warren_plugin::{Failure, reject};

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Argument,
    Id,
    To,
    Body,
    /// A field of the task's JSON body.
    Field(String),
}

/// What a template can name.
pub(crate) struct Values<'a> {
    pub(crate) argument: &'a str,
    pub(crate) id: &'a str,
    pub(crate) to: &'a str,
    pub(crate) body: &'a str,
    /// The JSON body's fields; empty for a task of text.
    pub(crate) fields: &'a Map<String, Value>,
}

/// What is wrong with a template, and what can be written instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTemplate(String);

impl fmt::Display for BadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; write {{argument}}, {{id}}, {{to}}, {{body}} or {{body.FIELD}}, and {{{{ or }}}} for a brace itself",
            self.0
        )
    }
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, BadTemplate> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let from_brace = &rest[at..];
            if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
                literal.push_str(&from_brace[..1]);
                rest = &from_brace[2..];
                continue;
            }
            let name = from_brace
                .strip_prefix('{')
                .ok_or_else(|| BadTemplate("has a } without its {".into()))?
                .split_once('}')
                .ok_or_else(|| BadTemplate("has a { without its }".into()))?
                .0;
            parts.push(Part::Literal(std::mem::take(&mut literal)));
            parts.push(Part::named(name)?);
            rest = &from_brace[name.len() + 2..];
        }
        literal.push_str(rest);
        parts.push(Part::Literal(literal));
        parts.retain(|part| *part != Part::Literal(String::new()));
        Ok(Self { parts })
    }

    /// Fills it in. A field that the task's body lacks is a reject: a mail with a hole in it is not worth sending.
    pub(crate) fn fill(&self, values: &Values<'_>) -> Result<String, Failure> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Argument => text.push_str(values.argument),
                Part::Id => text.push_str(values.id),
                Part::To => text.push_str(values.to),
                Part::Body => text.push_str(values.body),
                Part::Field(name) => match values.fields.get(name) {
                    Some(Value::String(value)) => text.push_str(value),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => text.push_str(&value.to_string()),
                    Some(Value::Null) => {}
                    Some(_) => {
                        return Err(reject(
                            "bad-field",
                            format!(
                                "the template names {{body.{name}}}, which is a list or a table in this task"
                            ),
                        ));
                    }
                    None => {
                        return Err(reject(
                            "no-field",
                            format!(
                                "the template names {{body.{name}}}, and this task's body has no such field"
                            ),
                        ));
                    }
                },
            }
        }
        Ok(text)
    }
}

impl Part {
    fn named(name: &str) -> Result<Self, BadTemplate> {
        match name {
            "argument" => Ok(Part::Argument),
            "id" => Ok(Part::Id),
            "to" => Ok(Part::To),
            "body" => Ok(Part::Body),
            _ => match name.strip_prefix("body.").filter(|field| !field.is_empty()) {
                Some(field) => Ok(Part::Field(field.to_owned())),
                None => Err(BadTemplate(format!("has an unknown {{{name}}}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(template: &str) -> Result<String, Failure> {
        let Value::Object(fields) = json!({"name": "Ada", "n": 3, "gone": null, "list": []}) else {
            unreachable!("an object")
        };
        let values =
            Values { argument: "{id}", id: "t-1", to: "a@example.com", body: "text", fields: &fields };
        Template::parse(template).expect("a good template").fill(&values)
    }

    #[test]
    fn names_are_filled_in_and_values_are_not_templates() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{id} for {to}: {body}", "t-1 for a@example.com: text"),
            ("{argument}", "{id}"),
            ("Hello {body.name}, {body.n}{body.gone}!", "Hello Ada, 3!"),
            ("{{id}} {{{id}}}", "{id} {t-1}"),
        ] {
            assert_eq!(filled(template).ok().as_deref(), Some(expected), "{template}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_or_not_text_is_a_reject() {
        for (template, code) in [("{body.age}", "no-field"), ("{body.list}", "bad-field")] {
            let failure = filled(template).expect_err(template);
            assert!(failure.is_reject());
            assert_eq!(failure.code(), code);
        }
    }

    #[test]
    fn a_wrong_template_says_what_can_be_written() {
        for (template, problem) in [
            ("{name}", "unknown {name}"),
            ("{body.}", "unknown {body.}"),
            ("{}", "unknown {}"),
            ("{id", "{ without its }"),
            ("id}", "} without its {"),
        ] {
            let error = Template::parse(template).expect_err(template).to_string();
            assert!(error.contains(problem) && error.contains("{body.FIELD}"), "{template}: {error}");
        }
    }
}
