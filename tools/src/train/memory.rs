//! Keeps the memory that a training step frees for the next step.
//!
//! A step takes gigabytes in blocks of megabytes. By default the GNU C library requests
//! each block from the kernel and returns it at once, and the kernel clears every page
//! each time. On two cores at batch 32, `bench-train` measures 15.3 images per second
//! that way and 21.3 with the settings below. The library reads them from the environment
//! when a program starts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// No separate mapping for any block, no memory returned below 16 GiB, and one heap for
/// all threads, because the heaps of single threads are returned regardless of these
/// settings.
const KEEP: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
    ("MALLOC_ARENA_MAX", "1"),
];

/// Restarts this program as the same process with the same arguments, with these settings
/// in the environment. Returns without a restart if they are set already, if the user
/// chose other allocator settings, or if the C library is not glibc.
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
    // Returns only on failure.
    let error = again.exec();
    log::info!(
        "cannot restart with settings that keep memory between steps, training is slower: {error}"
    );
}

/// Whether the environment already holds allocator settings.
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
