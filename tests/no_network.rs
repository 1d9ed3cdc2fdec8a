//! The door's program has no network: none of its crates speaks to one, and the program holds
//! no code that resolves a name, connects or listens anywhere but on a path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crates that speak to a network, or exist to do so.
const NETWORK: [&str; 16] = [
    "async-std",
    "facelatch-link",
    "hyper",
    "mio",
    "mqtt-protocol-core",
    "native-tls",
    "openssl",
    "quinn",
    "reqwest",
    "rumqttc",
    "rustls",
    "smol",
    "socket2",
    "tiny_http",
    "tokio",
    "ureq",
];

/// Pieces of names that the compiler gives to code of the standard library. The linker keeps
/// only what is called, and folds the rest of what these types have into that of paths.
const CODE: [&str; 7] = [
    "getaddrinfo",
    "TcpStream7connect",
    "TcpStream15connect_timeout",
    "TcpListener4bind",
    "TcpListener6accept",
    "UdpSocket4bind",
    "UdpSocket7connect",
];

/// Dependencies of all packages by name, as Cargo.lock has them.
fn packages(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let mut lines = package.lines();
        let name = lines.find_map(|line| line.strip_prefix("name = \"")).expect("a name");
        let name = name.trim_end_matches('"').to_owned();
        let dependencies = lines
            .filter_map(|line| line.strip_prefix(" \""))
            .map(|line| line.split(['"', ' ']).next().unwrap_or_default().to_owned());
        // Versions of one crate count together.
        all.entry(name).or_default().extend(dependencies);
    }
    all
}

/// Everything that a package is made of.
fn parts<'p>(packages: &'p BTreeMap<String, BTreeSet<String>>, name: &'p str) -> BTreeSet<&'p str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![name]);
    while let Some(name) = open.pop() {
        if found.insert(name) {
            open.extend(packages.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let (text, first) = (text.as_bytes(), text.as_bytes()[0]);
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    starts.into_iter().any(|(at, _)| bytes[at..].starts_with(text))
}

#[test]
fn no_crate_of_the_door_speaks_to_a_network() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let packages = packages(&std::fs::read_to_string(lock).expect("Cargo.lock"));
    let door = parts(&packages, "facelatch");
    assert!(door.contains("facelatch-messages") && door.contains("redb"), "{door:?}");
    let found: Vec<_> = NETWORK.into_iter().filter(|name| door.contains(name)).collect();
    assert!(found.is_empty(), "the door depends on {found:?}");
}

#[test]
fn the_program_of_the_door_has_no_code_for_a_network() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_facelatch")).expect("the program");
    // Names are there to be found: sockets on paths are used.
    assert!(holds(&program, "10UnixStream7connect"), "the program has no symbols");
    let found: Vec<_> = CODE.into_iter().filter(|name| holds(&program, name)).collect();
    assert!(found.is_empty(), "the program has {found:?}");
}

#[test]
fn code_for_a_network_would_be_found() {
    // This test connects, so its own program must have what the door must not.
    let _ = std::net::TcpStream::connect(("localhost", 9));
    let own = std::env::current_exe().expect("a path");
    let own = std::fs::read(own).expect("the program of the tests");
    for name in ["getaddrinfo", "TcpStream7connect"] {
        assert!(holds(&own, name), "{name}");
    }
    let packages = packages(
        "[[package]]\nname = \"a\"\nversion = \"1\"\ndependencies = [\n \"b\",\n \"c 2.0\",\n]\n\n\
         [[package]]\nname = \"b\"\ndependencies = [\n \"rustls\",\n]\n",
    );
    assert_eq!(parts(&packages, "a"), BTreeSet::from(["a", "b", "c", "rustls"]));
}
