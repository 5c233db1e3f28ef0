//! The handler as a task meets it: real HTTP and TLS servers, run through the SDK's test kit.

mod servers;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use rcgen::{BasicConstraints, IsCa};
use serde_json::{Value, json};
use servers::{Proper, Received, Reply, improper, tls, tls_signed_by_itself};
use sha2::Sha256;
use warren_plugin::Done;
use warren_plugin::testing::{TaskSpec, TestKit};
use warren_webhook::Webhook;

fn kit(settings: Value) -> TestKit<Webhook> {
    TestKit::new(settings).expect("good settings").real_clock()
}

fn ok() -> Reply {
    Reply { status: 200, ..Reply::default() }
}

#[test]
fn the_task_is_sent_as_json_with_its_id_as_idempotency_key() {
    let server = Proper::replies(ok());
    let mut kit = kit(json!({ "url": server.url("/hook?x=1"), "headers": { "X-Team": "blue" } }));
    let task = TaskSpec::text("Task 4: Send notification to Ada").id("t 1").attempt(2).redelivered();
    assert_eq!(
        kit.run(task.queue("q").content_type("text/plain").header("x-trace", "abc")).done(),
        &Done::empty()
    );
    let request = server.received.recv().expect("one request");
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?x=1"));
    assert_eq!(
        request.json(),
        json!({
            "id": "t 1", "id_generated": false, "attempt": 2, "redelivered": true, "queue": "q",
            "prefix": "Send notification", "argument": "to Ada", "content_type": "text/plain",
            "headers": { "x-trace": "abc" },
            "body_encoding": "utf-8", "body": "Task 4: Send notification to Ada",
        })
    );
    assert_eq!(request.header("idempotency-key"), "t%201");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("x-team"), "blue");
    assert!(request.header("user-agent").starts_with("warren-webhook/"));
    assert_eq!((request.header("x-warren-signature"), request.header("x-warren-timestamp")), ("", ""));
}

#[test]
fn a_body_that_is_not_utf8_is_sent_as_base64() {
    let server = Proper::replies(ok());
    kit(json!({ "url": server.url("/"), "method": "PUT" }))
        .run(TaskSpec::typed("Send notification", b"\xff\x00".to_vec()))
        .done();
    let request = server.received.recv().expect("one request");
    assert_eq!(request.method, "PUT");
    assert_eq!(
        (&request.json()["body_encoding"], &request.json()["body"]),
        (&json!("base64"), &json!("/wA="))
    );
}

#[test]
fn with_a_secret_each_request_is_signed_over_timestamp_and_body() {
    let server = Proper::replies(ok());
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("secret");
    fs::write(&file, "first key\n").expect("writable");
    let mut kit = kit(json!({ "url": server.url("/"), "secret_file": file }));
    for key in ["first key", "second key"] {
        fs::write(&file, format!("{key}\n")).expect("writable");
        kit.run("Send notification").done();
        let request = server.received.recv().expect("one request");
        let timestamp = request.header("x-warren-timestamp");
        let age = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
            - timestamp.parse::<u64>().expect("seconds");
        assert!(age < 60, "{age} s old");
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
        mac.update(format!("{timestamp}.{}", request.body).as_bytes());
        let digits = request.header("x-warren-signature").strip_prefix("sha256=").expect("the scheme");
        let expected = mac.finalize().into_bytes();
        assert_eq!(digits.len(), expected.len() * 2);
        for (index, byte) in expected.iter().enumerate() {
            assert_eq!(u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16), Ok(*byte));
        }
    }
}

