//! Launches captured in a CUDA graph, and their time.

use super::driver::driver;
use crate::error::Result;
use cust::sys::{CUevent, CUevent_flags, CUgraphExec, CUstream, CUstream_flags, CUstreamCaptureMode};
use std::ptr;

/// Launches to be run as a whole, on a stream of their own. One context is current throughout its life.
pub(super) struct Graph {
    stream: Stream,
    executable: CUgraphExec,
}

/// A stream of nobody else's, so that nobody else's launches are captured.
struct Stream(CUstream);

/// A point in time on the device.
struct Event(CUevent);

impl Graph {
    /// Captures what `work` puts on the stream that it is given.
    pub(super) fn capture(work: impl FnOnce(CUstream) -> Result<()>) -> Result<Self> {
        let stream = Stream::new()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamBeginCapture_v2(stream.0, mode)) }?;
        let worked = work(stream.0);
        let mut graph = ptr::null_mut();
        // SAFETY: ends the capture, also after a failure; the driver writes one handle, null when the capture failed.
        let ended = unsafe { driver!(cuStreamEndCapture(stream.0, &mut graph)) };
        let mut executable = ptr::null_mut();
        let made = worked.and(ended).and_then(|()| {
            // SAFETY: the graph was captured; the driver writes one handle.
            unsafe { driver!(cuGraphInstantiateWithFlags(&mut executable, graph, 0)) }
        });
        if !graph.is_null() {
            // SAFETY: ours, and the executable does not need it. A failure has nobody to go to.
            let _ = unsafe { driver!(cuGraphDestroy(graph)) };
        }
        made.map(|()| Self { stream, executable })
    }

    /// Microseconds that each of `replays` runs takes on the device, after one that is not counted.
    pub(super) fn time(&self, replays: u32) -> Result<Vec<f32>> {
        let (start, end) = (Event::new()?, Event::new()?);
        let run = || {
            start.record(&self.stream)?;
            // SAFETY: both handles are ours.
            unsafe { driver!(cuGraphLaunch(self.executable, self.stream.0)) }?;
            end.record(&self.stream)?;
            end.microseconds_since(&start)
        };
        run()?;
        (0..replays).map(|_| run()).collect()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours, and the driver lets a run in progress end. A failure has nobody to go to.
        let _ = unsafe { driver!(cuGraphExecDestroy(self.executable)) };
    }
}

impl Stream {
    fn new() -> Result<Self> {
        let mut stream = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuStreamCreate(&mut stream, CUstream_flags::CU_STREAM_NON_BLOCKING as u32)) }?;
        Ok(Self(stream))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: ours; the driver lets work on it end. A failure has nobody to go to.
        let _ = unsafe { driver!(cuStreamDestroy_v2(self.0)) };
    }
}

impl Event {
    fn new() -> Result<Self> {
        let mut event = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuEventCreate(&mut event, CUevent_flags::CU_EVENT_DEFAULT as u32)) }?;
        Ok(Self(event))
    }

    /// The time at which the work so far on the stream is done.
    fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles are ours.
        unsafe { driver!(cuEventRecord(self.0, stream.0)) }
    }

    /// Microseconds from `start` to this event, both recorded; waits for it.
    fn microseconds_since(&self, start: &Self) -> Result<f32> {
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
