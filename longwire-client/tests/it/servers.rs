//! The servers that clients are tested against: longwire, RabbitMQ and ActiveMQ Classic, each alone on free ports of
//! loopback with its messages in a folder of its own, to be killed and started again.
//!
//! The brokers are Debian's packages (`apt-get install rabbitmq-server activemq`), started without their services. What
//! must stay true: a server that is missing fails the test and says what to install; nothing of a server outlives its
//! test; a restart is on the same ports and the same messages.

use crate::harness::{LIMIT, comes_true, free_port, longwire_binary};
use longwire_client::Tls;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Longwire,
    RabbitMq,
    ActiveMq,
}

/// A server in processes of its own.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    directory: TempDir,
    /// The port of STOMP.
    stomp: u16,
    /// The port of everything that begins with HTTP; of longwire alone.
    http: u16,
    /// Of longwire the ports of HTTPS and of STOMP over TLS; of others what they use among themselves.
    others: [u16; 3],
    /// What longwire proves itself with over TLS.
    certificate: Option<CertificateDer<'static>>,
    child: Option<Child>,
}

/// Heartbeats of a second, and histories and queues that survive.
const LONGWIRE: &str = r#"
[server]
listen = ["127.0.0.1:HTTP"]
shards = 1
data_dir = "DIRECTORY/data"
drain_over = "200ms"
[listeners.stomp]
address = "127.0.0.1:STOMP"
protocol = "stomp"
[listeners.https]
address = "127.0.0.1:OTHER0"
tls_certificate = "DIRECTORY/certificate.pem"
tls_key = "DIRECTORY/key.pem"
[listeners.stomps]
address = "127.0.0.1:OTHER1"
protocol = "stomp"
tls_certificate = "DIRECTORY/certificate.pem"
tls_key = "DIRECTORY/key.pem"
[heartbeat]
interval = "1s"
timeout = "900ms"
[client]
allow_anonymous = true
commands_per_second = 1000000
command_burst = 1000000
max_recovery_publications = 10000
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true
history_size = 10000
history_ttl = "10m"
history_on_disk = true
allow_recovery = true
allow_positioning = true
force_recovery = true
[queue]
max_deliveries = 1000
allow_send_for_client = true
allow_send_for_anonymous = true
allow_consume_for_client = true
allow_consume_for_anonymous = true
[api]
insecure = true
"#;

const RABBITMQ: &str = "\
listeners.tcp.1 = 127.0.0.1:OTHER0
stomp.listeners.tcp.1 = 127.0.0.1:STOMP
default_user = guest
default_pass = guest
loopback_users.guest = true
log.console = false
";

const ACTIVEMQ: &str = r#"
<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
  http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="it" dataDirectory="DIRECTORY/data">
    <persistenceAdapter><kahaDB directory="DIRECTORY/data/kahadb"/></persistenceAdapter>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage percentOfJvmHeap="70"/></memoryUsage>
      <storeUsage><storeUsage limit="1 gb"/></storeUsage>
      <tempUsage><tempUsage limit="1 gb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors><transportConnector name="stomp" uri="stomp://127.0.0.1:STOMP"/></transportConnectors>
  </broker>
</beans>
"#;

const ACTIVEMQ_HOME: &str = "/usr/share/activemq";