#[test]
fn the_answer_is_the_result_as_far_as_it_is_wanted() {
    let server = Proper::replies(Reply {
        status: 201,
        headers: vec![("Content-Type", "application/json")],
        body: br#"{"queued":true}"#.to_vec(),
    });
    let ran = kit(json!({ "url": server.url("/") })).run("Send notification");
    assert_eq!(ran.done(), &Done::body("application/json", br#"{"queued":true}"#.to_vec()));
    let ran = kit(json!({ "url": server.url("/"), "max_response": 4 })).run("Send notification");
    assert_eq!(ran.done().bytes(), br#"{"qu"#);
    assert!(ran.logs.iter().any(|line| line.message.contains("longer than max_response")));
}

#[test]
fn the_operator_decides_which_statuses_are_tried_again() {
    for (status, retried) in [(404, false), (410, true), (500, true), (503, false)] {
        let server = Proper::replies(Reply { status, ..Reply::default() });
        let settings = json!({ "url": server.url("/"), "retry_on": [410], "reject_on": ["404", "502-504"] });
        let ran = kit(settings).run("Send notification");
        assert_eq!((ran.failure().is_retry(), ran.failure().is_reject()), (retried, !retried), "{status}");
    }
}

#[test]
fn a_content_type_longer_than_a_result_may_have_does_not_undo_the_delivery() {
    let long: &str = format!("text/html; boundary={}", "x".repeat(396)).leak();
    let headers = vec![("Content-Type", long)];
    let server = Proper::replies(Reply { status: 200, headers, body: b"taken".to_vec() });
    let ran = kit(json!({ "url": server.url("/") })).run("Send notification");
    assert_eq!(ran.done(), &Done::body("text/html", "taken"));
    assert!(ran.logs.iter().any(|line| line.message.contains("content type of 416 bytes")), "{:?}", ran.logs);
}

#[test]
fn each_status_settles_the_task() {
    for (status, header, retried, after) in [
        (503, None, true, None),
        (429, Some(("Retry-After", "7")), true, Some(Duration::from_secs(7))),
        (429, Some(("Retry-After", "Thu, 01 Jan 2015 00:00:00 GMT")), true, Some(Duration::from_millis(1))),
        (408, None, true, None),
        (404, None, true, None),
        (401, Some(("Retry-After", "30")), true, Some(Duration::from_secs(30))),
        (302, Some(("Location", "/elsewhere")), true, None),
        (307, Some(("Location", "/elsewhere")), true, None),
        (400, None, false, None),
        (410, None, false, None),
        (422, Some(("Retry-After", "7")), false, None),
    ] {
        let server =
            Proper::replies(Reply { status, headers: header.into_iter().collect(), body: b"why\n".to_vec() });
        let ran = kit(json!({ "url": server.url("/") })).run("Send notification");
        let failure = ran.failure();
        assert_eq!((failure.is_retry(), failure.is_reject()), (retried, !retried), "{status}: {failure}");
        assert_eq!((failure.code(), failure.retry_after()), (format!("http-{status}").as_str(), after));
        assert!(failure.message().contains("why"), "{failure}");
        assert_eq!(failure.message().contains("redirects are not followed"), status < 400, "{failure}");
        assert_eq!(failure.message().contains("check the login"), status == 401, "{failure}");
        assert_eq!(server.received.try_iter().count(), 1, "no redirect was followed");
    }
}

#[test]
fn a_server_that_hangs_is_given_up_at_the_timeout() {
    let (connections, held) = channel();
    let url = improper(move |stream| connections.send(stream).expect("the test runs"));
    let ran = kit(json!({ "url": url, "timeout": "100ms" })).run("Send notification");
    assert!(ran.failure().is_retry() && ran.failure().code() == "timeout", "{}", ran.failure());
    drop(held);
}

#[test]
fn a_server_that_hangs_in_the_middle_of_its_answer_is_given_up_too() {
    let (connections, held) = channel();
    let url = improper(move |mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").expect("the client listens");
        connections.send(stream).expect("the test runs");
    });
    let ran = kit(json!({ "url": url, "timeout": "100ms" })).run("Send notification");
    assert!(ran.failure().is_retry() && ran.failure().code() == "timeout", "{}", ran.failure());
    drop(held);
}

#[test]
fn a_cancel_ends_the_wait_at_once_and_the_next_task_runs() {
    let (connections, held) = channel::<TcpStream>();
    let hang = Mutex::new(Some(connections));
    let (arrived, arrives) = channel();
    let url = improper(move |mut stream: TcpStream| {
        if let Some(connections) = hang.lock().expect("no panic").take() {
            connections.send(stream).expect("the test runs");
            arrived.send(()).expect("the test runs");
        } else {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
                .expect("the client listens");
        }
    });
    let mut kit = kit(json!({ "url": url, "timeout": "10m" }));
    let canceller = kit.canceller();
    let watch = std::thread::spawn(move || {
        arrives.recv().expect("a request comes");
        canceller.cancel();
    });
    let started = Instant::now();
    let ran = kit.run("Send notification");
    assert!(ran.failure().is_cancelled(), "{}", ran.failure());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    watch.join().expect("no panic");
    // The abandoned request ends when its server hangs up; then the next one goes out.
    drop(held);
    assert_eq!(kit.run("Send notification").done().bytes(), b"next");
    kit.quiesce().outcome.expect("nothing is left to wait for");
}

#[test]
fn the_tasks_deadline_bounds_the_request() {
    let (connections, held) = channel();
    let url = improper(move |stream| connections.send(stream).expect("the test runs"));
    let mut kit = kit(json!({ "url": url, "timeout": "10m" }));
    kit.deadline(Duration::from_millis(100));
    let ran = kit.run("Send notification");
    assert_eq!(ran.failure().code(), "timeout");
    drop(held);
}

#[test]
fn an_endless_answer_is_cut() {
    let endless = |status: &'static str| {
        improper(move |mut stream: TcpStream| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n");
            let mut going = stream.write_all(head.as_bytes());
            while going.is_ok() {
                going = stream.write_all(&[b'x'; 4096]);
            }
        })
    };
    let ran = kit(json!({ "url": endless("200 OK"), "max_response": 10 })).run("Send notification");
    assert_eq!(ran.done(), &Done::body("text/plain", "xxxxxxxxxx"));
    let ran = kit(json!({ "url": endless("400 Bad Request") })).run("Send notification");
    assert!(ran.failure().is_reject() && ran.failure().message().len() < 400, "{}", ran.failure());
}

