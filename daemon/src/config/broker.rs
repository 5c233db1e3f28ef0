//! `[broker]`: where the URIs come from, and the certificates, checked when the config is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::diagnostic::{Place, Problems};
use super::reader::TableReader;
use super::tree::{Node, Table};
use super::{Broker, ClientCert, Environment, MAX_FILE_BYTES, Secret, keys, uri};
use crate::text;

/// More addresses than a cluster has nodes.
const MAX_URIS: usize = 32;
/// The name of the systemd credential that holds the URI.
pub(super) const CREDENTIAL: &str = "broker-uri";

/// Reads the table.
pub(super) fn read(tree: &Table, environment: &Environment, problems: &mut Problems) -> Broker {
    let mut table = TableReader::open(tree.get("broker"), "broker", keys::BROKER, problems);
    let default = Broker::default();
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let zero = Duration::ZERO;
    let (uris, uri_file) = uris(&mut table, environment).unwrap_or_else(|| (default.uris.clone(), None));
    let broker = Broker {
        uris,
        uri_file,
        heartbeat: heartbeat(&mut table).unwrap_or(default.heartbeat),
        connect_timeout: table
            .duration("connect_timeout", Duration::from_millis(100)..=hours(1))
            .unwrap_or(default.connect_timeout),
        consumer_timeout: table
            .duration("consumer_timeout", zero..=hours(24 * 365))
            .unwrap_or(default.consumer_timeout),
        publish_channels: table.integer("publish_channels", 1..=1000).unwrap_or(default.publish_channels),
        ca_file: ca_file(&mut table),
        client_cert: client_cert(&mut table),
    };
    let wants_tls =
        ["ca_file", "cert_file", "key_file"].into_iter().find_map(|k| table.node(k).map(|n| (k, n)));
    if let Some((key, node)) = wants_tls
        && !broker.uris.iter().any(uri::is_tls)
    {
        let (place, key) = (node.place.clone(), table.dotted(key));
        table.problems.warning(
            &place,
            &key,
            "is not used: no broker URI is amqps://",
            "write amqps:// in the URI",
        );
    }
    broker
}

fn heartbeat(table: &mut TableReader) -> Option<Duration> {
    let heartbeat = table.duration("heartbeat", Duration::ZERO..=Duration::from_secs(65_535))?;
    if heartbeat.subsec_nanos() == 0 {
        return Some(heartbeat);
    }
    let place = table.node("heartbeat")?.place.clone();
    table.error(
        &place,
        "heartbeat",
        "is not in whole seconds",
        "AMQP counts it in seconds: write e.g. \"10s\"",
    );
    None
}

/// The environment's URI, else the systemd credential, else the files'; and the file they were alone in.
fn uris(table: &mut TableReader, environment: &Environment) -> Option<(Vec<Secret>, Option<PathBuf>)> {
    let stated: Vec<(&str, &Node)> =
        ["uri", "uris", "uri_file"].into_iter().filter_map(|k| table.node(k).map(|n| (k, n))).collect();
    if let [(first, _), (second, node), ..] = stated[..] {
        let message = format!("{first} is stated as well");
        table.error(&node.place, second, message, "keep one of uri, uris and uri_file");
        return None;
    }
    let stated = stated.first().copied();
    let from_variable = matches!(stated, Some((_, Node { place: Place::Variable(_), .. })));
    if !from_variable && let Some(file) = credential(environment) {
        // `uri_file` may stand beside it: that is for warrenctl, which systemd gives no credentials.
        if let Some((key, node)) = stated.filter(|(key, _)| *key != "uri_file") {
            let (place, key) = (node.place.clone(), table.dotted(key));
            let message = format!("is not used: the credential {CREDENTIAL} takes its place");
            table.problems.warning(&place, &key, message, "remove one of the two");
        }
        let uris = from_file(table, &file, "uri_file", &Place::file(&file))?;
        return Some((uris, Some(file)));
    }
    let (key, node) = stated?;
    match key {
        "uri" => {
            let (text, node) = table.text(key, "an AMQP URI as text")?;
            check(table, text, key, &node.place).map(|uri| (vec![uri], None))
        }
        "uris" => {
            let texts = table.texts(key, "a list of AMQP URIs")?;
            check_all(table, &texts, key, &node.place).map(|uris| (uris, None))
        }
        _ => {
            let (file, place) = table.path(key)?;
            from_file(table, &file, key, &place).map(|uris| (uris, Some(file)))
        }
    }
}

