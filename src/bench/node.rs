//! A node as a second process: the same program as `edge`, on free ports of the loopback and data of its own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, anyhow, bail};
use millpond_core::time::Span;
use millpond_env::Env;
use tokio::sync::mpsc;

use millpond_gateway::client::http::HttpClient;

use crate::world::os;

const START_TIMEOUT: Span = Span::from_secs(60);
const STOP_TIMEOUT: Span = Span::from_secs(30);

/// Stopped at the latest when it is dropped (then by force), or when this process ends.
#[derive(Debug)]
pub struct ChildNode {
    child: Child,
    /// `None` once it was stopped.
    running: bool,
    data: DataDir,
    config: Option<String>,
    sets: Vec<String>,
    role: Role,
    mqtt: (String, u16),
    http: (String, u16),
    /// Where it listens for the other nodes of its site.
    site: Option<SocketAddr>,
}

/// A directory for data; a temporary one of ours is removed when this is dropped.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    is_ours: bool,
}

/// What a node says of its journal, and what its files say.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Events that were ever stored, also those that retention has given up since.
    pub events: Option<u64>,
    /// Encoded records of raw events, without the pages around them.
    pub journal_bytes: Option<u64>,
    pub dead_letters: Option<u64>,
    /// What the data directory takes on disk.
    pub file_bytes: u64,
}

/// How a node shall be started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Where its data goes; `None`: a new directory below the system's directory for temporary files, removed at the end.
    pub data: Option<PathBuf>,
    /// A directory made for it by [`own_directory`], removed at the end.
    pub temporary: Option<PathBuf>,
    /// A configuration, as text.
    pub config: Option<String>,
    /// `section.key=value`, laid over it.
    pub sets: Vec<String>,
    /// The command that runs it.
    pub role: Role,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Edge,
    Cloud,
}

impl Role {
    fn command(self) -> &'static str {
        ["edge", "cloud"][self as usize]
    }
}

impl Launch {
    /// Everyone on this machine may come in: for measuring only.
    pub fn open() -> Launch {
        let sets = ["mqtt.anonymous=true", "http.anonymous=true", "log.level=\"warn\""];
        Launch { sets: sets.map(str::to_owned).to_vec(), ..Launch::default() }
    }
}

impl ChildNode {
    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    /// When it ends first or says nothing for a minute; with what it wrote on stderr.
    pub async fn start(env: &Env, launch: Launch) -> anyhow::Result<ChildNode> {
        let data = match launch.temporary {
            Some(path) => DataDir { path, is_ours: true },
            None => DataDir::new(launch.data)?,
        };
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let child = spawn(launch.role, &data.path, launch.config.as_deref(), &launch.sets, (any, any))?;
        let mut node = ChildNode {
            child,
            running: true,
            data,
            config: launch.config,
            sets: launch.sets,
            role: launch.role,
            mqtt: (String::new(), 0),
            http: (String::new(), 0),
            site: None,
        };
        let (mqtt, http, site) = node.ready(env).await?;
        node.site = site;
        node.mqtt = (mqtt.ip().to_string(), mqtt.port());
        node.http = (http.ip().to_string(), http.port());
        Ok(node)
    }