#[test]
fn a_server_that_hangs_up_early_is_no_answer() {
    for part in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "220 smtp.example.com\r\n\r\n",
    ] {
        let url = improper(move |mut stream: TcpStream| {
            stream.write_all(part.as_bytes()).expect("the client listens");
        });
        let ran = kit(json!({ "url": url })).run("Send notification");
        assert!(ran.failure().is_retry(), "{part:?}: {}", ran.failure());
        assert!(["network", "bad-answer"].contains(&ran.failure().code()), "{part:?}: {}", ran.failure());
    }
}

#[test]
fn a_server_that_is_not_there_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let ran =
        kit(json!({ "url": format!("http://{address}/secret-path?token=abc") })).run("Send notification");
    let failure = ran.failure();
    assert!(failure.is_retry() && failure.code() == "connection-refused", "{failure}");
    assert!(failure.message().starts_with(&format!("no answer from http://{address}: ")), "{failure}");
    assert!(!failure.message().contains("secret-path") && !failure.message().contains("abc"), "{failure}");
}

#[test]
fn a_certificate_signed_by_itself_is_taken_or_refused_with_the_remedy() {
    let place = tempfile::tempdir().expect("a directory");
    let ca_file = place.path().join("ca.pem");
    let (url, pem) = tls_signed_by_itself(IsCa::ExplicitNoCa);
    fs::write(&ca_file, pem).expect("writable");
    kit(json!({ "url": url, "ca_file": ca_file })).run("Send notification").done();
    let (url, pem) = tls_signed_by_itself(IsCa::Ca(BasicConstraints::Unconstrained));
    fs::write(&ca_file, pem).expect("writable");
    let ran = kit(json!({ "url": url, "ca_file": ca_file })).run("Send notification");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("tls", true));
    assert!(ran.failure().message().contains("basicConstraints=CA:FALSE"), "{}", ran.failure());
}

#[test]
fn tls_servers_are_checked_with_the_ca_file() {
    let (url, ca) = tls();
    let place = tempfile::tempdir().expect("a directory");
    let ca_file = place.path().join("ca.pem");
    fs::write(&ca_file, ca).expect("writable");
    let ran = kit(json!({ "url": url, "ca_file": ca_file })).run("Send notification");
    assert_eq!(ran.done(), &Done::body("text/plain", "secure"));
    let ran = kit(json!({ "url": url })).run("Send notification");
    assert!(ran.failure().is_retry() && ran.failure().code() == "tls", "{}", ran.failure());
    assert!(ran.failure().message().contains("UnknownIssuer"), "{}", ran.failure());
    let other_name = url.replace("localhost", "127.0.0.1");
    let ran = kit(json!({ "url": other_name, "ca_file": ca_file })).run("Send notification");
    assert_eq!(ran.failure().code(), "tls", "{}", ran.failure());
}