impl Server {
    /// Starts one with nothing in it.
    pub(crate) fn start(kind: Kind) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server {
            kind,
            directory,
            stomp: free_port(),
            http: free_port(),
            others: [free_port(), free_port(), free_port()],
            certificate: None,
            child: None,
        };
        server.configure();
        server.start_again();
        server
    }

    /// Where it speaks STOMP.
    pub(crate) fn stomp(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.stomp).into()
    }

    /// Where it speaks HTTP and WebSocket.
    pub(crate) fn http(&self) -> SocketAddr {
        assert_eq!(self.kind, Kind::Longwire, "only longwire is spoken to over HTTP");
        (Ipv4Addr::LOCALHOST, self.http).into()
    }

    /// Where it speaks HTTP and WebSocket over TLS.
    pub(crate) fn https(&self) -> SocketAddr {
        assert_eq!(self.kind, Kind::Longwire, "only longwire is spoken to over TLS");
        (Ipv4Addr::LOCALHOST, self.others[0]).into()
    }

    /// Where it speaks STOMP over TLS.
    pub(crate) fn stomps(&self) -> SocketAddr {
        assert_eq!(self.kind, Kind::Longwire, "only longwire is spoken to over TLS");
        (Ipv4Addr::LOCALHOST, self.others[1]).into()
    }

    /// Trust in this server alone.
    pub(crate) fn trust(&self) -> Tls {
        let mut roots = RootCertStore::empty();
        let certificate = self.certificate.clone().expect("only longwire is spoken to over TLS");
        roots.add(certificate).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.expect("it knows TLS").with_root_certificates(roots).with_no_client_auth();
        Tls::Config(Arc::new(config))
    }

    /// Whether it has read all that came on the connections to its ports.
    pub(crate) fn has_read_everything(&self) -> bool {
        let ports = [self.stomp, self.http, self.others[0], self.others[1]];
        ports.iter().all(|port| !has_unread(*port))
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut child) = self.child.take() {
            child.wait().expect("it is our child");
        }
        self.end_port_mapper();
    }

    /// Ends it as an operator would.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take()
            && !comes_true(LIMIT, || child.try_wait().expect("it is our child").is_some())
        {
            self.child = Some(child);
            panic!("{:?} does not end: {}", self.kind, self.log());
        }
        self.end_port_mapper();
    }

    /// Starts it on what it left, and waits until it listens.
    pub(crate) fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        // A group of its own: scripts start what serves as a child of theirs.
        command.current_dir(self.directory.path()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.kind));
        let address = self.stomp();
        let mut has_ended = false;
        let listens = comes_true(LIMIT * 2, || {
            has_ended = child.try_wait().expect("it is our child").is_some();
            has_ended || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        });
        self.child = Some(child);
        assert!(listens && !has_ended, "{:?} does not start: {}", self.kind, self.log());
    }

    fn configure(&mut self) {
        match self.kind {
            Kind::Longwire => {
                let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
                let pair = made.expect("a certificate");
                std::fs::write(self.path("certificate.pem"), pair.cert.pem()).expect("a file");
                std::fs::write(self.path("key.pem"), pair.signing_key.serialize_pem()).expect("a file");
                self.certificate = Some(pair.cert.der().clone());
                self.write("longwire.toml", LONGWIRE);
            }
            Kind::RabbitMq => {
                self.write("plugins", "[rabbitmq_stomp].\n");
                self.write("rabbitmq.conf", RABBITMQ);
            }
            Kind::ActiveMq => {
                std::fs::create_dir_all(self.path("data")).expect("a folder");
                self.write("conf/activemq.xml", ACTIVEMQ);
            }
        }
    }

    fn write(&self, name: &str, text: &str) {
        let directory = self.directory.path().to_str().expect("a path of text");
        let text = text
            .replace("DIRECTORY", directory)
            .replace("HTTP", &self.http.to_string())
            .replace("STOMP", &self.stomp.to_string())
            .replace("OTHER0", &self.others[0].to_string())
            .replace("OTHER1", &self.others[1].to_string());
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        match self.kind {
            Kind::Longwire => {
                let mut command = Command::new(longwire_binary());
                command.args(["serve", "--config"]).arg(self.path("longwire.toml"));
                for (name, _) in std::env::vars_os() {
                    if name.to_string_lossy().starts_with("LONGWIRE_") {
                        command.env_remove(name);
                    }
                }
                command
            }
            Kind::RabbitMq => {
                let mut command = Command::new(rabbitmq());
                command
                    .env("HOME", self.directory.path())
                    .env("ERL_EPMD_PORT", self.others[1].to_string())
                    .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                    .env("RABBITMQ_DIST_PORT", self.others[2].to_string())
                    .env("RABBITMQ_NODENAME", format!("it{}@localhost", self.stomp))
                    .env("RABBITMQ_MNESIA_BASE", self.path("mnesia"))
                    .env("RABBITMQ_LOG_BASE", self.directory.path())
                    .env("RABBITMQ_LOGS", "-")
                    .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
                    .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins"))
                    .env("RABBITMQ_PID_FILE", self.path("pid"));
                command
            }
            Kind::ActiveMq => {
                let jar = Path::new(ACTIVEMQ_HOME).join("bin/activemq.jar");
                assert!(jar.is_file(), "{} is missing: apt-get install activemq", jar.display());
                let path = |name: &str| self.path(name).display().to_string();
                let mut command = Command::new("java");
                command.args(["-Xms256m", "-Xmx256m"]);
                command.arg(format!("-Dactivemq.home={ACTIVEMQ_HOME}"));
                command.arg(format!("-Dactivemq.base={}", path("")));
                command.arg(format!("-Dactivemq.conf={}", path("conf")));
                command.arg("-jar").arg(jar).arg("start");
                command.arg(format!("xbean:file:{}", path("conf/activemq.xml")));
                command
            }
        }
    }

    /// Sends a signal to every process of it.
    fn signal(&self, name: &str) {
        let Some(child) = &self.child else { return };
        let group = child.id().to_string();
        let script = "kill -s \"$0\" -- \"-$1\"";
        // It fails if all have ended.
        let _ = Command::new("sh").args(["-c", script, name, &group]).stderr(Stdio::null()).status();
    }

    /// RabbitMQ leaves its port mapper behind, which has nobody left to serve.
    fn end_port_mapper(&self) {
        if self.kind != Kind::RabbitMq {
            return;
        }
        let is_gone = comes_true(Duration::from_secs(10), || {
            let mut command = Command::new("epmd");
            let output = command.arg("-kill").env("ERL_EPMD_PORT", self.others[1].to_string()).output();
            // It stays while it believes that somebody is there.
            output.is_ok_and(|output| {
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                said.contains("Killed") || said.contains("connect")
            })
        });
        if !is_gone {
            eprintln!("the port mapper on {} stays", self.others[1]);
        }
    }

    /// The end of what it printed.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        let start = log.len().saturating_sub(4000);
        String::from_utf8_lossy(&log[start..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of what {:?} printed: {}", self.kind, self.log());
        }
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Whether something waits unread in a connection whose near end has this port.
fn has_unread(port: u16) -> bool {
    // One connection a line: its number, the near end, the far end, the state, "unacknowledged:unread", all hexadecimal.
    // Who listens has in the last place how many wait to be accepted, which are as unread.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|path| {
        let table = std::fs::read_to_string(path).expect("the system shows its connections");
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace();
            let near = fields.nth(1).and_then(|near| near.rsplit_once(':'));
            let unread = fields.nth(2).and_then(|queues| queues.rsplit_once(':'));
            let (Some((_, near)), Some((_, unread))) = (near, unread) else { return false };
            u16::from_str_radix(near, 16) == Ok(port) && u64::from_str_radix(unread, 16) != Ok(0)
        })
    })
}

/// The script that starts RabbitMQ, which lies in a folder that its version names.
fn rabbitmq() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib/rabbitmq/lib").ok().and_then(|folders| {
        let scripts = folders.filter_map(Result::ok).map(|folder| folder.path().join("sbin/rabbitmq-server"));
        scripts.filter(|script| script.is_file()).max()
    });
    found.expect("RabbitMQ is missing: apt-get install rabbitmq-server")
}
