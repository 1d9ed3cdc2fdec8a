use super::http::{request, status};
use super::*;
use crate::config::HttpUrl;
use crate::mqtt::Tls;
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

fn event() -> Post {
    Post { event: "7f3a-42".to_owned(), body: b"{\"number\":42}".to_vec() }
}

#[test]
fn the_signature_is_hmac_sha256_over_time_and_body() {
    // printf '1764500000.{"number":42}' | openssl dgst -sha256 -hmac 0123456789abcdef
    let expected = "v1=07a13043a7b4b30e75e0e07dba7a889cba4d26609208b9d86441d4edc142ae33";
    assert_eq!(signature("0123456789abcdef", 1_764_500_000, &event().body), expected);
}

#[test]
fn a_request_is_complete() {
    let url: HttpUrl = "https://example.org/door?x=1".parse().expect("a URL");
    let request = String::from_utf8(request(&url, &event(), 7, "v1=00")).expect("text");
    let (head, body) = request.split_once("\r\n\r\n").expect("an empty line");
    assert_eq!(body, "{\"number\":42}");
    assert!(head.starts_with("POST /door?x=1 HTTP/1.1\r\nHost: example.org\r\n"), "{head}");
    for line in [
        "Content-Length: 13",
        "Facelatch-Event: 7f3a-42",
        "Facelatch-Timestamp: 7",
        "Facelatch-Signature: v1=00",
        "Connection: close",
    ] {
        assert!(head.lines().any(|of| of == line), "{line}: {head}");
    }
}

#[test]
fn answers_are_taken_refused_or_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let answers = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 422 No\r\n\r\n",
        "HTTP/1.1 503 Later\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n",
        "HTTP/1.1 401 Who\r\n\r\n",
        "hello\r\n",
        "",
    ];
    let served = std::thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(socket.try_clone().expect("cloned"));
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("a line");
            }
            socket.write_all(answer.as_bytes()).expect("written");
        }
    });
    let target = Target {
        url: format!("http://127.0.0.1:{port}/door").parse().expect("a URL"),
        tls: Tls::default(),
        secret: Zeroizing::new("0123456789abcdef".to_owned()),
        timeout: Duration::from_secs(20),
    };
    let reasons: Vec<String> = answers
        .iter()
        .map(|_| match post(&target, &event()) {
            Outcome::Taken => "taken".to_owned(),
            Outcome::Refused { reason } => format!("refused: {reason}"),
            Outcome::Failed { reason } => format!("failed: {reason}"),
        })
        .collect();
    served.join().expect("served");
    assert_eq!(reasons[..2], ["taken", "taken"]);
    for (reason, expected) in reasons[2..].iter().zip([
        "refused: the receiver refuses the event with status 422",
        "failed: the receiver answers 503",
        "failed: the receiver answers 302: it has moved; change webhook.url",
        "failed: the receiver answers 401; has it the same secret and clock?",
        "failed: the receiver does not speak HTTP/1.1",
        "failed: the receiver has closed the connection",
    ]) {
        assert_eq!(reason, expected);
    }
    assert!(matches!(post(&target, &event()), Outcome::Failed { .. }), "nobody there");
}

#[test]
fn a_receiver_that_does_not_answer_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let target = Target {
        url: format!("http://127.0.0.1:{port}/").parse().expect("a URL"),
        tls: Tls::default(),
        secret: Zeroizing::new("0123456789abcdef".to_owned()),
        timeout: Duration::from_millis(200),
    };
    let Outcome::Failed { reason } = post(&target, &event()) else { panic!("answered") };
    assert!(reason.contains("no answer"), "{reason}");
    // Nor is one that never ends its first line.
    let served = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the first");
        let (mut second, _) = listener.accept().expect("the second");
        while second.write_all(&[b'x'; 4096]).is_ok() {}
        drop(socket.write_all(b""));
    });
    let Outcome::Failed { reason } = post(&target, &event()) else { panic!("answered") };
    assert!(reason.contains("does not speak HTTP"), "{reason}");
    served.join().expect("served");
}

#[test]
fn a_secret_is_long_enough_and_on_one_line() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("secret");
    std::fs::write(&path, "0123456789abcdef\nmore\n").expect("written");
    assert_eq!(secret(&path).expect("a secret").as_str(), "0123456789abcdef");
    for (text, why) in [("short\n", "16 to 1024 characters, found 5"), ("\n", "no text")] {
        std::fs::write(&path, text).expect("written");
        let reason = secret(&path).expect_err(why);
        assert!(reason.contains(why), "{reason}");
    }
}

proptest! {
    #[test]
    fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = status(&answer);
        let _ = status(&[b"HTTP/1.1 ", &answer[..]].concat());
        let _ = status(&[b"HTTP/1.1 100 \r\n\r\n", &answer[..]].concat());
    }
}
