//! Memory that a training step gives back is kept for the next one.
//!
//! A step takes gigabytes in blocks of megabytes. The GNU C library asks the kernel
//! for each and gives it back at once, and the kernel clears every page of it every
//! time: 15.3 images a second instead of 21.3 on two cores at batch 32, as
//! `bench-train` says with and without. The library reads how to do otherwise from
//! the environment, when a program starts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// No block of its own for anything, nothing given back below 16 GiB, and one heap for
/// all threads, since those of single threads are given back whatever is said here.
const KEEP: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_ARENA_MAX", "1"),
];

/// Starts this program anew, as the same process and with the same arguments, with
/// the environment that keeps memory. Comes back where that is so already, where
/// somebody chose otherwise, and where the C library is another.
pub fn keep_freed() {
    if cfg!(not(all(target_os = "linux", target_env = "gnu")))
        || chosen(|name| std::env::var_os(name).is_some())
    {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let mut again = Command::new(program);
    again.args(arguments).envs(KEEP).arg0(name.as_deref().unwrap_or(OsStr::new("facelatch-tools")));
    // Only comes back where it failed.
    let error = again.exec();
    log::info!("memory is not kept from step to step, training is slower: {error}");
}

/// Whether the environment says anything of this already.
fn chosen(is_set: impl Fn(&str) -> bool) -> bool {
    KEEP.iter().any(|(name, _)| is_set(name)) || is_set("GLIBC_TUNABLES") || is_set("LD_PRELOAD")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_chose_stays() {
        assert!(!chosen(|_| false));
        assert!(!chosen(|name| name == "PATH"));
        for name in ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"] {
            assert!(chosen(|set| set == name));
        }
    }

    #[test]
    fn a_program_started_with_it_is_not_started_again() {
        assert!(chosen(|name| KEEP.iter().any(|(keep, _)| *keep == name)));
    }
}
