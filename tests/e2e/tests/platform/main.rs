//! Every end-to-end test, in one binary so that it links once. Real processes, the real binary; each
//! test has a platform of its own in a folder of its own.

mod arrays;
mod budgets;
mod crash;
mod decisions;
mod dev;
mod docker;
mod explain;
mod fair_share;
mod faults;
mod gangs;
mod guardrails;
mod history;
mod idle;
mod main_job;
mod models;
mod notebook;
mod ordering;
mod priorities;
mod processes;
mod reclaim;
mod retries;
mod roles;
mod scheduling;
mod sdk;
mod topology;
mod volume;
