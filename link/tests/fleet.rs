//! Twenty doors on a real Mosquitto: they agree after everything that the simulation plays.
//! The same command with 200 doors is in `docs/fleet.md`.

use std::process::Command;

#[test]
fn twenty_doors_agree_whatever_happens() {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(env!("CARGO_BIN_EXE_facelatch-link"))
        .env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"))
        .env("RUST_LOG", "error")
        .args(["simulate", "--doors", "20", "--people", "200", "--patience", "400", "--json"])
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}; it needs Mosquitto: apt-get install mosquitto");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["faults"], serde_json::json!([]));
    assert_eq!(report["lies"]["moved"], false);
    assert!(report["lies"]["refused"].as_u64() > Some(0), "{report}");
    assert_eq!(report["withheld"]["noticed"], true);
    for key in ["new_door_all_s", "revoke_last_s", "killed_s", "partition_s", "month_s"] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
}
