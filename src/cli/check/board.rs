//! Checks of the clock, the power supply and the temperature.

use super::Findings;
use anyhow::Result;
use facelatch::config::{ClockSource, Config};
use facelatch::service::wall_clock;
use std::io::Write;
use std::path::Path;

/// Temperature from which a Raspberry Pi throttles, degrees Celsius.
const HOT: f64 = 80.0;

/// Checks that the clock is synchronized if a schedule needs it.
pub(super) fn wall_clock(config: &Config, findings: &mut Findings<impl Write>) -> Result<()> {
    let needed = config.schedule().needs_clock();
    let vouched = config.schedule.clock == ClockSource::Trusted;
    let reading = wall_clock::read(vouched);
    let local = reading.local.strftime("%Y-%m-%d %H:%M");
    let zone = match wall_clock::zone() {
        Ok((_, Some(zone))) => zone,
        Ok((_, None)) if needed => {
            findings.odd(
                "time zone",
                "none is set, so hours are in UTC; set one with timedatectl set-timezone",
            )?;
            "UTC".to_owned()
        }
        Ok((_, None)) => "UTC".to_owned(),
        Err(unknown) if needed => {
            return findings.wrong(
                "clock",
                format!(
                    "{unknown}: groups follow clock_unsure, and open_hours do not open; set the \
                     zone with timedatectl set-timezone"
                ),
            );
        }
        Err(unknown) => {
            findings.odd("time zone", &format!("{unknown}; no schedule needs it"))?;
            "UTC".to_owned()
        }
    };
    let local = format!("{local} {zone}");
    if reading.synchronized {
        findings.good("clock", &format!("{local}, synchronized"))
    } else if needed {
        findings.wrong(
            "clock",
            format!(
                "{local}, not synchronized, but schedules need it: groups follow clock_unsure, and \
                 open_hours do not open; see timedatectl, or set clock = \"trusted\" under \
                 [schedule] if the board has a clock with a battery"
            ),
        )
    } else {
        findings.good("clock", &format!("{local}, not synchronized; no schedule needs it"))
    }
}

/// Checks supply voltage and temperature, if the board has sensors for them.
pub(super) fn health(findings: &mut Findings<impl Write>) -> Result<()> {
    let text = |path: &Path| std::fs::read_to_string(path).ok();
    let monitors = std::fs::read_dir("/sys/class/hwmon").into_iter().flatten().flatten();
    for monitor in monitors {
        let folder = monitor.path();
        if text(&folder.join("name")).is_some_and(|name| name.trim() == "rpi_volt") {
            match text(&folder.join("in0_lcrit_alarm")).as_deref().map(str::trim) {
                Some("0") => findings.good("supply", "5 V")?,
                Some(_) => findings.wrong(
                    "supply",
                    "the voltage is too low: use the power supply made for the board, and power \
                     the lock from another one",
                )?,
                None => {}
            }
        }
    }
    let degrees = text(Path::new("/sys/class/thermal/thermal_zone0/temp"))
        .and_then(|text| text.trim().parse::<f64>().ok())
        .map(|thousandths| thousandths / 1000.0);
    match degrees {
        Some(degrees) if degrees >= HOT => findings
            .odd("temperature", &format!("{degrees:.0} °C: the board throttles; add a heat sink")),
        Some(degrees) => findings.good("temperature", &format!("{degrees:.0} °C")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::advice;
    use super::super::tests::said;
    use super::*;

    #[test]
    fn an_unsynchronized_clock_is_reported_once() {
        let text = "[groups.staff]\nhours = [\"07:00-19:00\"]\n[groups.owners]\n";
        let config = Config::parse(Path::new("facelatch.toml"), text).expect("a configuration");
        let text = said(|findings| {
            advice(&config, findings).expect("findings");
            wall_clock(&config, findings).expect("findings");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
