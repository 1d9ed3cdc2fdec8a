use super::*;
use proptest::prelude::*;

#[test]
fn what_is_harmless_is_shown_and_nothing_else() {
    for (text, expected) in [
        (
            "pipe:ffmpeg -nostdin -rtsp_transport tcp -i 'rtsp://ada:QX@10.0.0.7:554/QX?key=QX' \
             -f yuv4mpegpipe -pix_fmt yuv420p -",
            "pipe:ffmpeg -nostdin -rtsp_transport tcp -i rtsp://***@10.0.0.7:554/*** \
             -f yuv4mpegpipe -pix_fmt yuv420p -",
        ),
        ("pipe:TOKEN=QX cam", "pipe:TOKEN=*** cam"),
        ("pipe:exec env A=QX /usr/bin/cam --password QX", "pipe:exec env A=*** /usr/bin/cam ***"),
        ("pipe:cam -p QX -u QX:QX", "pipe:cam ***"),
        (
            "pipe:cam -pQX --token=QX | ffmpeg -i - -s 640x480",
            "pipe:cam *** | ffmpeg -i - -s 640x480",
        ),
        (
            "pipe:curl -s -H 'Authorization: Bearer QX' http://h/QX | cam",
            "pipe:curl *** http://h/*** | cam",
        ),
        (
            "pipe:cat /dev/video0; cam /etc/QX 2>/dev/null",
            "pipe:cat /dev/video0 ; cam *** 2>/dev/null",
        ),
        (
            "pipe:rpicam-vid -n -t 0 --width 1280 --codec yuv420 -o - --QX 1",
            "pipe:rpicam-vid -n -t 0 --width 1280 --codec yuv420 -o - ***",
        ),
        ("pipe:sh -c \"cam QX | QX\"", "pipe:sh ***"),
        ("pipe:K=$(echo QX ) cam $(cat QX)", "pipe:K=*** cam ***"),
        ("pipe:K=`cat QX` cam", "pipe:K=*** cam"),
        ("pipe:cam <<EOF\nQX\nEOF", "pipe:cam ***"),
        ("pipe:cam -i http://h/?a=b&QX", "pipe:cam *** http://h/***"),
        ("pipe:cam --a=1;QX", "pipe:cam ***"),
        ("pipe:cam \\\n QX\nother QX", "pipe:cam *** ; other ***"),
        ("pipe:'QX QX", "pipe:***"),
        ("pipe:cam # QX", "pipe:cam ***"),
        ("pip:ffmpeg -i QX", "pip:ffmpeg -i ***"),
        ("rtsp://ada:QX@cam", "rtsp://***@cam"),
        ("rtsp://QX@cam:554", "rtsp://***@cam:554"),
        ("rtsp://a:p@QX/w?o#rd@host/", "rtsp://***"),
        ("rtsp://ada:QX", "rtsp://***"),
        ("rtsp://[fe80::1]:554/QX", "rtsp://[fe80::1]:554/***"),
        ("ffmpeg -i a -key QX", "ffmpeg -i ***"),
        ("camera0", "camera0"),
        ("webcam", "webcam"),
    ] {
        assert_eq!(redacted(text), expected, "{text}");
    }
    for text in ["", "v4l:/dev/video0?width=640&fps=5", "images:frames/a:b@c", "nokhwa:0"] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn a_programs_words_lose_the_secrets_of_its_command() {
    let command =
        "K=QXkey ffmpeg -i 'rtsp://ada:QXpass@cam/QXpath' --password QXword -f rawvideo -";
    let secrets = Secrets::of(command);
    for (line, expected) in [
        ("rtsp://ada:QXpass@cam/QXpath: 401", "***: 401"),
        ("login ada with QXpass failed", "login *** with *** failed"),
        ("QXword! QXkey", "***! ***"),
        ("[rtsp] http://u:p@h/x?y=z", "[rtsp] http://***@h/***"),
        ("frame= 10 fps=5 adapter", "frame= 10 fps=5 adapter"),
        ("Output #0, rawvideo, to 'pipe:'", "Output #0, rawvideo, to 'pipe:'"),
    ] {
        assert_eq!(secrets.hide(line), expected, "{line}");
    }
}

proptest! {
    #[test]
    fn no_argument_is_shown(
        secret in "[a-zA-Z0-9!#%^*_+.,:/?@~-]{0,12}",
        before in "(-p|--password|-H|-u|-i|--key=|-k|password=|[a-z]{0,4}) ?",
        quote in "['\"]?",
        tail in "( -f rawvideo| [|] cam| ; cam| &)?",
        program in "(ffmpeg|rpicam-vid|gst-launch-1.0|curl|/opt/cam[.]sh|exec ffmpeg)",
    ) {
        let secret = format!("QX{secret}XQ");
        let text = format!("pipe:{program} {before}{quote}{secret}{quote}{tail}");
        // The host of a URL is shown.
        prop_assume!(!text.contains("://"));
        let redacted = redacted(&text);
        prop_assert!(!redacted.contains("QX") && !redacted.contains("XQ"), "{}", redacted);
    }

    #[test]
    fn no_user_password_path_or_query_is_shown(
        user in "[a-zA-Z0-9.%-]{0,8}",
        secret in "[!-~é]{0,12}",
        host in "[a-z0-9-]{1,10}",
        path in "(/[a-z?=&]{0,8})?",
    ) {
        let secret = format!("QX{}XQ", secret.replace(['\'', '"', '\\'], ""));
        let texts = [
            format!("rtsp://{user}:{secret}@{host}{path}"),
            format!("rtsp://{host}/{secret}"),
            format!("rtsp://{host}?{secret}"),
        ];
        for text in texts {
            for text in [text.clone(), format!("pipe:ffmpeg -i '{text}' -"), format!("pipe:x {text}")] {
                let redacted = redacted(&text);
                prop_assert!(!redacted.contains("QX") && !redacted.contains("XQ"), "{}", redacted);
            }
        }
    }

    #[test]
    fn nothing_makes_it_panic_and_twice_is_once(text in "(\\PC|://|:|@|/| |'|\"|[|]|;|\n|[$][(]|`){0,40}") {
        let once = redacted(&text);
        let open = OPEN.iter().any(|scheme| text.starts_with(scheme));
        prop_assert!(!once.contains('\n') || open);
        prop_assert_eq!(redacted(&once), once.clone());
        let _ = Secrets::of(&text).hide(&text);
    }
}
