//! Launches captured in a CUDA graph, and their time.

use super::driver::driver;
use super::session::Session;
use crate::error::Result;
use cust::sys::{CUevent, CUevent_flags, CUgraphExec, CUstream, CUstream_flags, CUstreamCaptureMode};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Launches to be run as a whole, on a stream of their own.
pub(super) struct Graph {
    executable: Executable,
    stream: Stream,
    start: Event,
    end: Event,
}

/// A graph that can be launched.
struct Executable {
    session: Arc<Session>,
    handle: CUgraphExec,
}

/// A stream of nobody else's, so that nobody else's launches are captured.
struct Stream {
    session: Arc<Session>,
    handle: CUstream,
}

/// A point in time on the device.
struct Event {
    session: Arc<Session>,
    handle: CUevent,
}

impl Graph {
    /// Captures what `work` puts on the stream that it is given, with the session's context current.
    pub(super) fn capture(session: &Arc<Session>, work: impl FnOnce(CUstream) -> Result<()>) -> Result<Self> {
        let _current = session.enter()?;
        let stream = Stream::new(session)?;
        let (start, end) = (Event::new(session)?, Event::new(session)?);
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamBeginCapture_v2(stream.handle, mode)) }?;
        let worked = work(stream.handle);
        let mut graph = ptr::null_mut();
        // SAFETY: ends the capture, also after a failure; the driver writes one handle, null when the capture failed.
        let ended = unsafe { driver!(cuStreamEndCapture(stream.handle, &mut graph)) };
        let mut handle = ptr::null_mut();
        let made = worked.and(ended).and_then(|()| {
            // SAFETY: the graph was captured; the driver writes one handle.
            unsafe { driver!(cuGraphInstantiateWithFlags(&mut handle, graph, 0)) }
        });
        if !graph.is_null() {
            // SAFETY: ours, and the executable does not need it. A failure has nobody to go to.
            let _ = unsafe { driver!(cuGraphDestroy(graph)) };
        }
        let executable = made.map(|()| Executable { session: Arc::clone(session), handle })?;
        Ok(Self { executable, stream, start, end })
    }

    /// Starts one run.
    pub(super) fn launch(&self) -> Result<()> {
        let _current = self.stream.session.enter()?;
        // SAFETY: both handles are ours.
        unsafe { driver!(cuGraphLaunch(self.executable.handle, self.stream.handle)) }
    }

    /// Waits for all runs.
    pub(super) fn synchronize(&self) -> Result<()> {
        let _current = self.stream.session.enter()?;
        // SAFETY: the stream is ours.
        unsafe { driver!(cuStreamSynchronize(self.stream.handle)) }
    }

    /// Runs again and again for at least this long.
    pub(super) fn warm_up(&self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            self.launch()?;
            self.synchronize()?;
            if start.elapsed() >= duration {
                return Ok(());
            }
        }
    }

    /// Microseconds that one run takes on the device. It follows another, which keeps the device busy until all is put
    /// on the stream: what the host takes for that does not show.
    pub(super) fn time(&self) -> Result<f64> {
        let _current = self.stream.session.enter()?;
        self.launch()?;
        self.start.record(&self.stream)?;
        self.launch()?;
        self.end.record(&self.stream)?;
        self.end.microseconds_since(&self.start)
    }
}

/// Microseconds that `work` takes on the device, put on a stream of its own.
pub(super) fn time_on_stream(session: &Arc<Session>, work: impl FnOnce(CUstream) -> Result<()>) -> Result<f64> {
    let _current = session.enter()?;
    let stream = Stream::new(session)?;
    let (start, end) = (Event::new(session)?, Event::new(session)?);
    start.record(&stream)?;
    work(stream.handle)?;
    end.record(&stream)?;
    end.microseconds_since(&start)
}

impl Drop for Executable {
    fn drop(&mut self) {
        if let Ok(_current) = self.session.enter() {
            // SAFETY: ours, and the driver lets a run in progress end. A failure has nobody to go to.
            let _ = unsafe { driver!(cuGraphExecDestroy(self.handle)) };
        }
    }
}

impl Stream {
    /// The context is current.
    fn new(session: &Arc<Session>) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuStreamCreate(&mut handle, CUstream_flags::CU_STREAM_NON_BLOCKING as u32)) }?;
        Ok(Self { session: Arc::clone(session), handle })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(_current) = self.session.enter() {
            // SAFETY: ours; the driver lets work on it end. A failure has nobody to go to.
            let _ = unsafe { driver!(cuStreamDestroy_v2(self.handle)) };
        }
    }
}

impl Event {
    /// The context is current.
    fn new(session: &Arc<Session>) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the driver writes one handle.
        unsafe { driver!(cuEventCreate(&mut handle, CUevent_flags::CU_EVENT_DEFAULT as u32)) }?;
        Ok(Self { session: Arc::clone(session), handle })
    }

    /// The time at which the work so far on the stream is done.
    fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles are ours.
        unsafe { driver!(cuEventRecord(self.handle, stream.handle)) }
    }

    /// Microseconds from `start` to this event, both recorded; waits for it.
    fn microseconds_since(&self, start: &Self) -> Result<f64> {
        let mut milliseconds = 0.0;
        // SAFETY: both events are ours and were recorded; the driver writes one number.
        unsafe {
            driver!(cuEventSynchronize(self.handle))?;
            driver!(cuEventElapsedTime(&mut milliseconds, start.handle, self.handle))?;
        }
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_current) = self.session.enter() {
            // SAFETY: ours. A failure has nobody to go to.
            let _ = unsafe { driver!(cuEventDestroy_v2(self.handle)) };
        }
    }
}
