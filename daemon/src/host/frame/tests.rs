//! What is written is read back, and nothing that is read can do more than fail.

use proptest::prelude::*;

use super::*;

fn buffered(bytes: &[u8], max: usize) -> Buffer {
    let mut buffer = Buffer::new(16, max);
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = buffer.room();
        let n = room.len().min(rest.len());
        room[..n].copy_from_slice(&rest[..n]);
        buffer.filled(n);
        rest = &rest[n..];
    }
    buffer
}

/// The one frame in `bytes`.
fn only(bytes: &[u8]) -> (u8, Vec<u8>) {
    let mut buffer = buffered(bytes, 1 << 20);
    let (kind, payload) = buffer.next().unwrap().unwrap();
    let frame = (kind, payload.to_vec());
    assert!(buffer.next().unwrap().is_none());
    frame
}

fn follow_up() -> FollowUp {
    FollowUp {
        id: "f".into(),
        queue: "q".into(),
        message_type: "t".into(),
        content_type: "c".into(),
        body: b"body\xFF".to_vec(),
        headers: vec![("k".into(), "v".into()), (String::new(), String::new())],
        delay: Duration::from_millis(7),
        expires: Duration::from_millis(8),
        priority: -1,
    }
}

fn full_report() -> Report {
    Report {
        seq: 9,
        outcome: Outcome::Retry,
        error: Some(TaskError {
            code: "busy".into(),
            message: "é".into(),
            retry_after: Some(Duration::from_millis(3)),
        }),
        result: Some(TaskResult { content_type: "text/plain".into(), body: vec![0, 1] }),
        follow_ups: vec![follow_up(), FollowUp::default()],
        duration: Duration::from_nanos(12_345),
    }
}

fn put_report(report: &Report, out: &mut Vec<u8>) {
    let mut fields = Vec::new();
    for follow_up in &report.follow_ups {
        let headers: Vec<_> = follow_up.headers.iter().map(|(k, v)| (&**k, &**v)).collect();
        let frame = FollowUpFrame {
            id: &follow_up.id,
            queue: &follow_up.queue,
            message_type: &follow_up.message_type,
            content_type: &follow_up.content_type,
            body: &follow_up.body,
            delay_ms: follow_up.delay.as_millis() as u64,
            expires_ms: follow_up.expires.as_millis() as u64,
            priority: follow_up.priority,
            headers: &headers,
        };
        frame.put(&mut fields);
    }
    let frame = ReportFrame {
        seq: report.seq,
        outcome: report.outcome,
        duration: report.duration,
        error: report.error.as_ref(),
        result: report.result.as_ref().map(|r| (&*r.content_type, &r.body[..])),
        n_follow_ups: report.follow_ups.len() as u32,
        follow_ups: &fields,
    };
    frame.put(out);
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let plain =
        Report { error: None, result: None, follow_ups: vec![], outcome: Outcome::Done, ..full_report() };
    let outcomes = [
        Outcome::Reject,
        Outcome::Cancelled,
        Outcome::TimedOut,
        Outcome::Fault(FaultCause::Returned),
        Outcome::Fault(FaultCause::Contract),
    ];
    let others = outcomes.map(|outcome| Report { outcome, ..full_report() });
    for report in [full_report(), plain].into_iter().chain(others) {
        let mut out = Vec::new();
        put_report(&report, &mut out);
        let (kind, payload) = only(&out);
        assert_eq!(kind, from_host::REPORT);
        assert_eq!(parse_report(&payload).unwrap(), report);
    }
}

#[test]
fn a_task_is_read_as_it_was_written() {
    let headers = [("key".to_owned(), "value".to_owned())];
    let task = HostTask {
        seq: 5,
        attempt: 2,
        redelivered: true,
        id_generated: false,
        id: "id",
        queue: "queue",
        prefix: "prefix",
        argument: "argument",
        content_type: "",
        headers: &headers,
        body: b"\x00\xFF",
        timeout: Duration::from_secs(3),
        wants_result: true,
    };
    let mut out = Vec::new();
    put_task(&mut out, &task);
    let (kind, payload) = only(&out);
    assert_eq!(kind, to_host::TASK);
    let mut read = TaskFrame::parse(&payload).unwrap();
    assert_eq!((read.seq, read.attempt, read.timeout), (5, 2, task.timeout));
    assert_eq!((read.redelivered, read.id_generated, read.wants_result), (true, false, true));
    assert_eq!((read.id, read.queue, read.prefix), (&b"id"[..], &b"queue"[..], &b"prefix"[..]));
    assert_eq!((read.argument, read.content_type, read.body), (&b"argument"[..], &b""[..], task.body));
    assert_eq!(read.n_headers, 1);
    assert_eq!((read.headers.bytes(), read.headers.bytes()), (Ok(&b"key"[..]), Ok(&b"value"[..])));
}

