//! EDGE: a camera that is a program writing YUV4MPEG2 to its standard output.

use super::redact::Secrets;
use super::y4m::{Y4m, Y4mError};
use super::{CameraError, Captured, FrameLimit, program_log};
use crate::vision::frame::Frame;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Read buffer in bytes: 64 KiB, the capacity of a pipe, for few system calls per frame.
const BUFFER: usize = 1 << 16;
/// How long a program may take to exit after it has closed its output.
const PATIENCE: Duration = Duration::from_millis(500);

/// A running program and its video.
#[derive(Debug)]
pub struct Pipe {
    command: String,
    child: Child,
    state: State,
    limit: FrameLimit,
    /// Keeps the program's output open after a fault of ours: it must not fail because of us
    /// before its own status is known.
    _output: OwnedFd,
    opened: Instant,
    /// Set once the program is ended by us.
    stop: Arc<AtomicBool>,
    /// Process group of the program and its children. `None` once the program has been
    /// waited for: the number may belong to another process then.
    group: Arc<Mutex<Option<Pid>>>,
}

#[derive(Debug)]
enum State {
    /// The header has not been read yet; the program may need some time to write it.
    Started(ChildStdout),
    Video(Y4m<BufReader<ChildStdout>>),
    Ended,
}

impl Pipe {
    pub(super) fn open(command: &str, limit: FrameLimit) -> Result<Self, CameraError> {
        let broken = |fault: String| CameraError::Pipe { command: command.to_owned(), fault };
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own process group, so that its children can be ended with it.
            .process_group(0)
            .spawn()
            .map_err(|reason| broken(format!("does not start: {reason}")))?;
        // The pipe was requested above.
        let output = child.stdout.take().ok_or_else(|| broken("has no output".to_owned()))?;
        let kept = output.as_fd().try_clone_to_owned();
        let kept = kept.map_err(|reason| broken(format!("its output is unusable: {reason}")))?;
        if let Some(said) = child.stderr.take() {
            program_log::log_lines(said, Secrets::of(command));
        }
        let (command, state) = (command.to_owned(), State::Started(output));
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let group = Arc::new(Mutex::new(group));
        let (opened, stop) = (Instant::now(), Arc::default());
        Ok(Self { command, child, state, limit, _output: kept, opened, stop, group })
    }

    /// Reads the header first, if needed, and then the next frame; `None` at the end.
    fn read_frame(&mut self) -> Result<Option<Frame>, Y4mError> {
        if let State::Started(_) = self.state
            && let State::Started(output) = std::mem::replace(&mut self.state, State::Ended)
        {
            self.state =
                State::Video(Y4m::within(BufReader::with_capacity(BUFFER, output), self.limit)?);
        }
        match &mut self.state {
            State::Video(video) => video.read_frame(),
            State::Started(_) | State::Ended => Ok(None),
        }
    }

    /// Exit status of a program that failed; waits up to half a second for its exit.
    fn failure(&mut self) -> Option<ExitStatus> {
        let asked = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if asked.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(ended) => return ended.filter(|status| !status.success()),
                Err(_) => return None,
            }
        }
    }

    fn error(&self, fault: String) -> CameraError {
        CameraError::Pipe { command: self.command.clone(), fault }
    }

    /// Process group of the program and its children.
    pub(super) fn group(&self) -> Arc<Mutex<Option<Pid>>> {
        Arc::clone(&self.group)
    }

    /// A flag to set before the program is ended from outside.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl Iterator for Pipe {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.state, State::Ended) {
            return None;
        }
        let fault = match self.read_frame() {
            Ok(Some(frame)) => return Some(Ok(Captured { frame, at: self.opened.elapsed() })),
            Ok(None) => None,
            Err(fault) => Some(fault.to_string()),
        };
        // After a broken frame the start of the next one cannot be found.
        self.state = State::Ended;
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        let failure = self.failure().map(|status| format!("the program ended with {status}"));
        let told: Vec<String> = fault.into_iter().chain(failure).collect();
        (!told.is_empty()).then(|| Err(self.error(told.join("; "))))
    }
}

