//! Hides passwords in a camera's URI before it appears in logs, replies and errors, which
//! more people read than may know the password.

/// Placeholder for a password.
const HIDDEN: &str = "***";

/// Replaces the password of each URL in the text by `***`, as in `rtsp://user:***@host/`.
/// Hides too much rather than too little: after `://`, everything between the first `:`
/// and the last `@` of the same word counts as a password.
pub fn redacted(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        redacted.push_str(before);
        redacted.push_str("://");
        rest = after;
        let word = after.split(char::is_whitespace).next().unwrap_or_default();
        if let (Some(colon), Some(at)) = (word.find(':'), word.rfind('@'))
            && colon < at
            && !word[..colon].contains(['/', '?', '#'])
        {
            redacted.push_str(&word[..=colon]);
            redacted.push_str(HIDDEN);
            rest = &after[at..];
        }
    }
    redacted.push_str(rest);
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_are_hidden_and_nothing_else_is() {
        for (text, expected) in [
            ("rtsp://ada:secret@10.0.0.7:554/live", "rtsp://ada:***@10.0.0.7:554/live"),
            (
                "ffmpeg -i 'rtsp://a:b@c/d?e=f' -f yuv4mpegpipe - | tee x@y",
                "ffmpeg -i 'rtsp://a:***@c/d?e=f' -f yuv4mpegpipe - | tee x@y",
            ),
            ("http://a:b@c http://:d@e", "http://a:***@c http://:***@e"),
            ("concat:http://h/1,http://a:b@c", "concat:http://h/1,http://a:***@c"),
            // Not percent-encoded, as people write it.
            ("rtsp://a:p@ss/w?o#rd@host/", "rtsp://a:***@host/"),
            ("rtsp://a:@host/", "rtsp://a:***@host/"),
        ] {
            assert_eq!(redacted(text), expected);
        }
        for text in [
            "",
            "://",
            "v4l:/dev/video0?width=640&fps=5",
            "images:frames/a:b@c",
            "rtsp://10.0.0.7:554/live",
            "rtsp://user@host/",
            "http://host/mail?to=a:b@c",
            "file:///tmp/a:b@c",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    proptest! {
        #[test]
        fn no_password_is_shown(
            before in "\\PC{0,12}", scheme in "[a-z]{1,5}", user in "[a-z0-9.%-]{0,8}",
            secret in "[!-~é]{0,12}", host in "[a-z0-9.\\[\\]:-]{1,10}", after in "(/[a-z?=]{0,8})?( \\PC{0,12})?",
        ) {
            let secret = format!("QX{secret}XQ");
            prop_assume!(!before.contains("://"));
            prop_assume!([&before, &after].iter().all(|text| !text.contains("QX") && !text.contains("XQ")));
            let text = format!("{before}{scheme}://{user}:{secret}@{host}{after}");
            let redacted = redacted(&text);
            prop_assert!(!redacted.contains("QX") && !redacted.contains("XQ"), "{}", redacted);
            let begin = format!("{before}{scheme}://{user}:***@{host}");
            prop_assert!(redacted.starts_with(&begin), "{}", redacted);
        }

        #[test]
        fn what_is_shown_is_shown_as_it_is(text in "(\\PC|://|:|@|/| ){0,30}") {
            let once = redacted(&text);
            prop_assert_eq!(redacted(&once), once.clone());
            if !text.contains("://") || !text.contains('@') {
                prop_assert_eq!(once, text);
            }
        }
    }
}
