//! EDGE: a program that writes YUV4MPEG2 to its standard output.

use super::y4m::{Y4m, Y4mError};
use super::{CameraError, Captured};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// A program and the video it writes.
#[derive(Debug)]
pub struct Pipe {
    command: String,
    child: Child,
    /// Nothing until the header has come, and after the end.
    video: Option<Y4m<BufReader<ChildStdout>>>,
    opened: Instant,
}

impl Pipe {
    pub(super) fn open(command: &str) -> Result<Self, CameraError> {
        let broken = |fault: String| CameraError::Pipe { command: command.to_owned(), fault };
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A group of its own, so that all it starts can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(|reason| broken(format!("does not start: {reason}")))?;
        // Asked for just above.
        let Some(output) = child.stdout.take() else {
            return Err(broken("has no output".to_owned()));
        };
        let mut pipe =
            Self { command: command.to_owned(), child, video: None, opened: Instant::now() };
        // Some 64 kB, as much as a pipe holds, for fewer system calls a frame.
        let reader = BufReader::with_capacity(1 << 16, output);
        pipe.video = Some(Y4m::new(reader).map_err(|fault| pipe.fault(&fault))?);
        pipe.opened = Instant::now();
        Ok(pipe)
    }

    /// The program and all that it started.
    pub(super) fn group(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn fault(&mut self, fault: &Y4mError) -> CameraError {
        let ended = self.child.try_wait().ok().flatten();
        let how = match ended {
            Some(status) if !status.success() => format!("; the program ended with {status}"),
            _ => String::new(),
        };
        CameraError::Pipe { command: self.command.clone(), fault: format!("{fault}{how}") }
    }
}

impl Iterator for Pipe {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.video.as_mut()?.read_frame() {
            Ok(Some(frame)) => Some(Ok(Captured { frame, at: self.opened.elapsed() })),
            Ok(None) => {
                self.video = None;
                None
            }
            // What comes after a broken frame cannot be told from its rest.
            Err(fault) => {
                self.video = None;
                Some(Err(self.fault(&fault)))
            }
        }
    }
}

/// Ends a program with all that it started.
pub(super) fn end(group: Pid) {
    // Nothing to be done about one that has already ended.
    let _ = kill_process_group(group, Signal::KILL);
}

impl Drop for Pipe {
    /// Ends the program with all that it started.
    fn drop(&mut self) {
        self.video = None;
        if let Some(group) = self.group() {
            end(group);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(command: &str) -> Vec<Result<Captured, CameraError>> {
        let mut pipe = Pipe::open(command).expect("a video");
        std::iter::from_fn(|| pipe.next()).collect()
    }

    #[test]
    fn frames_come_until_the_program_ends() {
        let video = frames("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabcFRAME\\nabc'");
        assert_eq!(video.len(), 2);
        assert!(video.iter().all(Result::is_ok));
    }

    #[test]
    fn a_pipe_broken_within_a_frame_is_told_and_is_the_end() {
        let video = frames("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabcFRAME\\na'; exit 3");
        assert_eq!(video.len(), 2);
        let message = video[1].as_ref().expect_err("cut").to_string();
        assert!(message.contains("cut short within a frame: 1 of 3"), "{message}");
    }

    #[test]
    fn a_program_that_is_no_camera_is_named() {
        let message = Pipe::open("echo hello").expect_err("no video").to_string();
        assert!(message.contains("echo hello") && message.contains("YUV4MPEG2"), "{message}");
        let message = Pipe::open("no-such-program-1234").expect_err("no program").to_string();
        assert!(message.contains("no-such-program-1234"), "{message}");
    }

    #[test]
    fn an_endless_program_ends_with_the_camera() {
        let started = Instant::now();
        let mut pipe =
            Pipe::open("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabc'; sleep 1000").expect("a video");
        assert!(pipe.next().expect("a frame").is_ok());
        drop(pipe);
        assert!(started.elapsed().as_secs() < 100);
    }
}
