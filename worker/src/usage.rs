//! stub
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use wpool_protocol::limits::{LimitName, Limits};
use wpool_protocol::wire::RunUsage;
#[derive(Debug)]
pub(crate) struct Watch;
#[derive(Debug)]
pub(crate) struct Excess {
    pub(crate) limit: LimitName,
    pub(crate) peak: u64,
    pub(crate) at: Duration,
}
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) usage: RunUsage,
    pub(crate) limits_hit: Vec<LimitName>,
}
impl Watch {
    pub(crate) fn new(
        _: &Limits,
        _: &crate::launch::Surroundings,
        _: u32,
        _: BorrowedFd<'_>,
    ) -> std::io::Result<Self> {
        Ok(Self)
    }
    pub(crate) fn begin(&mut self, _: Instant) {}
    pub(crate) fn look(&mut self, _: Instant) -> Option<Excess> {
        None
    }
    pub(crate) fn next_look(&self) -> Option<Instant> {
        None
    }
    pub(crate) fn account(
        &mut self,
        wall: Duration,
        tree: Option<crate::dialogue::TreeEnd>,
    ) -> Account {
        Account {
            usage: RunUsage {
                wall_us: wall.as_micros() as u64,
                cpu_user_us: tree.map_or(0, |t| t.user_us),
                cpu_system_us: 0,
                memory_peak_bytes: 0,
                processes_peak: 1,
                measured_by: wpool_protocol::outcome::MeasuredBy::Rusage,
            },
            limits_hit: vec![],
        }
    }
}
