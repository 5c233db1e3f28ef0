//! A private RabbitMQ node on loopback: own data directory, own cookie, own epmd, free ports. It needs Debian's
//! `rabbitmq-server` package installed, not running, and no privileges; `release.rs` knows other versions.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::authority::Authority;
use crate::pool::OwnNode;
use crate::release::Release;

/// Tells "stuck" from "slow": a node answers within 3 to 6 seconds on an idle machine, and took more than 90 on two cores
/// with fourteen processes at work.
const START_LIMIT: Duration = Duration::from_secs(300);

/// A task that was on its way back from its delay queue when the leader of its work queue died is sent again after
/// this. RabbitMQ's default is three minutes.
const ADVANCED: &str = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n";

/// In a node's directory, which is its home. The node writes it when it is not there, and keeps it from others' eyes.
const COOKIE: &str = ".erlang.cookie";

/// A running node. Dropping it ends it; so does the end of this process, however it ends, because the keeper
/// process reads its standard input from here.
#[derive(Debug)]
pub struct Node {
    directory: TempDir,
    release: Release,
    port: u16,
    tls_port: u16,
    epmd: u16,
    environment: Vec<(&'static str, String)>,
    keeper: Child,
}

/// Ends the node when its standard input ends. `$1` is the data directory, which goes too: the test process may not be
/// there any more to remove it. `$2` is the server script, `$3` the port of the epmd to start, or nothing where another
/// node's serves; the rest is what stands before a program to run it in its release. epmd is started here because one
/// that the node starts is a daemon of nobody's, and refuses to end while it thinks a node is there.
const KEEPER: &str = r#"
directory=$1 script=$2 port=$3 epmd=
shift 3
if [ -n "$port" ]; then
    "$@" epmd -port "$port" -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
    epmd=$!
fi
"$@" "$script" </dev/null >"$directory/stdout" 2>&1 &
server=$!
read -r _
[ -s "$directory/pid" ] && kill -KILL "$(cat "$directory/pid")" 2>/dev/null
kill -KILL "$server" 2>/dev/null
[ -n "$epmd" ] && kill -KILL "$epmd" 2>/dev/null
wait
rm -rf "$directory"
"#;

impl Node {
    /// The node that all tests share. They keep apart by queue names of their own, and do nothing to it as a whole.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Node> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("a private RabbitMQ node"))
    }

    /// A node that nobody else uses meanwhile, as good as new.
    ///
    /// # Panics
    /// When none starts.
    pub fn own() -> OwnNode {
        OwnNode::take()
    }

    /// Starts a node and waits until it serves AMQP.
    pub fn start() -> Result<Self> {
        let mut node = Self::launch(None, None)?;
        node.wait_until_up()?;
        Ok(node)
    }

    /// Starts a node that also listens with TLS, with a certificate for `localhost`. It takes no client without a
    /// certificate of the same authority, and takes that for a login (EXTERNAL).
    pub fn start_with_tls(authority: &Authority) -> Result<Self> {
        let mut node = Self::launch(None, Some(authority))?;
        node.wait_until_up()?;
        Ok(node)
    }

    /// Starts a node and waits for nothing. It joins the cluster of `seed`, which is up.
    pub(crate) fn launch(seed: Option<&Self>, authority: Option<&Authority>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("warren-node-").tempdir()?;
        let [port, dist, epmd, tls_port] = free_ports()?;
        let epmd = seed.map_or(epmd, |seed| seed.epmd);
        let release = Release::chosen()?;
        let environment = environment(&release.inside(directory.path()), port, dist, epmd);
        let mut settings = format!(
            "listeners.tcp.local = 127.0.0.1:{port}\nlog.console = false\ndisk_free_limit.absolute = 50MB\n"
        );
        if let Some(seed) = seed {
            settings.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
            for (n, name) in [(1, seed.name()), (2, name(port))] {
                writeln!(settings, "cluster_formation.classic_config.nodes.{n} = {name}")?;
            }
            // Nodes talk to who knows their secret.
            fs::copy(seed.directory.path().join(COOKIE), directory.path().join(COOKIE))?;
        }
        let mut plugins = "[].\n";
        if let Some(authority) = authority {
            settings.push_str(&tls(
                authority,
                directory.path(),
                &release.inside(directory.path()),
                tls_port,
            )?);
            plugins = "[rabbitmq_auth_mechanism_ssl].\n";
        }
        fs::write(directory.path().join("rabbitmq.conf"), settings)?;
        fs::write(directory.path().join("advanced.config"), ADVANCED)?;
        fs::write(directory.path().join("enabled_plugins"), plugins)?;
        let own_epmd = if seed.is_none() { epmd.to_string() } else { String::new() };
        let keeper = keep(&release, directory.path(), &own_epmd, &environment)?;
        Ok(Self { directory, release, port, tls_port, epmd, environment, keeper })
    }