/// Kills the program and its children.
pub(super) fn end(group: Pid) {
    // Fails only if they have ended already.
    let _ = kill_process_group(group, Signal::KILL);
}

impl Drop for Pipe {
    /// Kills the program and its children.
    fn drop(&mut self) {
        self.state = State::Ended;
        if let Some(group) = self.group.lock().unwrap_or_else(PoisonError::into_inner).take() {
            end(group);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(command: &str) -> Vec<Result<Captured, CameraError>> {
        let mut pipe = Pipe::open(command, FrameLimit::default()).expect("a video");
        std::iter::from_fn(|| pipe.next()).collect()
    }

    #[test]
    fn frames_come_until_the_program_ends() {
        let video = frames("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabcFRAME\\nabc'");
        assert_eq!(video.len(), 2);
        assert!(video.iter().all(Result::is_ok));
    }

    #[test]
    fn a_pipe_cut_within_a_frame_is_an_error_and_the_end() {
        let video = frames("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabcFRAME\\na'; exit 3");
        assert_eq!(video.len(), 2);
        let message = video[1].as_ref().expect_err("cut").to_string();
        assert!(message.contains("cut short within a frame: 1 of 3"), "{message}");
    }

    #[test]
    fn a_program_that_is_no_camera_is_named() {
        for (command, expected) in [
            ("echo hello", "YUV4MPEG2"),
            ("no-such-program-1234", "exit status: 127"),
            ("printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabc'; exit 4", "exit status: 4"),
        ] {
            let video = frames(command);
            let message = video.last().expect("an error").as_ref().expect_err(command).to_string();
            let program = command.split(' ').next().unwrap_or_default();
            assert!(message.contains(program) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_program_that_fails_keeps_its_password() {
        let video = frames("false rtsp://ada:secret@cam");
        let message = video.last().expect("an error").as_ref().expect_err("no video").to_string();
        assert!(message.starts_with("pipe:false rtsp://***@cam: "), "{message}");
    }

    #[test]
    fn an_endless_program_ends_with_the_camera() {
        let started = Instant::now();
        let mut pipe = Pipe::open(
            "printf 'YUV4MPEG2 W1 H1 C444\\nFRAME\\nabc'; sleep 1000",
            FrameLimit::default(),
        )
        .expect("a video");
        assert!(pipe.next().expect("a frame").is_ok());
        drop(pipe);
        assert!(started.elapsed().as_secs() < 100);
    }

    #[test]
    fn a_program_does_not_fail_because_its_output_is_refused() {
        for command in ["echo no video; yes", "yes | cat; exit $?"] {
            let video = frames(command);
            let [Err(error)] = &video[..] else { panic!("{video:?}") };
            let message = error.to_string();
            assert!(message.contains("not a YUV4MPEG2 stream"), "{message}");
            assert!(!message.contains("ended with"), "{message}");
        }
    }

    #[test]
    fn a_program_that_is_interrupted_ends_without_a_fault() {
        let mut pipe = Pipe::open("printf 'YUV4MPEG2 W9 H9\\n'; sleep 1000", FrameLimit::default())
            .expect("a video");
        pipe.stop().store(true, Ordering::Relaxed);
        let group = pipe.group();
        end(group.lock().expect("a group").expect("a program"));
        assert!(pipe.next().is_none());
    }

    #[test]
    fn a_larger_frame_is_refused_with_the_cure_before_it_is_read() {
        let video = frames("printf 'YUV4MPEG2 W8192 H8192\\nFRAME\\n'; yes");
        let [Err(error)] = &video[..] else { panic!("{video:?}") };
        let message = error.to_string();
        assert!(
            message.contains("8192x8192") && message.contains("camera.largest_frame"),
            "{message}"
        );
        assert!(message.contains("scale=1280:-2"), "{message}");
    }
}
