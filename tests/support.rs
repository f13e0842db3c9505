//! A node as a child process, and the smallest clients that can talk to it.

pub mod mqtt;
pub mod relay;
pub mod site;

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub const MILLPOND: &str = env!("CARGO_BIN_EXE_millpond");

/// A running `millpond edge`, killed when dropped.
pub struct Node {
    child: Child,
    pub mqtt: SocketAddr,
    pub http: SocketAddr,
    /// Where other nodes of its site reach it, when it belongs to one.
    pub site: Option<SocketAddr>,
}

impl Node {
    /// Starts a node on free loopback ports without logins, and waits until its doors are open.
    pub fn start(data: &Path, config: Option<&Path>, set: &[&str]) -> Node {
        let mut command = Command::new(MILLPOND);
        arguments(&mut command, data, config, set);
        Node::launch(command)
    }

    /// Starts whatever command ends up as a node.
    pub fn launch(mut command: Command) -> Node {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.starts_with("ready"))).expect("a `ready` line");
        let word = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let address = |key: &str| word(key).map(|word| word.parse().expect("an address"));
        let (mqtt, http) = (address("mqtt=").expect("a door"), address("http=").expect("a door"));
        Node { mqtt, http, site: address("site="), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the node to end, and waits for it.
    pub fn terminate(mut self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
        let ended = self.child.wait().expect("the node ends");
        assert!(ended.success(), "the node ended with {ended}");
    }

    /// GET as JSON.
    pub fn get(&self, path: &str) -> Value {
        let mut response = agent().get(format!("http://{}{path}", self.http)).call().expect("an answer");
        let body = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body");
        assert_eq!(response.status(), 200, "GET {path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The sum of a metric over its labels; 0 when it was never counted.
    pub fn metric(&self, name: &str) -> f64 {
        let mut response = agent().get(format!("http://{}/metrics", self.http)).call().expect("an answer");
        let text = response.body_mut().read_to_string().expect("a body");
        let values = text.lines().filter_map(|line| line.strip_prefix(name));
        values
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// POST; the status, or nothing when the connection broke.
    pub fn post(&self, path: &str, content_type: &str, body: &str) -> Option<u16> {
        post(self.http, path, content_type, body)
    }

    /// Polls until `f` gives something.
    pub fn wait_for<T>(&self, what: &str, mut f: impl FnMut(&Node) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = f(self) {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn arguments(command: &mut Command, data: &Path, config: Option<&Path>, set: &[&str]) {
    arguments_as(command, "edge", data, config, set);
}

/// The same for another role.
pub fn arguments_as(command: &mut Command, role: &str, data: &Path, config: Option<&Path>, set: &[&str]) {
    command.arg(role);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let data = format!("node.data={}", data.display());
    let common = [
        "mqtt.listen=127.0.0.1:0",
        "http.listen=127.0.0.1:0",
        "mqtt.anonymous=true",
        "http.anonymous=true",
        "log.level=warn",
    ];
    for set in common.iter().copied().chain([data.as_str()]).chain(set.iter().copied()) {
        command.args(["--set", set]);
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

pub fn post(http: SocketAddr, path: &str, content_type: &str, body: &str) -> Option<u16> {
    let response = agent().post(format!("http://{http}{path}")).header("content-type", content_type).send(body);
    response.ok().map(|response| response.status().as_u16())
}

/// A folder of its own for a test, removed when dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// Says aloud that something could not be tested here; where everything must be there (`MILLPOND_TEST_ALL=1`), that is a failure.
pub fn not_here(what: &str) {
    let mut line = String::new();
    let _ = write!(line, "NOT TESTED: {what}");
    eprintln!("{line}");
    assert!(std::env::var_os("MILLPOND_TEST_ALL").is_none(), "{line}");
}

/// Whether a program can be started at all.
pub fn has(program: &str, args: &[&str]) -> bool {
    let tried = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Runs a program to its end; its output on success.
pub fn run(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{command:?} ended with {status}: {out}");
    out
}

/// Calls `f` with each Rust file below a folder.
pub fn sources(folder: &Path, f: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, f);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            f(&path, &std::fs::read_to_string(&path).expect("a text"));
        }
    }
}

/// The folder beside the checkout with recorded data, when it is there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    path.exists().then_some(path)
}