#[test]
fn an_argument_that_is_a_part_of_the_body_is_sent_once() {
    let whole = b"Task 1: argument".to_vec();
    let (text, other) = (std::str::from_utf8(&whole).unwrap(), "Task 1: argument".to_owned());
    let size = |argument: &str| {
        let task = HostTask { argument, body: &whole, ..HostTask::default() };
        let mut out = Vec::new();
        put_task(&mut out, &task);
        let (_, payload) = only(&out);
        assert_eq!(TaskFrame::parse(&payload).unwrap().argument, argument.as_bytes());
        out.len()
    };
    assert_eq!(size(&text[8..]), size(""));
    assert_eq!(size(&text[8..]), size(text));
    assert_eq!(size(&other[8..]), size(text) + "argument".len());
}

#[test]
fn a_part_outside_of_its_whole_is_refused() {
    for (start, len, expected) in
        [(1_u32, 3_u32, true), (1, 4, false), (5, 0, false), (u32::MAX - 1, u32::MAX, false)]
    {
        let fields = [start.to_le_bytes(), len.to_le_bytes()].concat();
        assert_eq!(FieldReader(&fields).part(b"four").is_ok(), expected, "{start} {len}");
    }
}

#[test]
fn the_initial_frame_is_read_as_it_was_written() {
    let init = Init {
        memory: 64 << 20,
        cpu_time: Duration::from_millis(1500),
        max_files: 256,
        output: OutputBounds { bytes: 5, lines: 6 },
        parent: 77,
        handler: "backup".into(),
        settings_json: "{}".into(),
        create_timeout: Duration::from_secs(1),
        grace: Duration::from_secs(2),
    };
    let mut out = Vec::new();
    init.put(&mut out);
    let (kind, payload) = only(&out);
    assert_eq!((kind, Init::parse(&payload)), (to_host::INIT, Ok(init)));
}

#[test]
fn a_control_message_is_read_as_it_was_written() {
    for started_too in [false, true] {
        let message = ControlMessage { seq: 1 << 40, started_too };
        assert_eq!(ControlMessage::parse(message.bytes()), message);
    }
}

#[test]
fn a_report_cut_anywhere_is_malformed() {
    let mut out = Vec::new();
    put_report(&full_report(), &mut out);
    let (_, payload) = only(&out);
    for len in 0..payload.len() {
        assert!(parse_report(&payload[..len]).is_err(), "cut to {len}");
    }
}

#[test]
fn a_frame_that_has_not_arrived_whole_is_waited_for() {
    let mut out = Vec::new();
    put_report(&full_report(), &mut out);
    for len in 0..out.len() {
        assert!(buffered(&out[..len], 1 << 20).next().unwrap().is_none(), "{len} bytes");
    }
}

#[test]
fn a_frame_over_its_bound_is_refused_before_it_is_read() {
    assert!(buffered(&[0xFF; 5], 1 << 20).next().is_err());
}

#[test]
fn a_large_frame_gives_its_memory_back() {
    let mut buffer = buffered(&vec![0; 10_000], 1 << 20);
    assert!(buffer.room().len() > 16);
    let mut frames = 0;
    while buffer.next().unwrap().is_some() {
        frames += 1;
    }
    assert_eq!((frames, buffer.room().len()), (2000, 16));
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_report(&bytes);
        let _ = TaskFrame::parse(&bytes);
        let _ = Init::parse(&bytes);
        let _ = parse_error(&mut FieldReader(&bytes));
        let mut buffer = buffered(&bytes, 1 << 10);
        while let Ok(Some(_)) = buffer.next() {}
    }

    #[test]
    fn a_report_with_a_changed_byte_is_read_or_refused(at in 0_usize..120, byte in any::<u8>()) {
        let mut out = Vec::new();
        put_report(&full_report(), &mut out);
        let (_, mut payload) = only(&out);
        let at = at % payload.len();
        payload[at] = byte;
        let _ = parse_report(&payload);
    }
}
