//! Good jobs, and all that their outcomes must say.
//!
//! A work gives its request and the members that its outcome must have; no two of the same kind are alike.

use serde_json::{Value, json};
use wpool_tests::chance::Chance;

/// What is asked, and what must come of it.
type Work = fn(&str, &mut Chance) -> (Value, Value);

pub(crate) const WORKS: &[(&str, Work)] = &[
    ("says its name", speaks),
    ("copies its input", copies),
    ("fails with a code", fails),
    ("changes files", changes_files),
    ("brings out many files", brings_out),
    ("computes in Python", computes),
    ("keeps a table in SQLite", keeps_a_table),
    ("works in processes and threads", shares_work),
    ("sorts in a pipeline", sorts),
    ("writes much", writes_much),
    ("writes more than is kept", writes_too_much),
    ("shows its environment", shows_environment),
    ("runs a program of its own", runs_its_own),
    ("talks to itself", talks_to_itself),
    ("leaves its input unread", reads_nothing),
    ("looks around", looks_around),
];

/// What an outcome says of a job that did all it should.
fn well(stdout: &str) -> Value {
    json!({
        "state": "succeeded", "exit_code": 0, "signal": null, "limits_hit": [],
        "stdout": stdout, "stdout_bytes": stdout.len(), "stdout_truncated": false,
        "stderr": "", "stderr_bytes": 0, "stderr_truncated": false,
    })
}

fn python(code: &str, arguments: &[&str]) -> Value {
    let command = [&["python3", "-c", code], arguments].concat();
    json!({"command": command})
}

fn speaks(name: &str, _: &mut Chance) -> (Value, Value) {
    (
        json!({"command": ["echo", name]}),
        well(&format!("{name}\n")),
    )
}

fn copies(name: &str, chance: &mut Chance) -> (Value, Value) {
    let lines = usize::try_from(chance.between(1, 2_000)).unwrap_or(1);
    let text = format!("{name} über\n").repeat(lines);
    (json!({"command": ["cat"], "stdin": text}), well(&text))
}

fn fails(name: &str, chance: &mut Chance) -> (Value, Value) {
    let code = chance.between(1, 123);
    let script = format!("echo {name} >&2; exit {code}");
    let mut expected = well("");
    expected["state"] = json!("failed");
    expected["exit_code"] = json!(code);
    expected["stderr"] = json!(format!("{name}\n"));
    expected["stderr_bytes"] = json!(name.len() + 1);
    (json!({"command": ["sh", "-c", script]}), expected)
}

fn changes_files(name: &str, chance: &mut Chance) -> (Value, Value) {
    let text = format!("{name} ").repeat(usize::try_from(chance.between(1, 500)).unwrap_or(1));
    let request = json!({
        "command": ["sh", "-c", "tr a-z0-9 A-Za-j < in/text > out.txt; cat in/bytes in/bytes > twice; echo done"],
        "files": {"in/text": text.clone(), "in/bytes": {"base64": "/wD+"}},
        "outputs": ["out.txt", "twice", "none"],
    });
    let changed: String = text.chars().map(shifted).collect();
    let mut expected = well("done\n");
    expected["files"] = json!({
        "out.txt": {"text": changed},
        "twice": {"base64": "/wD+/wD+"},
        "none": {"error": "missing"},
    });
    (request, expected)
}

/// What `tr a-z0-9 A-Za-j` makes of a letter.
fn shifted(c: char) -> char {
    match c.to_digit(10) {
        Some(digit) => char::from_digit(digit + 10, 36).unwrap_or(c),
        None => c.to_ascii_uppercase(),
    }
}

fn brings_out(name: &str, chance: &mut Chance) -> (Value, Value) {
    let count = chance.between(1, 60);
    let script = format!("mkdir out; for n in $(seq {count}); do echo {name} $n > out/$n; done");
    let files = (1..=count).map(|n| (format!("out/{n}"), json!({"text": format!("{name} {n}\n")})));
    let mut expected = well("");
    expected["files"] = Value::Object(files.collect());
    (
        json!({"command": ["sh", "-c", script], "outputs": ["out/*"]}),
        expected,
    )
}

fn computes(name: &str, chance: &mut Chance) -> (Value, Value) {
    let (a, b) = (chance.up_to(1 << 30), chance.up_to(1 << 30));
    let code = "import hashlib, json, sys; a, b = map(int, sys.argv[2:]); print(json.dumps([sys.argv[1], a * b, len(hashlib.sha256(bytes(a % 99)).hexdigest())]))";
    let said = format!("[\"{name}\", {}, 64]\n", u128::from(a) * u128::from(b));
    (
        python(code, &[name, &a.to_string(), &b.to_string()]),
        well(&said),
    )
}

fn keeps_a_table(_: &str, chance: &mut Chance) -> (Value, Value) {
    let rows = chance.between(1, 400);
    let code = "import sqlite3, sys
table = sqlite3.connect('/tmp/table.db'); table.execute('create table t (n integer)')
table.executemany('insert into t values (?)', [(n,) for n in range(int(sys.argv[1]))]); table.commit()
print(*table.execute('select count(*), total(n) from t').fetchone())";
    let said = format!("{rows} {}.0\n", rows * (rows - 1) / 2);
    (python(code, &[&rows.to_string()]), well(&said))
}