    /// Starts it again after it ended by itself, with the same data and on the same ports.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self, env: &Env) -> anyhow::Result<()> {
        let _ = self.child.kill();
        self.child.wait()?;
        let door = |(host, port): &(String, u16)| anyhow::Ok(SocketAddr::new(host.parse()?, *port));
        let doors = (door(&self.mqtt)?, door(&self.http)?);
        let site = self.site.map(|site| format!("site.listen=\"{site}\""));
        let sets: Vec<String> = self.sets.iter().cloned().chain(site).collect();
        self.child = spawn(self.role, &self.data.path, self.config.as_deref(), &sets, doors)?;
        self.running = true;
        self.ready(env).await.map(|_| ())
    }

    async fn ready(&mut self, env: &Env) -> anyhow::Result<Doors> {
        let stdout = self.child.stdout.take().context("the node has no stdout")?;
        let (tx, mut lines) = mpsc::unbounded_channel();
        env.blocking.run(Box::new(move || {
            // Reads until the node ends, so that it never waits for a reader.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tx.send(line);
            }
        }));
        let ready = async {
            while let Some(line) = lines.recv().await {
                if let Some(doors) = doors(&line) {
                    return Some(doors);
                }
            }
            None
        };
        match env.timeout(START_TIMEOUT, ready).await {
            Ok(Some(doors)) => Ok(doors),
            Ok(None) => bail!("the node ended before it was ready:\n{}", self.words()),
            Err(_) => bail!("the node was not ready after {START_TIMEOUT}:\n{}", self.words()),
        }
    }

    /// Where it listens for the other nodes of its site, when it is one of a site.
    pub fn site(&self) -> Option<SocketAddr> {
        self.site
    }

    /// Ends it without a warning, as a loss of power does.
    pub fn kill(&self) {
        signal(self.child.id(), libc::SIGKILL);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Host and port of its door for MQTT.
    pub fn mqtt(&self) -> (&str, u16) {
        (&self.mqtt.0, self.mqtt.1)
    }

    /// Host and port of its door for HTTP.
    pub fn http(&self) -> (&str, u16) {
        (&self.http.0, self.http.1)
    }

    /// What it wrote on stderr.
    pub fn words(&self) -> String {
        os::read(&self.data.path.join(LOG))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Why it ended, when it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// A client for its API; without a token when anonymous requests are answered.
    pub fn client(&self, env: &Env, token: Option<&str>) -> anyhow::Result<HttpClient> {
        Ok(HttpClient::new(env.clone(), &format!("http://{}:{}", self.http.0, self.http.1), token)?)
    }

    /// What its journal holds.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn stored(&self, client: &HttpClient) -> anyhow::Result<Stored> {
        let journal = client.get("/v1/journal").await.context("the node does not tell of its journal")?;
        let raw = |key: &str| journal["classes"]["raw"][key].as_u64();
        Ok(Stored {
            events: raw("events").zip(raw("dropped_events")).map(|(held, dropped)| held + dropped),
            journal_bytes: raw("bytes"),
            dead_letters: journal["dead_letters"].as_u64(),
            file_bytes: file_bytes(&self.data.path),
        })
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// When it does not stop in time (it is killed then), or ends with an error.
    pub async fn stop(mut self, env: &Env) -> anyhow::Result<()> {
        signal(self.child.id(), libc::SIGTERM);
        let until = env.now().after(STOP_TIMEOUT);
        while env.now() < until {
            if let Some(status) = self.child.try_wait()? {
                self.running = false;
                if !status.success() {
                    let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
                    bail!("the node ended with {how}:\n{}", self.words());
                }
                return Ok(());
            }
            env.sleep(Span::from_millis(10)).await;
        }
        Err(anyhow!("the node did not stop within {STOP_TIMEOUT} and was killed:\n{}", self.words()))
    }
}

impl Drop for ChildNode {
    fn drop(&mut self) {
        if self.running {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A new directory below the system's one for temporary files; its node's data goes to `data` in it.
pub fn own_directory() -> anyhow::Result<PathBuf> {
    let dir = DataDir::new(None)?;
    let path = dir.path.clone();
    // Whoever starts the node removes it.
    std::mem::forget(dir);
    Ok(path)
}

impl DataDir {
    /// `None`: a new one below the system's directory for temporary files.
    #[expect(clippy::disallowed_methods, reason = "a directory of our own, below the one for temporary files")]
    pub fn new(chosen: Option<PathBuf>) -> anyhow::Result<DataDir> {
        let is_ours = chosen.is_none();
        let path = match chosen {
            Some(path) => path,
            None => {
                let all = std::env::temp_dir();
                (0..1000)
                    .map(|n| all.join(format!("millpond-{}-{n}", std::process::id())))
                    .find(|path| std::fs::create_dir(path).is_ok())
                    .with_context(|| format!("no directory can be created in {}", all.display()))?
            }
        };
        os::create_private_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(DataDir { path, is_ours })
    }
}

impl Drop for DataDir {
    #[expect(clippy::disallowed_methods, reason = "the directory was created by this process")]
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

const LOG: &str = "node.log";
const CONFIG: &str = "node.toml";

fn spawn(
    role: Role,
    data: &Path,
    config: Option<&str>,
    sets: &[String],
    (mqtt, http): (SocketAddr, SocketAddr),
) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program's own file")?;
    let mut command = Command::new(program);
    command.arg(role.command());
    if let Some(config) = config {
        let path = data.join(CONFIG);
        write_file(&path, config)?;
        command.arg("--config").arg(path);
    }
    let home = toml::Value::from(data.join("data").display().to_string());
    let doors = [format!("mqtt.listen=\"{mqtt}\""), format!("http.listen=\"{http}\""), format!("node.data={home}")];
    for set in &doors {
        command.arg("--set").arg(set);
    }
    for set in sets {
        command.arg("--set").arg(set);
    }
    let words = write_file(&data.join(LOG), "")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(words);
    // Ctrl-C in the terminal is for us: the node stops when we are done with it. It must not outlive us either.
    command.process_group(0);
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().context("the node cannot be started")
}

#[expect(clippy::disallowed_methods, reason = "files of a child process, before it runs")]
fn write_file(path: &Path, content: &str) -> anyhow::Result<std::fs::File> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(content.as_bytes())?;
    Ok(file)
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: the process is our child and was not waited for, so its number cannot belong to another.
    unsafe {
        libc::kill(pid as i32, signal);
    }
}

/// The addresses in the node's line with `ready`: MQTT, HTTP, and that for the other nodes of its site.
type Doors = (SocketAddr, SocketAddr, Option<SocketAddr>);

fn doors(line: &str) -> Option<Doors> {
    line.contains("ready").then_some(())?;
    Some((door(line, "mqtt")?, door(line, "http")?, door(line, "site=")))
}

/// The first address after the word `name`.
fn door(line: &str, name: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once(name)?;
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '[' | ']');
    after
        .split(|c: char| !is_part(c))
        .map(|part| part.trim_matches(|c| c == ':' && part.starts_with(':')))
        .find_map(|part| part.parse().ok())
}

/// Bytes that the files below a directory take on disk.
#[expect(clippy::disallowed_methods, reason = "the sizes of a child's files")]
fn file_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => file_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_doors() {
        let (mqtt, http) = ("127.0.0.1:1883".parse().unwrap(), "[::1]:8080".parse().unwrap());
        for line in [
            "ready mqtt=127.0.0.1:1883 http=[::1]:8080",
            "millpond edge is ready: mqtt 127.0.0.1:1883, http [::1]:8080",
            "ready mqtt://127.0.0.1:1883 http://[::1]:8080/",
        ] {
            assert_eq!(doors(line), Some((mqtt, http, None)), "{line}");
        }
        assert_eq!(doors("mqtt 127.0.0.1:1883 http 127.0.0.1:1"), None);
        assert_eq!(doors("ready mqtt=127.0.0.1:1883"), None);
    }
}
