//! The settings, and all that can be checked of them before a task comes. No error here quotes a value that may be
//! secret: URLs (their path or query often is), header values, the signing secret.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};
use warren_plugin::abi::MAX_RESULT_BYTES;

use crate::classes::{Classes, Entry};

/// Largest file that is read for a URL, a header, a secret or certificates, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Headers that the handler sets itself, or that belong to the connection.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "x-warren-signature",
    "x-warren-timestamp",
];

/// `[handlers.NAME.settings]`; what each key means stands in the crate's documentation.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    url: Option<String>,
    url_file: Option<PathBuf>,
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    header_files: BTreeMap<String, PathBuf>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    #[serde(default = "seconds_30", with = "warren_plugin::duration")]
    timeout: Duration,
    #[serde(default = "response_bytes")]
    max_response: usize,
    #[serde(default)]
    retry_on: Vec<Entry>,
    #[serde(default)]
    reject_on: Vec<Entry>,
    ca_file: Option<PathBuf>,
}

fn post() -> String {
    "POST".to_owned()
}

fn seconds_30() -> Duration {
    Duration::from_secs(30)
}

fn response_bytes() -> usize {
    16 * 1024
}

/// Checked settings.
pub(crate) struct Plan {
    url: Source,
    headers: Vec<(HeaderName, Source)>,
    secret: Option<Source>,
    pub(crate) method: Method,
    pub(crate) timeout: Duration,
    pub(crate) max_response: usize,
    pub(crate) classes: Classes,
    pub(crate) roots: RootCerts,
}

/// What one request needs of the settings.
pub(crate) struct Target {
    pub(crate) uri: Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) secret: Option<String>,
    /// Texts that must not appear in an error, a log or a result.
    pub(crate) secrets: Vec<String>,
}

/// A value that stands in the settings, or in a file that is read for every task, so that it can be replaced.
enum Source {
    Text(String),
    File(PathBuf),
}

impl Settings {
    /// Checks everything; the errors are all there are, each with its key.
    pub(crate) fn check(self) -> Result<Plan, Vec<String>> {
        let mut errors = Vec::new();
        let url = one_of(("url", self.url), ("url_file", self.url_file), &mut errors);
        if url.is_none() && errors.is_empty() {
            errors.push(
                "url: it is missing: write url = \"https://…\", or url_file with a file that holds it"
                    .to_owned(),
            );
        }
        let secret = one_of(("secret", self.secret), ("secret_file", self.secret_file), &mut errors);
        let texts = self.headers.into_iter().map(|(name, value)| ("headers", name, Source::Text(value)));
        let files =
            self.header_files.into_iter().map(|(name, path)| ("header_files", name, Source::File(path)));
        let mut headers: Vec<(HeaderName, Source)> = Vec::new();
        for (key, name, value) in texts.chain(files) {
            match header_name(&name) {
                Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                    errors.push(format!("{key}.{name}: the header is set twice: remove one of them"));
                }
                Ok(name) => headers.push((name, value)),
                Err(error) => errors.push(format!("{key}.{name}: {error}")),
            }
        }
        let method = match self.method.as_str() {
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            other => {
                errors
                    .push(format!("method: {other:?} is not possible: write \"POST\", \"PUT\" or \"PATCH\""));
                Method::POST
            }
        };
        if self.timeout.is_zero() {
            errors.push("timeout: 0 would let every request fail: write for example \"30s\"".to_owned());
        }
        if self.max_response > MAX_RESULT_BYTES {
            errors.push(format!(
                "max_response: {} is too much: write at most {MAX_RESULT_BYTES} bytes",
                self.max_response
            ));
        }
        let roots = roots(self.ca_file.as_deref()).unwrap_or_else(|error| {
            errors.push(format!("ca_file: {error}"));
            RootCerts::WebPki
        });
        let classes = Classes::new(&self.retry_on, &self.reject_on, &mut errors);
        let plan = url.map(|url| {
            let (timeout, max_response) = (self.timeout, self.max_response);
            Plan { url, headers, secret, method, timeout, max_response, classes, roots }
        });
        // Read what is in files too: a wrong one should be known now and not at the first task.
        errors.extend(plan.as_ref().and_then(|plan| plan.target().err()));
        plan.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

impl Plan {
    /// Reads the files among the settings. The error names the key.
    pub(crate) fn target(&self) -> Result<Target, String> {
        let url = self.url.read("url")?;
        let uri = uri(&url)?;
        let mut secrets: Vec<String> =
            uri.path_and_query().map(|path| path.as_str().to_owned()).into_iter().collect();
        let mut headers = Vec::new();
        for (name, source) in &self.headers {
            let value = source.read(&format!("headers.{name}"))?;
            let text = HeaderValue::from_str(&value);
            headers.push((
                name.clone(),
                text.map_err(|_| {
                    format!("headers.{name}: the value has a line break or a control character: remove it")
                })?,
            ));
            // Of "Bearer abc" the server may send back "abc" alone.
            secrets.extend(value.rsplit_once(' ').map(|(_, last)| last.to_owned()));
            secrets.push(value);
        }
        let secret = self.secret.as_ref().map(|source| source.read("secret")).transpose()?;
        secrets.extend(secret.clone());
        // The longer first, or what is left of it would still show.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Ok(Target { uri, headers, secret, secrets })
    }

