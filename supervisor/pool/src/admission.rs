//! How much fits: the count and the bytes of all jobs that have not ended.
//!
//! A job's room is reserved when it is admitted and freed when its end is recorded, not when it
//! starts: so a job that comes back from a lost worker always finds its place.
//!
//! # Invariants
//!
//! - What is reserved never exceeds the limits (I4). A limit that the operator lowers beneath what is
//!   there already takes nobody's room: what is there is tolerated, and the tolerance shrinks with it.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::Refusal;
use crate::pace::Pace;
use crate::settings::Settings;
use crate::time::Instant;

/// What is reserved, and how fast it becomes free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admission {
    jobs: u64,
    bytes: u64,
    tolerated_jobs: u64,
    tolerated_bytes: u64,
    pace: Pace,
}

impl Admission {
    pub(crate) const fn jobs(&self) -> u64 {
        self.jobs
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How fast jobs end, as far as that is known.
    pub(crate) fn pace(&self) -> Option<Duration> {
        self.pace.usual()
    }

    /// Reserves room for a job of `bytes`, or says why there is none.
    pub(crate) fn reserve(
        &mut self,
        now: Instant,
        bytes: u64,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        let limit = settings.queue_bytes;
        if bytes > limit {
            return Err(Refusal::BytesFull {
                limit,
                retry_after: None,
            });
        }
        if self.jobs >= settings.queue_jobs {
            let surplus = (self.jobs - settings.queue_jobs).saturating_add(1);
            return Err(Refusal::JobsFull {
                limit: settings.queue_jobs,
                retry_after: self.pace.promise(now, surplus, None),
            });
        }
        let wanted = self.bytes.saturating_add(bytes);
        if wanted > limit {
            let mean = (self.bytes / self.jobs.max(1)).max(1);
            let surplus = (wanted - limit).div_ceil(mean);
            return Err(Refusal::BytesFull {
                limit,
                retry_after: Some(self.pace.promise(now, surplus, None)),
            });
        }
        if self.jobs == 0 {
            self.pace.begin(now);
        }
        self.jobs += 1;
        self.bytes = wanted;
        Ok(())
    }

    /// Frees the room of a job that has ended.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.jobs = self.jobs.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.tolerated_jobs = self.tolerated_jobs.min(self.jobs);
        self.tolerated_bytes = self.tolerated_bytes.min(self.bytes);
    }

    /// A job that ran has ended: those that never did say nothing of how fast that is.
    pub(crate) fn ran(&mut self, now: Instant) {
        self.pace.end(now);
    }

    /// The limits may have become lower: what is there stays.
    pub(crate) const fn tolerate_present(&mut self) {
        self.tolerated_jobs = self.jobs;
        self.tolerated_bytes = self.bytes;
    }

    /// Whether what is reserved fits the limits, or what was there when they were lowered.
    pub(crate) fn fits(&self, settings: &Settings) -> bool {
        self.jobs <= settings.queue_jobs.max(self.tolerated_jobs)
            && self.bytes <= settings.queue_bytes.max(self.tolerated_bytes)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::pace::{RETRY_MAX, RETRY_MIN};

    fn settings(queue_jobs: u64, queue_bytes: u64) -> Settings {
        Settings {
            queue_jobs,
            queue_bytes,
            ..Settings::default_for(1)
        }
    }

    fn at_ms(millis: u64) -> Instant {
        Instant::new(Duration::from_millis(millis))
    }

    #[test]
    fn a_job_that_never_fits_is_told_so() {
        let refusal = Admission::default().reserve(Instant::START, 11, &settings(1, 10));
        let expected = Refusal::BytesFull {
            limit: 10,
            retry_after: None,
        };
        assert_eq!(refusal, Err(expected));
    }

    #[test]
    fn the_wait_follows_the_rate_of_the_last_ends() {
        let settings = settings(1, 1_000);
        let mut admission = Admission::default();
        for end in 1..=4 {
            admission
                .reserve(at_ms((end - 1) * 500), 10, &settings)
                .expect("it is empty");
            admission.release(10);
            admission.ran(at_ms(end * 500));
        }
        admission
            .reserve(at_ms(2_000), 10, &settings)
            .expect("it is empty");
        let expected = Refusal::JobsFull {
            limit: 1,
            retry_after: Duration::from_millis(500),
        };
        assert_eq!(
            admission.reserve(at_ms(2_500), 10, &settings),
            Err(expected)
        );
    }

    #[test]
    fn a_lowered_limit_takes_nobodys_room_and_lets_nobody_in() {
        let mut admission = Admission::default();
        for _ in 0..4 {
            assert_eq!(
                admission.reserve(Instant::START, 5, &settings(4, 20)),
                Ok(())
            );
        }
        admission.tolerate_present();
        assert!(admission.fits(&settings(2, 20)));
        admission.release(5);
        assert!(
            admission
                .reserve(Instant::START, 5, &settings(2, 20))
                .is_err()
        );
        admission.release(5);
        admission.release(5);
        assert_eq!(
            admission.reserve(Instant::START, 5, &settings(2, 20)),
            Ok(())
        );
    }

    proptest! {
        #[test]
        fn never_one_job_or_byte_over_and_never_a_refusal_without_need(
            steps in prop::collection::vec((any::<bool>(), 0u64..40), 1..200),
            queue_jobs in 0u64..6,
            queue_bytes in 0u64..100,
        ) {
            let settings = settings(queue_jobs, queue_bytes);
            let mut admission = Admission::default();
            let mut held = alloc::vec::Vec::new();
            for (step, (submits, bytes)) in (0u64..).zip(steps) {
                let sum: u64 = held.iter().sum();
                if submits {
                    let fits = (held.len() as u64) < queue_jobs && sum + bytes <= queue_bytes;
                    match admission.reserve(at_ms(step), bytes, &settings) {
                        Ok(()) => {
                            prop_assert!(fits);
                            held.push(bytes);
                        }
                        Err(Refusal::JobsFull { retry_after, .. } | Refusal::BytesFull { retry_after: Some(retry_after), .. }) => {
                            prop_assert!(!fits);
                            prop_assert!((RETRY_MIN..=RETRY_MAX).contains(&retry_after));
                        }
                        Err(Refusal::BytesFull { retry_after: None, .. }) => prop_assert!(bytes > queue_bytes),
                        Err(Refusal::TenantFull { .. } | Refusal::Draining | Refusal::Stopping) => prop_assert!(false),
                    }
                } else if let Some(bytes) = held.pop() {
                    admission.release(bytes);
                }
                prop_assert!(admission.fits(&settings));
                prop_assert_eq!(admission.jobs(), held.len() as u64);
                prop_assert_eq!(admission.bytes(), held.iter().sum::<u64>());
            }
        }
    }
}
