//! Message headers nested as deep as a frame holds, which the AMQP library reads recursively: one message must not end
//! the daemon, nor `warrenctl dead`. Written with frames of our own, because a library that nests as deep would end the
//! test instead.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts};

/// An array in an array costs five bytes; this many fill most of a frame of 131,072 bytes, RabbitMQ's `frame_max`.
const DEPTH: u32 = 25_000;

#[test]
fn a_task_with_headers_nested_as_deep_as_a_frame_holds_is_done_like_any_other() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "nested");
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", "retry = { attempts = 2, delay = \"250ms\" }");
    home.configure(Keys { rest: &rest, ..Keys::default() });
    let broker = Broker::connect(&node.uri());
    broker.declare(home.queue(), &[]);
    let mut daemon = Daemon::start(&home);

    let mut producer = Producer::connect(node.port());
    producer.publish(home.queue(), DEPTH, b"Scenario ok");
    producer.publish(home.queue(), DEPTH, b"Nobody takes this");
    broker.publish(home.queue(), "after", "Scenario ok");

    daemon.wait_count("done", 2);
    daemon.wait_count("dead", 1);
    assert!(daemon.is_running());
    assert_eq!(daemon.status()["broker"]["connects"], 1);
    let letter = broker.take(&home.dead());
    let altered = letter.header("x-warren-altered").expect("what was changed");
    assert_eq!(altered, "headers nested deeper than 64 levels became bytes");
    assert!(daemon.terminate().success());
}

#[test]
fn a_dead_letter_with_headers_nested_as_deep_as_a_frame_holds_is_looked_at_and_replayed() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "nested_dead");
    home.configure(Keys::default());
    let broker = Broker::connect(&node.uri());
    broker.declare(home.queue(), &[]);
    broker.declare(&home.dead(), &[]);
    Producer::connect(node.port()).publish(&home.dead(), DEPTH, b"Nobody takes this");
    broker.wait_depth(&home.dead(), 1);
    for words in [&["list"][..], &["export"], &["replay", "--all"]] {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("dead").args(words).arg("--config").arg(home.config());
        let output = command.output().expect("warrenctl");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    broker.wait_depth(home.queue(), 1);
}

/// A producer that knows just enough of AMQP 0-9-1.
struct Producer {
    socket: TcpStream,
}

impl Producer {
    fn connect(port: u16) -> Self {
        let mut producer = Self { socket: TcpStream::connect(("127.0.0.1", port)).expect("the node") };
        producer.socket.write_all(b"AMQP\0\0\x09\x01").expect("protocol header");
        producer.expect(10, 10);
        let start_ok = [long(b""), short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        producer.method(0, 10, 11, &start_ok);
        let tune = producer.expect(10, 30);
        producer.method(0, 10, 31, &tune);
        producer.method(0, 10, 40, &[short(b"/"), short(b""), vec![0]].concat());
        producer.expect(10, 41);
        producer.method(1, 20, 10, &short(b""));
        producer.expect(20, 11);
        producer.method(1, 85, 10, &[0]); // confirm.select
        producer.expect(85, 11);
        producer
    }

    /// Publishes with one header, an array `depth` deep, and waits for the confirm.
    fn publish(&mut self, queue: &str, depth: u32, body: &[u8]) {
        let mut table = b"\x01n".to_vec();
        for level in (0..depth).rev() {
            table.push(b'A');
            table.extend((level * 5).to_be_bytes());
        }
        let address = [vec![0, 0], short(b""), short(queue.as_bytes()), vec![0]].concat();
        self.method(1, 60, 40, &address);
        let size = (body.len() as u64).to_be_bytes();
        // Class 60, weight 0, body size, and the flag of the property `headers`.
        let header = [&[0, 60, 0, 0], &size[..], &[0x20, 0], &long(&table)].concat();
        self.frame(2, 1, &header);
        self.frame(3, 1, body);
        self.expect(60, 80);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(1, channel, &payload);
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xCE]].concat();
        self.socket.write_all(&frame).expect("write");
    }

    /// The arguments of the next method, which must be this one; heartbeats are passed over.
    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.socket.read_exact(&mut head).expect("a frame");
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
            let mut payload = vec![0; size as usize + 1]; // and the frame's end
            self.socket.read_exact(&mut payload).expect("a whole frame");
            if head[0] != 1 {
                continue;
            }
            let found =
                (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
            assert_eq!(found, (class, method), "{}", String::from_utf8_lossy(&payload));
            return payload[4..payload.len() - 1].to_vec();
        }
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("small").to_be_bytes()[..], text].concat()
}
