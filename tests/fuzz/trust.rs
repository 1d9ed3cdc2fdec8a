//! What is read of audit logs, keyrings, encrypted backups and signatures of model sets.

use crate::mutate::{Chance, mutated, tar_sums};
use crate::targets::{FAST, Target, folder, shown};
use facelatch::audit::entry::Entry;
use facelatch::audit::{
    ClockTrust, Head, Kind, Link, SegmentHeader, Stamp, Verifier, encode, next, next_frame,
};
use facelatch::crypto::{Secret, Signer};
use facelatch::models::signature::SetSignature;
use facelatch::storage::audit::{AuditLog, AuditPlace, Bounds, export, verify_bundle};
use facelatch::storage::gallery::{Export, Lock, Opening, Purpose, Register, Store, Unlock};
use facelatch::storage::keys::{DoorKeys, KeyPlace, keyring_copy_path, keyring_path};
use std::path::Path;

/// An identity of the age format that encrypts nothing but test data, and its recipient.
const IDENTITY: &str = "AGE-SECRET-KEY-1JWMEUVSE5PHNHU35558TFTWHWPEFK4E6CHQDHFUNJEJG57E39RAQ9RWQKQ";
const RECIPIENT: &str = "age18s4khft62xcdu955ymxfcvt4gy2axf9tnzrxj6qxu20p9rwuvgqqgxpm4r";

pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "audit segments",
            quick: 5000,
            slowness: 4,
            memory: 8 << 20,
            seeds: || vec![segment()],
            mutate: segment_mutate,
            run: run_segment,
            ..FAST
        },
        Target {
            name: "audit heads",
            seeds: || vec![head().encode().to_vec()],
            run: |input| {
                let verified = Head::decode(input).map(|head| head.verify(&signer().public()));
                format!("{verified:?}")
            },
            ..FAST
        },
        Target {
            name: "audit entries",
            seeds: entries,
            run: |input| shown(Entry::decode(input)),
            ..FAST
        },
        Target {
            name: "log bundle",
            quick: 200,
            slowness: 100,
            memory: 32 << 20,
            seeds: || vec![bundle()],
            mutate: |chance, one, other| {
                let mut input = mutated(chance, one, other, &[]);
                if !chance.one_in(4) {
                    tar_sums(&mut input);
                }
                input
            },
            run: |input| {
                let folder = folder();
                let file = folder.path().join("log");
                std::fs::write(&file, input).expect("written");
                let done = shown(verify_bundle(&file, &[]));
                done.replace(&folder.path().display().to_string(), "")
            },
            ..FAST
        },
        Target {
            name: "backup",
            quick: 200,
            slowness: 100,
            memory: 32 << 20,
            seeds: || vec![backup()],
            mutate: |chance, one, other| {
                mutated(chance, one, other, &[b"-> X25519 ", b"-> scrypt ", b"\n--- ", b"\n"])
            },
            run: |input| {
                let folder = folder();
                let (file, identity) = (folder.path().join("b.age"), folder.path().join("id"));
                std::fs::write(&file, input).expect("written");
                std::fs::write(&identity, IDENTITY).expect("written");
                let done = shown(Export::decrypt(&file, &Unlock::Identity(identity)));
                done.replace(&folder.path().display().to_string(), "")
            },
            ..FAST
        },
        Target {
            name: "keyring",
            quick: 200,
            slowness: 100,
            seeds: || vec![keyring().1],
            run: run_keyring,
            ..FAST
        },
        Target {
            name: "set signature",
            seeds: || vec![SetSignature::sign(&signer(), b"manifest").to_string().into_bytes()],
            mutate: |chance, one, other| mutated(chance, one, other, &[b"ssh-ed25519 ", b"\n"]),
            run: |input| match SetSignature::parse(input) {
                Ok(signature) => shown(signature.verify(b"manifest")),
                Err(error) => error,
            },
            ..FAST
        },
    ]
}

fn signer() -> Signer {
    Signer::new(&Secret::new([7; 32]))
}

fn stamp(wall: i64) -> Stamp {
    Stamp { boot: [3; 16], monotonic: 5_000_000, wall, clock: ClockTrust::Trusted }
}

fn head() -> Head {
    Head::sign(&signer(), &[1; 16], &Link { number: 4, hash: [2; 32] }, &stamp(9))
}

fn entries() -> Vec<Vec<u8>> {
    vec![
        Entry::new("granted").with("person", "7").with("similarity", "0.7").encode(),
        Entry::new("configuration").with("door.open_for", "5s").encode(),
    ]
}

