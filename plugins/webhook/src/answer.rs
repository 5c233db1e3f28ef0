//! What an answer means for the task: pure decisions on status, `Retry-After` and body.

use std::time::{Duration, SystemTime};

use warren_plugin::{Done, Failure, reject, retry};

use crate::classes::{Class, Classes};

/// Longest delay that a server's `Retry-After` is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Characters of an answer's body that are quoted in an error.
const EXCERPT: usize = 200;

/// Shortest text that is looked for as a secret. Shorter ones would blacken ordinary words.
const SHORTEST_SECRET: usize = 6;

/// A server's answer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After`, as sent.
    pub(crate) retry_after: Option<String>,
    /// MIME type; empty when none was sent.
    pub(crate) content_type: String,
    /// The body, or as much of it as was read.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Done for 2xx, with at most `max_response` bytes of the body as the result; else the failure, by its class. `to` is
    /// the server, as it may be shown.
    pub(crate) fn outcome(
        mut self,
        to: &str,
        max_response: usize,
        classes: &Classes,
        now: SystemTime,
    ) -> Result<Done, Failure> {
        let status = self.status;
        match status {
            200..=299 => {
                self.body.truncate(max_response);
                if self.body.is_empty() {
                    return Ok(Done::empty());
                }
                let content_type = if self.content_type.is_empty() {
                    "application/octet-stream".to_owned()
                } else {
                    self.content_type
                };
                Ok(Done::body(content_type, self.body))
            }
            _ if classes.of(status) == Class::Retry => {
                let failure = retry(format!("http-{status}"), self.describe(to));
                let after = self.retry_after.as_deref().and_then(|text| retry_after(text, now));
                Err(match after {
                    Some(delay) => failure.after(delay.min(MAX_RETRY_AFTER)),
                    None => failure,
                })
            }
            _ => Err(reject(format!("http-{status}"), self.describe(to))),
        }
    }

    /// Blackens the secrets, in case the server sent back what it was sent.
    pub(crate) fn scrub(&mut self, secrets: &[String]) {
        for secret in secrets {
            scrub(&mut self.body, secret.as_bytes());
        }
    }

    fn describe(&self, to: &str) -> String {
        let mut text = format!("{to} answered {}", self.status);
        let body = std::str::from_utf8(&self.body).unwrap_or_default();
        let line = body.lines().map(str::trim).find(|line| !line.is_empty());
        if let Some(line) = line.filter(|line| !line.starts_with('<')) {
            text.push_str(": ");
            text.extend(line.chars().filter(|c| !c.is_control()).take(EXCERPT));
        }
        text.push_str(match self.status {
            300..=399 => "; redirects are not followed: set url to the final address",
            401 | 403 => "; check the login in headers or header_files, and what it may do",
            404 | 405 => "; check url and method",
            407 => "; a proxy before the server wants a login: send past it",
            _ => "",
        });
        text
    }
}

/// Seconds, or an HTTP date; one in the past means at once. `None` for anything else.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn scrub(body: &mut Vec<u8>, secret: &[u8]) {
    const BLACK: &[u8] = b"***";
    if secret.len() < SHORTEST_SECRET {
        return;
    }
    let mut from = 0;
    while let Some(at) = body[from..].windows(secret.len()).position(|window| window == secret) {
        let at = from + at;
        body.splice(at..at + secret.len(), BLACK.iter().copied());
        from = at + BLACK.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, retry_after: Option<&str>) -> Result<Done, Failure> {
        let now = httpdate::parse_http_date("Tue, 01 Jul 2025 12:00:00 GMT").expect("a date");
        let answer = Answer { status, retry_after: retry_after.map(str::to_owned), ..Answer::default() };
        answer.outcome("https://example.com", 100, &Classes::default(), now)
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [200, 201, 202, 204, 299] {
            assert!(outcome(status, None).is_ok(), "{status}");
        }
        for (status, is_retry) in
            [(429, true), (503, true), (401, true), (404, true), (302, true), (400, false)]
        {
            let failure = outcome(status, None).expect_err("not done");
            assert_eq!((failure.is_retry(), failure.is_reject()), (is_retry, !is_retry), "{failure}");
            assert_eq!(failure.code(), format!("http-{status}"));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        for (text, seconds) in [
            ("120", Some(120)),
            (" 5 ", Some(5)),
            ("0", Some(0)),
            ("Tue, 01 Jul 2025 12:01:30 GMT", Some(90)),
            ("Tuesday, 01-Jul-25 12:01:30 GMT", Some(90)),
            ("Tue, 01 Jul 2025 11:00:00 GMT", Some(0)),
            ("Wed, 01 Jul 2026 12:00:00 GMT", Some(86_400)),
            ("999999999", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            let failure = outcome(429, Some(text)).expect_err("not done");
            assert_eq!(failure.retry_after(), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(
            outcome(503, Some("7")).expect_err("not done").retry_after(),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn the_result_is_bounded_and_keeps_its_type() {
        let answer = |content_type: &str, body: &[u8]| {
            let content_type = content_type.to_owned();
            let answer = Answer { status: 200, content_type, body: body.to_vec(), retry_after: None };
            answer
                .outcome("https://example.com", 4, &Classes::default(), SystemTime::UNIX_EPOCH)
                .expect("done")
        };
        assert_eq!(answer("text/plain", b"123456"), Done::body("text/plain", "1234"));
        assert_eq!(answer("", b"12"), Done::body("application/octet-stream", "12"));
        assert_eq!(answer("text/plain", b""), Done::empty());
    }

    #[test]
    fn an_error_quotes_one_line_of_text_and_no_page() {
        let message = |body: &str| {
            let answer = Answer { status: 400, body: body.into(), ..Answer::default() };
            let failure = answer
                .outcome("https://example.com", 4, &Classes::default(), SystemTime::UNIX_EPOCH)
                .expect_err("400");
            failure.message().to_owned()
        };
        assert_eq!(message("\n no such user \nmore"), "https://example.com answered 400: no such user");
        assert_eq!(message("<html><body>Bad"), "https://example.com answered 400");
        assert_eq!(message("a\x1b[31mb"), "https://example.com answered 400: a[31mb");
        assert!(message(&"x".repeat(10_000)).len() < 300);
    }

    #[test]
    fn secrets_that_the_server_sends_back_are_blackened() {
        let mut answer =
            Answer { body: b"you sent s3cr3t-token, s3cr3t-token!".to_vec(), ..Answer::default() };
        answer.scrub(&["s3cr3t-token".to_owned(), "sent".to_owned()]);
        assert_eq!(answer.body, b"you sent ***, ***!");
    }
}