/// The file systemd made from `LoadCredential=broker-uri:…`, where there is one.
fn credential(environment: &Environment) -> Option<PathBuf> {
    let directory = environment.get("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(directory).join(CREDENTIAL)).filter(|file| file.exists())
}

/// One URI per line; empty lines and lines that begin with `#` do not count.
fn from_file(table: &mut TableReader, file: &Path, key: &str, place: &Place) -> Option<Vec<Secret>> {
    let bytes = read_file(table, file, key, place)?;
    let Ok(text) = String::from_utf8(bytes) else {
        table.error(
            place,
            key,
            format!("{} is not text", file.display()),
            "write one AMQP URI per line in it",
        );
        return None;
    };
    let at = |line: usize| Place::File { path: file.into(), line: line + 1, column: 0 };
    // An editor may have written it as a file's first character.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().enumerate().map(|(n, line)| (line.trim().to_owned(), at(n)));
    let texts: Vec<_> = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')).collect();
    check_all(table, &texts, key, place)
}

fn check_all(
    table: &mut TableReader,
    texts: &[(String, Place)],
    key: &str,
    place: &Place,
) -> Option<Vec<Secret>> {
    if texts.is_empty() || texts.len() > MAX_URIS {
        let message = format!("names {} AMQP URIs", texts.len());
        table.error(place, key, message, format!("name 1 to {MAX_URIS}"));
        return None;
    }
    let uris: Vec<_> = texts.iter().map(|(text, place)| check(table, text, key, place)).collect();
    uris.into_iter().collect()
}

fn check(table: &mut TableReader, text: &str, key: &str, place: &Place) -> Option<Secret> {
    uri::check(text).map_err(|(message, remedy)| table.error(place, key, message, remedy)).ok()
}

fn ca_file(table: &mut TableReader) -> Option<PathBuf> {
    let (file, place) = table.path("ca_file")?;
    certificates(table, "ca_file", &file, &place).then_some(file)
}

fn client_cert(table: &mut TableReader) -> Option<ClientCert> {
    let cert = table.path("cert_file");
    let key = table.path("key_file");
    for (one, other, missing) in [(&cert, &key, "key_file"), (&key, &cert, "cert_file")] {
        if let (Some((_, place)), None) = (one, other)
            && table.node(missing).is_none()
        {
            table.error(place, missing, "is missing", "state cert_file and key_file together");
        }
    }
    let ((cert_file, cert_place), (key_file, key_place)) = (cert?, key?);
    let cert_ok = certificates(table, "cert_file", &cert_file, &cert_place);
    let key_ok = private_key(table, &key_file, &key_place);
    (cert_ok && key_ok).then_some(ClientCert { cert_file, key_file })
}

/// Whether the file holds certificates and nothing broken. TLS libraries accept a file without any and fail
/// later, at the first connection.
fn certificates(table: &mut TableReader, key: &str, file: &Path, place: &Place) -> bool {
    let Some(bytes) = read_file(table, file, key, place) else { return false };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    // DER of a certificate is a SEQUENCE; that tells a certificate from other bytes in PEM armour.
    let good = found.is_ok_and(|found| !found.is_empty() && found.iter().all(|c| c.first() == Some(&0x30)));
    if !good {
        let message = format!("{} holds no certificate in PEM form, or a broken one", file.display());
        table.error(place, key, message, "it must have -----BEGIN CERTIFICATE----- blocks");
    }
    good
}

fn private_key(table: &mut TableReader, file: &Path, place: &Place) -> bool {
    let Some(bytes) = read_file(table, file, "key_file", place) else { return false };
    let good = PrivateKeyDer::from_pem_slice(&bytes).is_ok();
    if !good {
        let message = format!("{} holds no private key in PEM form, or a broken one", file.display());
        table.error(
            place,
            "key_file",
            message,
            "it must have an unencrypted -----BEGIN PRIVATE KEY----- block",
        );
    }
    good
}

fn read_file(table: &mut TableReader, file: &Path, key: &str, place: &Place) -> Option<Vec<u8>> {
    let why = match text::read_bounded(file, MAX_FILE_BYTES) {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => format!("{} is over 4 MiB", file.display()),
        Err(error) => format!("cannot read {}: {error}", file.display()),
    };
    table.error(place, key, why, "name a file that warrend's user may read");
    None
}
