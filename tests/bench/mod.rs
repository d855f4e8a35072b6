//! Small networks of real namespaces for tests: each test has its own mount and network namespace and its own `/run`,
//! so that tests run side by side and leave nothing.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod lab;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use netloom::host::netns;
use netloom::resource::Place;
use netloom::topology::{Protocol, Service};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The calling thread's private corner. Threads and processes started from it stay inside.
pub struct Bench {
    _private: (),
}

impl Bench {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("tests need root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        // The new network namespace has its own settings below /proc/sys/net through the old mount already.
        let bench = Self { _private: () };
        bench.sh("ip link set lo up");
        bench
    }

    /// Runs a shell script in the bench's own namespace.
    pub fn sh(&self, script: &str) -> String {
        let output = Command::new("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a namespace with loopback up.
    pub fn host(&self, name: &str) {
        netns::create(name).unwrap();
        self.in_host(name, "ip link set lo up");
    }

    /// Runs a shell script inside a namespace; must succeed.
    pub fn in_host(&self, name: &str, script: &str) -> String {
        let output = self.try_in_host(name, script);
        assert!(output.status.success(), "{name}: {script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, whatever becomes of it.
    pub fn try_in_host(&self, name: &str, script: &str) -> Output {
        let script = script.to_owned();
        netns::within(&Place::Netns(name.into()), move || {
            Command::new("sh").args(["-ec", &script]).stdin(Stdio::null()).output().unwrap()
        })
        .unwrap()
    }

    /// A cable between two namespaces; each end has a name and addresses (`10.0.0.1/24 fd00::1/64`).
    pub fn cable(&self, a: (&str, &str, &str), b: (&str, &str, &str)) {
        self.sh(&format!("ip link add {} netns {} type veth peer name {} netns {}", a.1, a.0, b.1, b.0));
        for (host, link, addresses) in [a, b] {
            self.in_host(host, &format!("ip link set {link} up"));
            for address in addresses.split_whitespace() {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                self.in_host(host, &format!("ip addr add {address} dev {link}{nodad}"));
            }
        }
    }

    /// Lets a namespace forward.
    pub fn router(&self, name: &str) {
        self.in_host(
            name,
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
    }

    /// Loads an nftables script.
    pub fn nft(&self, name: &str, script: &str) {
        let file = format!("/run/{name}.nft");
        std::fs::write(&file, script).unwrap();
        let output = self.try_in_host(name, &format!("nft -c -f {file} && nft -f {file}"));
        assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
    }

    /// Answers services in a namespace, with netloom's own server, for as long as the test process lives.
    pub fn serve(&self, name: &str, label: &str, services: &[Service]) {
        let (place, label, list) = (Place::Netns(name.into()), label.to_owned(), services.to_vec());
        std::thread::spawn(move || {
            netns::within(&place, move || netloom::serve::run(&label, &list).unwrap())
        });
        let tcp = services.iter().filter(|service| service.protocol == Protocol::Tcp);
        let ports: Vec<String> = tcp.map(|service| format!(":{} ", service.port)).collect();
        let began = Instant::now();
        loop {
            let listening = self.in_host(name, "ss -Hlntu");
            if ports.iter().all(|port| listening.contains(port.as_str())) && !listening.is_empty() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "server does not come up: {listening}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A server that answers each TCP connection with the address it sees the client by.
    pub fn tell_peers(&self, name: &str, port: u16) {
        netns::within(&Place::Netns(name.into()), move || {
            let listener = std::net::TcpListener::bind(("::", port)).unwrap(); // both families
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().unwrap().ip().to_canonical();
                    let _ = std::io::Write::write_all(&mut stream, format!("{peer}\n").as_bytes());
                }
            });
        })
        .unwrap();
    }

    /// Starts a program in a namespace; it ends with the value returned.
    pub fn start(&self, name: &str, command: &str) -> Running {
        let command = format!("exec {command}");
        let child = netns::within(&Place::Netns(name.into()), move || {
            Command::new("sh").args(["-ec", &command]).stdin(Stdio::null()).spawn().unwrap()
        });
        Running(child.unwrap())
    }

    /// Waits up to 10 s for something to become true.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(10), "no {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asserts whether the system's own `ping` is answered. What should be is waited for: machines are slow.
    #[track_caller]
    pub fn ping(&self, from: &str, to: &str, wanted: bool) {
        let ping = || self.try_in_host(from, &format!("ping -c 3 -i 0.3 -w 2 {to}")).status.success();
        assert_eq!(patiently(wanted, |answered| *answered, ping), wanted, "ping from {from} to {to}");
    }

    /// Asserts what a server answers to a TCP connection, by bash alone; empty for no answer.
    #[track_caller]
    pub fn tcp(&self, from: &str, to: &str, port: u16, wanted: &str) {
        let script = "timeout 2 bash -c 'exec 3<>/dev/tcp/$0/$1 && head -n1 <&3' TO PORT 2>/dev/null || true";
        self.answer(from, script, (to, port), wanted);
    }

    /// Asserts what a server answers to a UDP datagram, by bash alone; empty for no answer.
    #[track_caller]
    pub fn udp(&self, from: &str, to: &str, port: u16, wanted: &str) {
        let script = "timeout 2 bash -c 'exec 3<>/dev/udp/$0/$1; echo hello >&3; dd bs=512 count=1 <&3' TO PORT 2>/dev/null || true";
        self.answer(from, script, (to, port), wanted);
    }

    #[track_caller]
    fn answer(&self, from: &str, script: &str, (to, port): (&str, u16), wanted: &str) {
        // A silent one is given less time: it takes all of it.
        let script = script.replace("TO PORT", &format!("{to} {port}"));
        let script = if wanted.is_empty() { script.replace("timeout 2", "timeout 1") } else { script };
        let ask = || self.in_host(from, &script).trim().to_owned();
        let came = patiently(!wanted.is_empty(), |answer| answer == wanted, ask);
        assert_eq!(came, wanted, "{from} to {to} port {port}");
    }
}

/// Assertions that wait for each other in vain: a silent probe takes its time, so they run a dozen at a time.
#[derive(Default)]
pub struct Checks(Vec<Check>);

type Check = Box<dyn FnOnce(&Bench) + Send>;

impl Checks {
    pub fn add(&mut self, check: impl FnOnce(&Bench) + Send + 'static) {
        self.0.push(Box::new(check));
    }

    pub fn run(self, bench: &Bench) {
        let next = std::sync::Mutex::new(self.0.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    loop {
                        let check = next.lock().unwrap().next();
                        let Some(check) = check else { return };
                        check(bench);
                    }
                });
            }
        });
    }
}

/// The first result, or, when one is hoped for, the first that is good within 20 s.
fn patiently<T>(hoped: bool, good: impl Fn(&T) -> bool, ask: impl Fn() -> T) -> T {
    let began = Instant::now();
    loop {
        let result = ask();
        if !hoped || good(&result) || began.elapsed() > Duration::from_secs(20) {
            return result;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A program that is killed when the test ends.
pub struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn tcp(port: u16) -> Service {
    Service { protocol: Protocol::Tcp, port }
}

pub fn udp(port: u16) -> Service {
    Service { protocol: Protocol::Udp, port }
}

pub const ICMP: Service = Service { protocol: Protocol::Icmp, port: 0 };
