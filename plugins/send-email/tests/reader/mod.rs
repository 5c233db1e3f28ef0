//! A strict reader of mails that is not ours: Python's `email`.

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// Reads a mail from standard input as RFC 5322 and RFC 2045 have it, and prints what it says as JSON. Whatever is not as
/// it must be raises.
const READER: &str = r#"
import email, email.policy, email.utils, json, re, sys
raw = sys.stdin.buffer.read()
assert raw.isascii() and b"\0" not in raw, "bytes that a 7-bit server refuses"
assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw), "a line that does not end in CRLF"
lines = raw.split(b"\r\n")
assert max(map(len, lines)) <= 998, "a line over 998 bytes"
strict = email.policy.SMTP.clone(raise_on_defect=True)
mail = email.message_from_bytes(raw, policy=strict)
for part in mail.walk():
    assert not part.defects, part.defects
for name, value in mail.items():
    assert not value.defects, (name, value.defects)
names = [name.lower() for name in mail.keys()]
for name in ["mime-version", "message-id", "date", "from", "to", "subject", "content-type", "content-transfer-encoding"]:
    assert names.count(name) == 1, f"{name}: {names.count(name)} times"
assert mail["mime-version"] == "1.0" and mail["mime-version"].major == 1
assert re.fullmatch(r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+>", mail["message-id"]), mail["message-id"]
assert mail["date"].datetime.utcoffset() is not None
assert mail.get_content_type() == "text/plain" and mail.get_content_charset() == "utf-8"
assert mail["content-transfer-encoding"].lower() in ("7bit", "quoted-printable", "base64")
print(json.dumps({
    "id": mail["message-id"], "subject": mail["subject"], "text": mail.get_content(),
    "from": [[a.display_name, a.addr_spec] for a in mail["from"].addresses],
    "to": [a.addr_spec for a in mail["to"].addresses],
}))
"#;

/// What Python's `email` makes of a mail.
pub(super) fn read_by_python(mail: &str) -> Value {
    let mut python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    python.stdin.take().expect("piped").write_all(mail.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}\n{mail}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
