//! Hosts as network namespaces, each with one cable into a switch, and what can happen to cables, switches and addresses.
//!
//! All of it lives in the network and mount namespaces of this process, so nothing outside sees it and the kernel takes
//! it down with the process. Needs `ip` of iproute2 and nothing of the kernel beyond namespaces, veth pairs and bridges.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Nobody has this hardware address: what is sent to it gets lost without a word to the sender.
const NOWHERE: &str = "02:00:00:00:00:01";

/// Hosts on a switch, by place. A second switch stands by for those that are split off.
pub struct Network {
    hosts: Vec<Host>,
}

struct Host {
    namespace: String,
    /// The end of its cable at the switch.
    cable: String,
    address: Ipv4Addr,
}

impl Network {
    /// So many hosts, all on one switch.
    ///
    /// # Errors
    /// What `ip` says if it may not, or the kernel cannot.
    pub fn new(hosts: u8) -> Result<Self, String> {
        let mut lines = vec![
            "link add switch type bridge".to_owned(),
            "link set switch up".to_owned(),
            "link add other type bridge".to_owned(),
            "link set other up".to_owned(),
        ];
        let host = |number| Host {
            namespace: format!("host{number}"),
            cable: format!("cable{number}"),
            address: Ipv4Addr::new(10, 77, 0, number),
        };
        // Dropped, and so taken down, if it cannot be completed.
        let network = Self { hosts: (1..=hosts).map(host).collect() };
        for Host { namespace, cable, .. } in &network.hosts {
            ip(&[], &[format!("netns add {namespace}")])?;
            lines.push(format!("link add {cable} type veth peer name eth0 netns {namespace}"));
            lines.push(format!("link set {cable} master switch up"));
        }
        ip(&[], &lines)?;
        for host in &network.hosts {
            let address = format!("address add {}/24 dev eth0", host.address);
            host.ip(&["link set lo up".to_owned(), "link set eth0 up".to_owned(), address])?;
        }
        Ok(network)
    }

    /// The file that stands for a host's namespace.
    pub fn namespace(&self, host: usize) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.hosts[host].namespace)
    }

    /// Where a host is now.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.hosts[host].address
    }

    /// Pulls the cable of a host. Its interface has no carrier; nobody gets an error for what is sent.
    pub fn unplug(&self, host: usize) {
        done(ip(&[], &[format!("link set {} down", self.hosts[host].cable)]));
    }

    /// Puts the cable back.
    pub fn plug(&self, host: usize) {
        done(ip(&[], &[format!("link set {} up", self.hosts[host].cable)]));
    }

    /// Takes the interface of a host down: the host itself gets errors at once, the others soon.
    pub fn disable(&self, host: usize) {
        done(self.hosts[host].ip(&["link set eth0 down".to_owned()]));
    }

    /// Takes it up again.
    pub fn enable(&self, host: usize) {
        done(self.hosts[host].ip(&["link set eth0 up".to_owned()]));
    }

    /// From now on what `from` sends to `to` gets lost without a word, in this direction alone.
    pub fn lose(&self, from: usize, to: usize) {
        let to = self.hosts[to].address;
        done(
            self.hosts[from].ip(&[format!("neighbour replace {to} lladdr {NOWHERE} nud permanent dev eth0")]),
        );
    }

    /// Ends [`Network::lose`].
    pub fn carry(&self, from: usize, to: usize) {
        done(self.hosts[from].ip(&[format!("neighbour delete {} dev eth0", self.hosts[to].address)]));
    }

    /// Moves the cables of these hosts to the other switch.
    pub fn split(&self, hosts: &[usize]) {
        let lines: Vec<_> =
            hosts.iter().map(|host| format!("link set {} master other", self.hosts[*host].cable)).collect();
        done(ip(&[], &lines));
    }

    /// Moves them back.
    pub fn join(&self, hosts: &[usize]) {
        let lines: Vec<_> =
            hosts.iter().map(|host| format!("link set {} master switch", self.hosts[*host].cable)).collect();
        done(ip(&[], &lines));
    }

    /// Takes an address of a host away.
    pub fn strip(&self, host: usize, address: Ipv4Addr) {
        done(self.hosts[host].ip(&[format!("address delete {address}/24 dev eth0")]));
    }

    /// Gives a host one more address, which is its address from now on.
    pub fn readdress(&mut self, host: usize, address: Ipv4Addr) {
        self.hosts[host].address = address;
        // Of one prefix length, it would go with the first one.
        done(self.hosts[host].ip(&[format!("address add {address}/23 dev eth0")]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for Host { namespace, cable, .. } in &self.hosts {
            // A namespace ends some time after its deletion, and its interface with it; a cable ends at once.
            let _ = ip(&[], &[format!("link delete {cable}")]);
            let _ = ip(&[], &[format!("netns delete {namespace}")]);
        }
        let _ = ip(&[], &["link delete switch".to_owned()]);
        let _ = ip(&[], &["link delete other".to_owned()]);
    }
}

impl Host {
    fn ip(&self, lines: &[String]) -> Result<(), String> {
        ip(&["-netns", &self.namespace], lines)
    }
}

/// Has `ip` do these lines, all or up to the first that fails.
fn ip(options: &[&str], lines: &[String]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(options).args(["-batch", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run ip (iproute2): {error}"))?;
    // That it ended already shows in its status.
    let _ = child.stdin.take().expect("BUG! a pipe").write_all((lines.join("\n") + "\n").as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {lines:?}: {}", said.trim())) }
}

fn done(result: Result<(), String>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}
