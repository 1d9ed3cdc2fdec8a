//! Devices for torch by name: `cpu`, `cuda` or `cuda:N`.

use anyhow::{Result, bail};
use tch::{Cuda, Device};

/// The torch device of a name; `cuda` is `cuda:0`.
///
/// # Errors
/// If the name is unknown, libtorch has no CUDA, or there is no such GPU.
pub fn parse(name: &str) -> Result<Device> {
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok()),
    };
    let Some(number) = number else {
        bail!("device {name:?}: expected cpu, cuda or cuda:1");
    };
    if !tch::utils::has_cuda() {
        bail!(
            "{name}: this program's libtorch supports only the CPU; use --device cpu, or build \
             with LIBTORCH set to a libtorch with CUDA"
        );
    }
    let there = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if number >= there {
        bail!(
            "{name}: {}; use --device cpu, or check the output of nvidia-smi",
            match there {
                0 => "no GPU found".to_owned(),
                1 => "only cuda:0 is available".to_owned(),
                _ => format!("only cuda:0 to cuda:{} are available", there - 1),
            }
        );
    }
    Ok(Device::Cuda(number))
}

/// The name of a device, as [`parse`] takes it.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_known_by_name() {
        assert_eq!(parse("cpu").expect("the CPU"), Device::Cpu);
        for name in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
            let error = parse(name).expect_err("no device").to_string();
            assert!(error.contains("expected cpu, cuda"), "{error}");
        }
        assert_eq!(name(Device::Cuda(1)), "cuda:1");
        assert_eq!(name(Device::Cpu), "cpu");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_with_the_cure() {
        let error = parse("cuda:1000").expect_err("no such GPU").to_string();
        assert!(error.starts_with("cuda:1000: ") && error.contains("--device cpu"), "{error}");
    }
}