fn shares_work(_: &str, chance: &mut Chance) -> (Value, Value) {
    let most = chance.between(1_000, 9_000);
    let code = "import os, sys, threading
most = int(sys.argv[1]); sums = {}
def part(n): sums[n] = sum(range(n, most, 4))
threads = [threading.Thread(target=part, args=(n,)) for n in range(2)]
for thread in threads: thread.start()
ends, end = os.pipe()
for n in (2, 3):
    if os.fork() == 0:
        part(n); os.write(end, sums[n].to_bytes(8, 'big')); os._exit(0)
for thread in threads: thread.join()
for _ in range(2): os.wait()
print(sums[0] + sums[1] + sum(int.from_bytes(os.read(ends, 8), 'big') for _ in range(2)))";
    (
        python(code, &[&most.to_string()]),
        well(&format!("{}\n", most * (most - 1) / 2)),
    )
}

fn sorts(_: &str, chance: &mut Chance) -> (Value, Value) {
    let lines = chance.between(10, 2_000);
    let script = format!(
        "seq {lines} | sed 's/.*/& &/' | sort -rn | head -n 3 | tee /dev/shm/kept; wc -l < /dev/shm/kept"
    );
    let top = (0..3).map(|n| lines - n).map(|n| format!("{n} {n}\n"));
    let said = top.collect::<String>() + "3\n";
    (json!({"command": ["sh", "-c", script]}), well(&said))
}

fn writes_much(_: &str, chance: &mut Chance) -> (Value, Value) {
    let bytes = chance.between(100_000, 200_000);
    let script = format!("head -c {bytes} /dev/zero | tr '\\0' x");
    let said = "x".repeat(usize::try_from(bytes).unwrap_or(0));
    let request = json!({"command": ["sh", "-c", script], "limits": {"output_bytes": 200_000}});
    (request, well(&said))
}

fn writes_too_much(name: &str, chance: &mut Chance) -> (Value, Value) {
    const KEPT: usize = 1_000;
    let bytes = usize::try_from(chance.between(10_000, 3_000_000)).unwrap_or(0);
    let script = format!(
        "printf '%500s' {name}; head -c {bytes} /dev/zero | tr '\\0' y; printf '%500s' {name}"
    );
    let end = format!("{name:>500}");
    let mut expected = well(&format!("{end}{end}"));
    expected["stdout_truncated"] = json!(true);
    expected["stdout_bytes"] = json!(bytes + KEPT);
    (
        json!({"command": ["sh", "-c", script], "limits": {"output_bytes": KEPT}}),
        expected,
    )
}

fn shows_environment(name: &str, chance: &mut Chance) -> (Value, Value) {
    let long = "v".repeat(usize::try_from(chance.between(1, 100_000)).unwrap_or(1));
    let code =
        "import os, sys; print(os.environ['NAME'], len(os.environ['LONG']), len(sys.argv[1]))";
    let said = format!("{name} {0} {0}\n", long.len());
    let mut request = python(code, &[&long]);
    request["env"] = json!({"NAME": name, "LONG": long});
    (request, well(&said))
}

fn runs_its_own(name: &str, _: &mut Chance) -> (Value, Value) {
    let program = format!("#!/bin/sh\necho \"$1\" of {name}\n");
    let request = json!({
        "command": ["./bin/tool", "word"],
        "files": {"bin/tool": {"text": program, "mode": "755"}},
    });
    (request, well(&format!("word of {name}\n")))
}

fn talks_to_itself(name: &str, _: &mut Chance) -> (Value, Value) {
    let code = "import socket, sys, threading
server = socket.create_server(('127.0.0.1', 8080))
def serve():
    peer, _ = server.accept()
    with peer: peer.sendall(peer.recv(100).upper())
thread = threading.Thread(target=serve); thread.start()
with socket.create_connection(('127.0.0.1', 8080)) as client:
    client.sendall(sys.argv[1].encode()); print(client.recv(100).decode())
thread.join()";
    (
        python(code, &[&format!("to {name}")]),
        well(&format!("TO {}\n", name.to_ascii_uppercase())),
    )
}

fn reads_nothing(_: &str, chance: &mut Chance) -> (Value, Value) {
    let input = "z".repeat(usize::try_from(chance.between(100_000, 300_000)).unwrap_or(0));
    (json!({"command": ["true"], "stdin": input}), well(""))
}

/// Finds nobody and nothing: each line is what the job before could have left.
fn looks_around(_: &str, _: &mut Chance) -> (Value, Value) {
    let code = "import os
print('files', *(name for place in ('/box', '/tmp', '/dev/shm', '/dev/mqueue') for name in sorted(os.listdir(place))))
print('processes', *sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))
print('descriptors', *sorted(int(name) for name in os.listdir('/proc/self/fd'))[:-1])
print('sockets', *(len(open('/proc/net/' + name).readlines()) - 1 for name in ('tcp', 'tcp6', 'udp', 'unix', 'raw', 'packet')))
print('objects', *(len(open('/proc/sysvipc/' + name).readlines()) - 1 for name in ('msg', 'sem', 'shm')))
print('children', open('/proc/self/task/%d/children' % os.getpid()).read())
print('mask %o' % os.umask(0), 'nice', os.nice(0))";
    // A daemon, and so its jobs, are as nice as who starts them.
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    let said = format!(
        "files\nprocesses 1 2\ndescriptors 0 1 2\nsockets 0 0 0 0 0 0\nobjects 0 0 0\nchildren \nmask 22 nice {nice}\n"
    );
    (python(code, &[]), well(&said))
}
