//! Processes that are waited for although they are not our children.

/// A process, told apart from a later one of the same id by its start time.
pub(super) struct Process {
    pub(super) pid: u32,
    started: String,
}

impl Process {
    /// The process with this id, where it lives: a zombie does not.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let (state, started) = Self::status(pid)?;
        if state == "Z" { None } else { Some(Self { pid, started }) }
    }

    /// State and start time: fields 3 and 22 of `/proc/PID/stat` (proc_pid_stat(5)). The second field, the name, may
    /// hold blanks, so that counting begins behind its closing parenthesis.
    fn status(pid: u32) -> Option<(String, String)> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.to_owned();
        Some((state, fields.nth(18)?.to_owned()))
    }

    /// Ends it at once; fine where it has ended.
    pub(super) fn kill(&self) {
        let pid = i32::try_from(self.pid).map(nix::unistd::Pid::from_raw);
        if let Ok(pid) = pid.map_err(drop)
            && !self.is_gone()
        {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        Self::of(self.pid).is_none_or(|now| now.started != self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_it_has_ended_reaped_or_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(!process.is_gone());
        child.kill().unwrap();
        let began = std::time::Instant::now();
        while !process.is_gone() {
            assert!(began.elapsed().as_secs() < 5);
        }
        child.wait().unwrap();
        assert!(process.is_gone());
    }
}