    /// Its name in a cluster.
    pub(crate) fn name(&self) -> String {
        name(self.port)
    }

    /// AMQP URI of the default vhost, with the default user.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// The AMQP port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for TLS on loopback, of a node that listens there.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// RabbitMQ's major and minor version, for what differs between them.
    pub fn version(&self) -> (u32, u32) {
        self.release.version().expect("the server's directory carries its version")
    }

    /// A path in its directory, and the same as the node itself sees it.
    pub fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.directory.path();
        (directory.join(name), self.release.inside(directory).join(name))
    }

    /// Runs `rabbitmqctl` against the node. It takes a second or two: for what [`Node::eval`] cannot do.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("rabbitmqctl").args(arguments).output()?;
        success("rabbitmqctl", &output)
    }

    /// Closes every connection from the broker's side. That a channel did not end in time, or that a connection is gone
    /// already, is no error: a busy broker says so of connections that it does close.
    pub fn close_all_connections(&self) -> Result<()> {
        let close = "[catch rabbit_networking:close_connection(P, \"closed by a test\") || P <- rabbit_networking:connections()]";
        self.eval(close).map(drop)
    }

    /// Kills the node and starts it again on the same ports with the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.resume()
    }

    /// Kills the broker like a power cut. The ports stay this node's for [`Node::resume`].
    pub fn stop(&mut self) -> Result<()> {
        let pid_file = self.directory.path().join("pid");
        let pid = fs::read_to_string(&pid_file)?.trim().parse()?;
        let pid = rustix::process::Pid::from_raw(pid).context("pid file")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        let end = Instant::now() + Duration::from_secs(20);
        while Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("fd").exists() && self.answers()
        {
            ensure!(Instant::now() < end, "the node does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_file(pid_file)?;
        Ok(())
    }

    /// Starts a stopped node again.
    pub fn resume(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_until_up()?;
        self.remember()
    }

    /// Starts a stopped node again and waits for nothing.
    pub(crate) fn begin(&self) -> Result<()> {
        let child = self
            .command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        drop(child); // the keeper ends it by its pid file
        Ok(())
    }

    /// Stops the broker's process as it is (SIGSTOP): everything stays open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets a frozen broker go on (SIGCONT).
    pub fn thaw(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = fs::read_to_string(self.directory.path().join("pid"))?.trim().parse()?;
        let pid = rustix::process::Pid::from_raw(pid).context("pid file")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    pub(crate) fn wait_until_up(&mut self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while !self.answers() {
            if let Some(status) = self.keeper.try_wait()? {
                bail!("the node's keeper ended: {status}");
            }
            ensure!(Instant::now() < end, "RabbitMQ does not answer within {START_LIMIT:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.keep_dead_letter_workers()
    }

    /// RabbitMQ 3.10.8 ends all dead-letter workers of a node when two of them fail within five seconds, as they do when a
    /// new leader answers late on a loaded machine: nothing comes back from the node's delay queues until they have another
    /// leader. Releases since 3.11.12 (pull request 7677) let a hundred fail in a second, and so does this node.
    fn keep_dead_letter_workers(&self) -> Result<()> {
        // The fifth and sixth field of a supervisor's state: how many restarts in how many seconds.
        self.eval(
            "sys:replace_state(rabbit_fifo_dlx_sup, fun
                (S) when element(6, S) =:= 1, element(7, S) =:= 5 -> setelement(7, setelement(6, S, 100), 1);
                (S) -> S
             end), ok",
        )?;
        Ok(())
    }

    /// Whether the listener speaks AMQP: it answers the protocol header with `connection.start`, a method frame.
    fn answers(&self) -> bool {
        let attempt = || -> std::io::Result<bool> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.write_all(b"AMQP\0\0\x09\x01")?;
            let mut first = [0];
            socket.read_exact(&mut first)?;
            Ok(first == [1])
        };
        attempt().unwrap_or(false)
    }

    fn log(&self) -> String {
        ["stdout", "log/rabbit.log"]
            .iter()
            .map(|name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default())
            .collect()
    }

    /// One of RabbitMQ's scripts, for this node.
    fn command(&self, script: &str) -> Command {
        self.program(&self.release.script(script))
    }

    /// Any program as this node would run it.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut command = self.release.command(self.directory.path(), program);
        command.envs(self.environment.iter().map(|(key, value)| (*key, value)));
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn keep(
    release: &Release,
    directory: &Path,
    epmd: &str,
    environment: &[(&'static str, String)],
) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    Command::new("sh")
        .args(["-c", KEEPER, "keeper"])
        .arg(directory)
        .arg(release.script("rabbitmq-server"))
        .arg(epmd)
        .args(release.enter(directory))
        .envs(environment.iter().map(|(key, value)| (*key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // Ctrl-C on the test must reach the keeper as the end of its input only
        .spawn()
        .context("sh")
}

/// Settings for a listener with TLS; writes its certificate and key. `inside` is the directory as the node sees it.
fn tls(authority: &Authority, directory: &Path, inside: &Path, port: u16) -> Result<String> {
    let server = authority.issue("localhost");
    let mut settings = format!(
        "listeners.ssl.local = 127.0.0.1:{port}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
         auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n"
    );
    for (option, text) in
        [("cacertfile", authority.certificate()), ("certfile", &server.certificate), ("keyfile", &server.key)]
    {
        fs::write(directory.join(option), text)?;
        writeln!(settings, "ssl_options.{option} = {}", inside.join(option).display())?;
    }
    Ok(settings)
}

fn name(port: u16) -> String {
    format!("warren-{port}@localhost")
}

fn environment(directory: &Path, port: u16, dist: u16, epmd: u16) -> Vec<(&'static str, String)> {
    let path = |name: &str| directory.join(name).display().to_string();
    vec![
        ("HOME", path("")), // its own .erlang.cookie
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        // A node that is killed while it starts would leave one where the test runs.
        ("ERL_CRASH_DUMP", "/dev/null".to_owned()),
        ("RABBITMQ_NODENAME", name(port)),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", dist.to_string()),
        ("ERL_EPMD_PORT", epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_MNESIA_BASE", path("mnesia")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_LOGS", path("log/rabbit.log")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_PID_FILE", path("pid")),
        // One scheduler, and none that spins: the machine is shared with the daemon under test.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
                .to_owned(),
        ),
    ]
}

/// Ports that were free a moment ago. All are held until all are known, so that they differ.
///
/// They lie below those that the kernel gives to outgoing connections: while a node is stopped, its port may not become
/// one end of a connection. A client that dials it again and again would even reach itself in the end.
fn free_ports() -> Result<[u16; 4]> {
    const PORTS: std::ops::Range<u16> = 10_000..32_768;
    const TRIES: usize = 1_000;
    let mut held = Vec::new();
    for _ in 0..TRIES {
        held.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(PORTS))));
        if let [a, b, c, d] = &held[..] {
            let port = |listener: &TcpListener| Ok::<_, std::io::Error>(listener.local_addr()?.port());
            return Ok([port(a)?, port(b)?, port(c)?, port(d)?]);
        }
    }
    bail!("no four free ports in {PORTS:?}")
}

fn success(what: &str, output: &Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{what}: {}: {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}
