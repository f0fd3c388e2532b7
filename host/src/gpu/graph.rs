//! Launches captured in a CUDA graph, and their time.

use super::driver::driver;
use super::session::Session;
use crate::error::Result;
use cust::sys::{CUevent, CUevent_flags, CUgraphExec, CUstreamCaptureMode};
use std::ptr;

/// What a stream was given, to be run again as a whole. The session's context is current wherever one is used.
pub(super) struct Graph<'a> {
    session: &'a Session,
    executable: CUgraphExec,
}

impl<'a> Graph<'a> {
    /// Captures what `work` puts on the session's stream.
    pub(super) fn capture(session: &'a Session, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is the session's.
        unsafe { driver!(cuStreamBeginCapture_v2(session.stream(), mode)) }?;
        let worked = work();
        let mut graph = ptr::null_mut();
        // SAFETY: ends the capture, also after a failure; the driver writes one handle, null when the capture failed.
        let ended = unsafe { driver!(cuStreamEndCapture(session.stream(), &mut graph)) };
        let mut executable = ptr::null_mut();
        let made = worked.and(ended).and_then(|()| {
            // SAFETY: the graph was captured; the driver writes one handle.
            unsafe { driver!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)) }
        });
        if !graph.is_null() {
            // SAFETY: the executable does not need the graph. A failure has nobody to go to.
            let _ = unsafe { driver!(cuGraphDestroy(graph)) };
        }
        made.map(|()| Self { session, executable })
    }

    /// Puts the graph on the session's stream.
    pub(super) fn launch(&self) -> Result<()> {
        // SAFETY: both handles are ours.
        unsafe { driver!(cuGraphLaunch(self.executable, self.session.stream())) }
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and the driver lets a run in progress end. A failure has nobody to go to.
        let _ = unsafe { driver!(cuGraphExecDestroy(self.executable)) };
    }
}

/// A point in time on the device.
pub(super) struct Event(CUevent);

impl Event {
    pub(super) fn new() -> Result<Self> {
        let mut event = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuEventCreate(&mut event, CUevent_flags::CU_EVENT_DEFAULT as u32)) }?;
        Ok(Self(event))
    }

    /// The time at which the work so far on the session's stream is done.
    pub(super) fn record(&self, session: &Session) -> Result<()> {
        // SAFETY: both handles are ours.
        unsafe { driver!(cuEventRecord(self.0, session.stream())) }
    }

    /// Microseconds from `start` to this event, both recorded; waits for it.
    pub(super) fn microseconds_since(&self, start: &Self) -> Result<f32> {
        let mut milliseconds = 0.0;
        // SAFETY: both events are ours and were recorded; the driver writes one number.
        unsafe {
            driver!(cuEventSynchronize(self.0))?;
            driver!(cuEventElapsedTime(&mut milliseconds, start.0, self.0))?;
        }
        Ok(milliseconds * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours. A failure has nobody to go to.
        let _ = unsafe { driver!(cuEventDestroy_v2(self.0)) };
    }
}