    /// Whether something secret would cross a network in the clear.
    pub(crate) fn exposes_secrets(&self) -> bool {
        let Ok(target) = self.target() else { return false };
        let host = target.uri.host().unwrap_or_default();
        let local = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
        target.uri.scheme_str() == Some("http") && !local && !self.headers.is_empty()
    }
}

impl Target {
    /// Scheme, host and port: the part of the address that may be shown.
    pub(crate) fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }
}

impl Source {
    fn read(&self, key: &str) -> Result<String, String> {
        let (key, text) = match self {
            Self::Text(text) => (key.to_owned(), text.clone()),
            Self::File(path) => {
                let bytes = read_file(path).map_err(|error| format!("{key} (from a file): {error}"))?;
                let text =
                    String::from_utf8(bytes).map_err(|_| format!("{key}: {} is not text", path.display()))?;
                (format!("{key} (from {})", path.display()), text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        if text.is_empty() {
            Err(format!("{key}: it is empty: write a value or remove the key"))
        } else {
            Ok(text)
        }
    }
}

fn one_of(
    (key, text): (&str, Option<String>),
    (file_key, path): (&str, Option<PathBuf>),
    errors: &mut Vec<String>,
) -> Option<Source> {
    match (text, path) {
        (Some(_), Some(_)) => {
            errors.push(format!("{key}: {file_key} is set too: remove one of them"));
            None
        }
        (text, path) => text.map(Source::Text).or(path.map(Source::File)),
    }
}

fn uri(text: &str) -> Result<Uri, String> {
    let example = "write one such as \"https://example.com/hook\"";
    let uri: Uri = text.parse().map_err(|error| format!("url: not an address ({error}): {example}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(format!("url: it needs http:// or https:// and a host: {example}"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            "url: user and password do not belong into it: set headers.Authorization or header_files"
                .to_owned(),
        );
    }
    Ok(uri)
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName =
        text.parse().map_err(|_| "not a header's name: use letters, digits and -".to_owned())?;
    if RESERVED.contains(&name.as_str()) {
        return Err("this header is set by the handler or the connection: remove it".to_owned());
    }
    Ok(name)
}

/// The certificates of a CA file, or else Mozilla's as compiled in.
fn roots(path: Option<&Path>) -> Result<RootCerts, String> {
    let Some(path) = path else { return Ok(RootCerts::WebPki) };
    let pem = read_file(path)?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(format!("{} is not a well-formed PEM file", path.display())),
        }
    }
    if certificates.is_empty() {
        return Err(format!(
            "{} has no certificate: it must be a PEM file with at least one",
            path.display()
        ));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("{shown} is not an absolute path: write one that begins with /"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        format!("{shown} cannot be read ({error}): create it, readable for the daemon's user")
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("{shown} is larger than {MAX_FILE} bytes: is it the right file?"));
    }
    Ok(bytes)
}