#[test]
fn secrets_appear_nowhere_even_if_the_server_sends_them_back() {
    for status in [200, 400, 500] {
        let server = Proper::start(move |request: &Received| Reply {
            status,
            headers: Vec::new(),
            body: format!("{:?} {}", request.headers, request.path).into_bytes(),
        });
        let mut kit = kit(json!({
            "url": server.url("/hooks/T0KEN-IN-PATH"),
            "secret": "s1gning-key",
            "headers": { "Authorization": "Bearer t0p-secret", "X-Api-Key": "an0ther-secret" },
        }));
        let ran = kit.run("Send notification");
        assert_eq!(server.received.recv().expect("one").header("authorization"), "Bearer t0p-secret");
        let shown = format!("{:?} {:?}", ran.outcome.map(|done| done.as_text().into_owned()), ran.logs);
        assert!(shown.contains("***"), "{shown}");
        for secret in ["t0p-secret", "an0ther-secret", "s1gning-key", "T0KEN-IN-PATH"] {
            assert!(!shown.contains(secret), "{status}: {secret} in {shown}");
        }
    }
}

#[test]
fn headers_from_files_follow_the_file() {
    let server = Proper::replies(ok());
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("authorization");
    fs::write(&file, "Bearer one\n").expect("writable");
    let mut kit = kit(json!({ "url": server.url("/"), "header_files": { "Authorization": file } }));
    for token in ["Bearer one", "Bearer two"] {
        fs::write(&file, token).expect("writable");
        kit.run("Send notification").done();
        assert_eq!(server.received.recv().expect("one").header("authorization"), token);
    }
    fs::remove_file(&file).expect("it was there");
    let ran = kit.run("Send notification");
    assert!(ran.failure().is_retry() && ran.failure().code() == "settings-unreadable", "{}", ran.failure());
}

#[test]
fn sending_headers_in_the_clear_is_warned_of() {
    let warned = |settings: Value| !kit(settings).logs().is_empty();
    let headers = json!({ "Authorization": "Bearer x" });
    assert!(warned(json!({ "url": "http://example.com/", "headers": headers })));
    assert!(!warned(json!({ "url": "https://example.com/", "headers": headers })));
    assert!(!warned(json!({ "url": "http://127.0.0.1/", "headers": headers })));
    assert!(!warned(json!({ "url": "http://example.com/" })));
}

#[test]
fn wrong_settings_are_refused_with_key_and_remedy_and_without_secrets() {
    let url = "https://example.com/s3cret-path";
    for (settings, part) in [
        (json!({}), "url: it is missing: write url = \"https://…\""),
        (json!({ "url": url, "url_file": "/x" }), "url: url_file is set too"),
        (json!({ "url": "example.com/s3cret-path" }), "url: "),
        (json!({ "url": "ftp://example.com/s3cret-path" }), "url: it needs http:// or https://"),
        (json!({ "url": "https://user:s3cret@example.com/" }), "url: user and password do not belong"),
        (json!({ "url": "https://exa mple/s3cret" }), "url: not an address"),
        (json!({ "url_file": "/nowhere/s" }), "/nowhere/s cannot be read"),
        (json!({ "url": url, "method": "GET" }), "method: \"GET\" is not possible"),
        (json!({ "url": url, "headers": { "Host": "x" } }), "headers.Host: this header is set by"),
        (json!({ "url": url, "headers": { "a b": "x" } }), "headers.a b: not a header's name"),
        (json!({ "url": url, "headers": { "A": "s3cret\nX: y" } }), "headers.a: the value has a line break"),
        (
            json!({ "url": url, "headers": { "A": "x" }, "header_files": { "a": "/x" } }),
            "header is set twice",
        ),
        (json!({ "url": url, "secret": "s3cret", "secret_file": "/x" }), "secret: secret_file is set too"),
        (json!({ "url": url, "secret": "" }), "secret: it is empty"),
        (json!({ "url": url, "secret_file": "secret" }), "secret is not an absolute path"),
        (json!({ "url": url, "timeout": "0s" }), "timeout: 0 would let every request fail"),
        (json!({ "url": url, "timeout": 30 }), "timeout"),
        (json!({ "url": url, "max_response": 10_000_000 }), "max_response: 10000000 is too much"),
        (json!({ "url": url, "ca_file": "/etc/hostname" }), "ca_file: /etc/hostname has no certificate"),
        (json!({ "url": url, "uri": "x" }), "uri"),
    ] {
        let error = TestKit::<Webhook>::new(&settings).err().expect("refused").to_string();
        assert!(error.contains(part), "{settings}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
