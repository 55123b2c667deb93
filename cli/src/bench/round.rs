//! One round: made ready, run, measured.

use std::{rc::Rc, time::Duration};

use etcfs_client::Client;
use hdrhistogram::Histogram;

use super::{
    plan::{Op, Plan},
    process::Process,
    report::Progress,
    tally::Tally,
    work,
};
use crate::error::CliError;

/// How often progress is shown; a person needs no more.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What a round has shown.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) op: &'static str,
    pub(crate) clients: usize,
    /// From the first request to the last answer.
    pub(crate) time: Duration,
    /// Of requests that succeeded, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) server: Option<ServerCost>,
}

/// What it cost the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerCost {
    pub(crate) cpu: Duration,
    pub(crate) peak_bytes: u64,
}

impl Measured {
    pub(crate) fn answered(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn ops_per_second(&self) -> f64 {
        self.answered() as f64 / self.time.as_secs_f64().max(1e-9)
    }

    /// Latency in microseconds below which this share of requests stayed.
    pub(crate) fn micros(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64 / 1e3
    }

    pub(crate) fn max_micros(&self) -> f64 {
        self.latencies.max() as f64 / 1e3
    }

    pub(crate) fn cpu_micros_per_op(&self) -> Option<f64> {
        let answered = self.answered().max(1) as f64;
        self.server.map(|cost| cost.cpu.as_secs_f64() * 1e6 / answered)
    }
}

/// Runs one round against connected clients.
pub(crate) async fn run(clients: &[Client], plan: &Plan, op: Op) -> Result<Measured, CliError> {
    let ready = work::prepare(clients, plan, op).await?;
    let server = plan.server_pid.map(Process::find).transpose().map_err(|error| {
        CliError::arguments(format!("--server-pid {}: {error}", plan.server_pid.unwrap_or_default()))
    })?;
    let requests = plan.requests(op);
    let answers = if op == Op::Watch { requests * plan.watchers.max(1) } else { requests };
    let tally = Rc::new(Tally::new(requests));
    let progress = Progress::start(op.name(), answers, plan.json);
    let before = server.map(|process| {
        process.forget_peak();
        process.cpu()
    });
    let show = show(progress, Rc::clone(&tally));
    let outcome = tokio::select! {
        outcome = work::run(clients, plan, op, &ready, &tally) => outcome,
        () = show => Ok(()),
    };
    let time = tally.elapsed();
    let server = match (server, before) {
        (Some(process), Some(before)) => Some(ServerCost {
            cpu: process.cpu()?.saturating_sub(before?),
            peak_bytes: process.peak_bytes()?,
        }),
        _ => None,
    };
    work::clean_up(clients, ready).await;
    outcome?;
    let (latencies, errors, first_error) = tally.take();
    Ok(Measured { op: op.name(), clients: plan.clients, time, latencies, errors, first_error, server })
}

/// Shows progress for ever; ended by being dropped.
async fn show(progress: Progress, tally: Rc<Tally>) {
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    loop {
        ticks.tick().await;
        progress.at(tally.done());
    }
}