/// A segment of two entries and a head.
fn segment() -> Vec<u8> {
    let after = Link::first(&[1; 16]);
    let mut bytes = SegmentHeader { log: [1; 16], after }.encode().to_vec();
    let mut link = after;
    for (wall, body) in (0..).zip(entries()) {
        let content = next(&link, &stamp(wall), Kind::Entry, &body);
        let (frame, then) = encode(&link, &content);
        bytes.extend(frame);
        link = then;
    }
    let (frame, _) = encode(&link, &Head::sign(&signer(), &[1; 16], &link, &stamp(9)).content());
    bytes.extend(frame);
    bytes
}

/// Changes bytes, or the contents of records, whose checksums and hashes are made to fit.
fn segment_mutate(chance: &mut Chance, one: Vec<u8>, other: &[u8]) -> Vec<u8> {
    let Ok(header) = SegmentHeader::parse(&one) else { return mutated(chance, one, other, &[]) };
    if chance.one_in(3) {
        return mutated(chance, one, other, &[]);
    }
    let mut bytes = header.encode().to_vec();
    let (mut from, mut link, mut effort) = (bytes.len(), header.after, 0);
    while let Some((at, frame)) = next_frame(&one, from, &mut effort) {
        from = at + frame.bytes;
        let mut content = frame.content.to_vec();
        if chance.one_in(2) {
            let fields = content.len().min(42);
            let body = mutated(chance, content.split_off(fields), other, &[]);
            content.extend(body.iter().take(4096));
        }
        let (frame, then) = encode(&link, &content);
        bytes.extend(frame);
        link = then;
    }
    bytes
}

fn run_segment(input: &[u8]) -> String {
    let mut outcome = match SegmentHeader::parse(input) {
        Ok(_) => String::new(),
        Err(fault) => fault.to_owned(),
    };
    let (mut from, mut effort) = (0, 0);
    while let Some((at, frame)) = next_frame(input, from, &mut effort) {
        from = at + frame.bytes;
        outcome += &match frame.record().map(|record| Entry::decode(&record.body)) {
            Ok(entry) => shown(entry),
            Err(fault) => fault.to_string(),
        };
    }
    let mut verifier = Verifier::new(vec![signer().public()], [head()]);
    verifier.segment(1, input);
    let verdict = verifier.finish();
    format!("{outcome} {}", verdict.is_good())
}

/// A log of a door, exported.
fn bundle() -> Vec<u8> {
    let folder = folder();
    let gallery = folder.path().join("gallery.redb");
    std::fs::write(&gallery, b"any file").expect("written");
    let place = AuditPlace { gallery, register: None };
    let log = AuditLog::open(&place, Bounds::default(), Some(signer()), &stamp(0));
    let mut log = log.expect("a log");
    for body in entries() {
        log.append(&stamp(1), &body).expect("appended");
    }
    log.sign(&stamp(2)).expect("signed");
    let file = folder.path().join("log");
    export(&place, &signer(), &file, (i64::MIN, i64::MAX), &stamp(3)).expect("exported");
    std::fs::read(&file).expect("read")
}

/// An encrypted backup of a gallery without people.
fn backup() -> Vec<u8> {
    let folder = folder();
    let register = Register::at(folder.path().join("register"));
    let opening = Opening::to(Purpose::Begin).registered(Some(register));
    let gallery = folder.path().join("gallery.redb");
    let store = Store::open_as(&gallery, opening).expect("a gallery");
    let file = folder.path().join("b.age");
    let lock = Lock::Recipients(vec![RECIPIENT.to_owned()]);
    store.back_up(&[], &file, &lock).expect("a backup");
    std::fs::read(&file).expect("read")
}

/// A key file and a keyring.
fn keyring() -> (Vec<u8>, Vec<u8>) {
    let folder = folder();
    let place = KeyPlace::of(&Register::at(folder.path().join("register")));
    let gallery = folder.path().join("gallery.redb");
    DoorKeys::make(&gallery, &place).expect("keys");
    let read = |path: &Path| std::fs::read(path).expect("read");
    (read(place.file()), read(&keyring_path(&gallery)))
}

/// Reads the input as keyring, as its copy and as key file.
fn run_keyring(input: &[u8]) -> String {
    let folder = folder();
    let place = KeyPlace::of(&Register::at(folder.path().join("register")));
    let gallery = folder.path().join("gallery.redb");
    let (key, ring) = keyring();
    let write = |path: &Path, content: &[u8]| std::fs::write(path, content).expect("written");
    std::fs::create_dir(folder.path().join("register")).expect("a folder");
    let open = || {
        let done = shown(DoorKeys::open(&gallery, &place));
        done.replace(&folder.path().display().to_string(), "")
    };
    write(place.file(), &key);
    write(&keyring_path(&gallery), input);
    write(&keyring_copy_path(&gallery), input);
    let both = open();
    write(&keyring_copy_path(&gallery), &ring);
    let copied = open();
    assert_eq!(copied, "good", "a damaged keyring gives way to its copy");
    write(place.file(), input);
    format!("{both} {}", open())
}
