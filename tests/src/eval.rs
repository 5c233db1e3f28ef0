//! What tests ask and change in a running node, as Erlang that it evaluates itself. `erl_call` takes some ten
//! milliseconds for it, and `rabbitmqctl`, which starts an Erlang of its own, most of a second of CPU time.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use warren::config::QueueType;

use crate::Node;

impl Node {
    /// Evaluates Erlang expressions; gives the last one's value as `erl_call` writes it. It is for numbers, atoms, and
    /// lists that are text.
    pub fn eval(&self, expressions: &str) -> Result<String> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        // A name of its own: a node speaks to one of each name at a time.
        let caller = format!("call-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
        let mut child = self
            .program("erl_call")
            .args(["-sname", &self.name(), "-h", &caller, "-e"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("erl_call")?;
        writeln!(child.stdin.take().context("piped")?, "{expressions}.")?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let value = text.strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        let said = String::from_utf8_lossy(&output.stderr);
        let value =
            value.with_context(|| format!("erl_call: {}: {text}{said}: {expressions}", output.status));
        Ok(value?.trim_matches('"').to_owned())
    }

    /// Evaluates an expression about a queue, which it knows as `Q`. `None`: no such queue.
    ///
    /// # Panics
    /// When the node does not answer, or the expression fails.
    pub fn eval_queue(&self, queue: &str, expression: &str) -> Option<String> {
        let value = self.eval(&format!(
            "case rabbit_amqqueue:lookup({{resource, <<\"/\">>, queue, <<\"{queue}\">>}}) of
                {{ok, Q}} -> {expression};
                _ -> none
             end"
        ));
        Some(value.expect("the node knows of its queue")).filter(|value| value != "none")
    }

    /// The queues whose name begins like this, by name, each with these figures of it (`messages_ready` for instance). Of
    /// a quorum queue they are some seconds old.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn queues(&self, prefix: &str, figures: &[&str]) -> Vec<(String, Vec<u32>)> {
        let listed = self
            .eval(&format!(
                "lists:flatten([
                    [io_lib:format(\"~s\", [Name]), [io_lib:format(\" ~w\", [V]) || {{_, V}} <- Figures], \";\"]
                 || Q <- rabbit_amqqueue:list(),
                    {{resource, _, queue, Name}} <- [amqqueue:get_name(Q)],
                    string:prefix(Name, <<\"{prefix}\">>) =/= nomatch,
                    Figures <- [catch rabbit_amqqueue:info(Q, [{}])], is_list(Figures)])",
                figures.join(", ")
            ))
            .expect("the node lists its queues");
        let rows = listed.split_terminator(';').filter(|row| *row != "[]");
        let rows = rows.map(|row| {
            let mut words = row.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            (name, words.map(|figure| figure.parse().expect("a number")).collect())
        });
        rows.collect()
    }

    /// What the broker has handed over of a queue and not got back. `None`: no such queue.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn unacknowledged(&self, queue: &str) -> Option<u32> {
        let queues = self.queues(queue, &["messages_unacknowledged"]);
        queues.iter().find(|(name, _)| name == queue).map(|(_, figures)| figures[0])
    }

    /// The windows of a queue's consumers.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn windows(&self, queue: &str) -> Vec<u32> {
        let windows = self.eval_queue(
            queue,
            "lists:flatten([io_lib:format(\"~w \", [element(4, C)]) || C <- rabbit_amqqueue:consumers(Q)])",
        );
        let windows = windows.unwrap_or_default();
        windows.split_whitespace().filter_map(|window| window.parse().ok()).collect()
    }

    /// Begins or ends a memory alarm: while it lasts the broker takes nothing that is published.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn alarm(&self, on: bool) {
        let watermark = if on { "0.00001" } else { "0.4" };
        self.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({watermark})")).expect("set");
    }

    /// Adds a user with permissions in the default vhost: patterns for configure, write and read.
    ///
    /// # Panics
    /// When the node does not answer, or has this user.
    pub fn add_user(&self, name: &str, password: &str, permissions: [&str; 3]) {
        let add = format!(
            "ok = rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"{password}\">>, <<\"test\">>)"
        );
        self.eval(&add).expect("a user");
        self.permit(name, permissions);
    }

    /// Changes the permissions of a user in the default vhost.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn permit(&self, user: &str, permissions: [&str; 3]) {
        let [configure, write, read] = permissions.map(|pattern| pattern.replace('\\', r"\\"));
        let set = format!(
            "ok = rabbit_auth_backend_internal:set_permissions(
                <<\"{user}\">>, <<\"/\">>, <<\"{configure}\">>, <<\"{write}\">>, <<\"{read}\">>, <<\"test\">>)"
        );
        self.eval(&set).expect("permissions");
    }

    /// Has the broker take back what is not acknowledged in so many milliseconds, and look for it so often: on channels
    /// that are opened from now on. The type that a queue has to have for it; none: any. 4.3 knows it of quorum queues
    /// only.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn set_consumer_timeout(&self, timeout_ms: u32, tick_ms: u32) -> Option<QueueType> {
        self.set_env("consumer_timeout", timeout_ms);
        self.set_env("channel_tick_interval", tick_ms);
        (self.version() >= (4, 3)).then_some(QueueType::Quorum)
    }

    /// Changes a setting of the broker: for what it reads from now on.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn set_env(&self, key: &str, value: u32) {
        self.eval(&format!("application:set_env(rabbit, {key}, {value})")).expect("set");
    }

    /// Remembers the settings, for [`Node::clean`]. They are forgotten when the node ends.
    pub(crate) fn remember(&self) -> Result<()> {
        let settings = "persistent_term:put(warren_tests, {application:get_all_env(rabbit), \
            vm_memory_monitor:get_vm_memory_high_watermark(), persistent_term:get(max_message_size, none)})";
        self.eval(settings).map(drop)
    }

    /// Makes a node as good as new: no connections, queues, policies or users of others, and the settings that were
    /// remembered. An error when it is not.
    pub(crate) fn clean(&self) -> Result<()> {
        let found = self.eval(CLEAN)?;
        ensure!(found == "clean", "the node is not clean: {found}");
        Ok(())
    }
}

/// With a vhost goes all that is in it. What ends by itself is waited for, five seconds at most.
const CLEAN: &str = r#"
{Env, Watermark, Largest} = persistent_term:get(warren_tests),
[catch rabbit_networking:close_connection(P, "the test is over") || P <- rabbit_networking:connections()],
[rabbit_vhost:delete(V, <<"test">>) || V <- rabbit_vhost:list_names()],
[rabbit_auth_backend_internal:delete_user(U, <<"test">>)
    || L <- rabbit_auth_backend_internal:list_users(), {user, U} <- L, U =/= <<"guest">>],
[application:unset_env(rabbit, K) || {K, _} <- application:get_all_env(rabbit), not lists:keymember(K, 1, Env)],
[application:set_env(rabbit, K, V) || {K, V} <- Env],
case Largest of none -> persistent_term:erase(max_message_size); _ -> persistent_term:put(max_message_size, Largest) end,
vm_memory_monitor:set_vm_memory_high_watermark(Watermark),
rabbit_vhost:add(<<"/">>, <<"test">>),
ok = rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>),
Left = fun() -> {rabbit_alarm:get_alarms(), length(rabbit_networking:connections()), length(rabbit_amqqueue:list())} end,
Wait = fun W(0) -> lists:flatten(io_lib:format("~0p", [Left()]));
    W(N) -> case Left() of {[], 0, 0} -> clean; _ -> timer:sleep(20), W(N - 1) end end,
Wait(250)"#;
