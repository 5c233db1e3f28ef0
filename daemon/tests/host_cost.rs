//! Ad hoc: what a task costs.
#[allow(dead_code)]
#[path = "host/bed.rs"]
mod bed;
use bed::{run, spawner, spec, task};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;
use warren::host::*;

fn cpu(who: &str) -> f64 {
    // utime+stime in ns by schedstat for a pid
    let pid = who;
    let mut total = 0.0;
    for t in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let s = std::fs::read_to_string(t.path().join("schedstat")).unwrap();
        total += s.split_whitespace().next().unwrap().parse::<f64>().unwrap();
    }
    total / 1000.0
}

async fn measure(batch: usize, total: usize, plugin: Option<&str>) {
    let spawner = spawner();
    let mut spec = spec("{}");
    if let Some(path) = plugin {
        spec.plugin =
            std::sync::Arc::new(warren::plugin::Snapshot::take(std::path::Path::new(path)).unwrap());
    }
    let ready = Rc::new(Notify::new());
    let host: Rc<RefCell<Option<Host>>> = Rc::default();
    let done = Rc::new(Cell::new(0usize));
    let sent = Rc::new(Cell::new(0usize));
    let woken = Rc::new(Notify::new());
    let events: HostEvents = {
        let (done, woken, ready) = (done.clone(), woken.clone(), ready.clone());
        Rc::new(move |_, event| match event {
            HostEvent::Ready => ready.notify_one(),
            HostEvent::Report(_) => {
                done.set(done.get() + 1);
                woken.notify_one();
            }
            HostEvent::Exited(e) => panic!("{e:?}"),
            _ => {}
        })
    };
    *host.borrow_mut() = Some(Host::start(HostId(1), &spec, &spawner, events));
    ready.notified().await;
    let pid = host.borrow().as_ref().unwrap().pid().unwrap().to_string();
    let mut start = Instant::now();
    let (mut c0, mut d0) = (0.0, 0.0);
    let warm = total / 10;
    while done.get() < total {
        if done.get() >= warm && c0 == 0.0 {
            c0 = cpu(&pid);
            d0 = cpu("self");
            start = Instant::now();
        }
        let mut h = host.borrow_mut();
        let h = h.as_mut().unwrap();
        while sent.get() < total && sent.get() - done.get() < batch {
            sent.set(sent.get() + 1);
            h.send(&HostTask {
                seq: sent.get() as u64,
                argument: "done",
                body: b"Torture done, thirty bytes....",
                ..task()
            });
        }
        h.flush();
        drop(h);
        // as an engine refills: only when half is empty
        woken.notified().await;
    }
    let n = (total - warm) as f64;
    println!(
        "{:8} batch {batch:3}: {:.2} us/task wall, host {:.2} us cpu, daemon {:.2} us cpu",
        plugin.map_or("C", |_| "Rust"),
        start.elapsed().as_secs_f64() * 1e6 / n,
        (cpu(&pid) - c0) / n,
        (cpu("self") - d0) / n
    );
}

#[test]
fn cost() {
    let rust = std::env::var("NOOP").ok();
    for batch in [1, 4, 16] {
        run(measure(batch, 100_000, None));
        if let Some(rust) = &rust {
            run(measure(batch, 100_000, Some(rust)));
        }
    }
}
