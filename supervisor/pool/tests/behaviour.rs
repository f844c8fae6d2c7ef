//! What the pool does, told as small stories: one event after the other, and what it asks for.

mod behaviour {
    mod control;
    mod jobs;
    mod snapshots;
    mod story;
    mod workers;
}
