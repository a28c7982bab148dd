//! The pool of workers: bounds, order of ending, panics.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures::future::{join_all, poll_immediate};

use super::*;
use crate::io::contract::run;

/// A job that runs until the sender is used or dropped.
fn gate() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
    let (open, closed) = mpsc::channel();
    (open, move || {
        let _ = closed.recv();
    })
}

#[test]
fn jobs_run_and_answer() {
    run(async {
        let workers = Workers::start("test", 4).unwrap();
        let queue = workers.queue();
        let answers = join_all((0..100).map(|i| queue.run(move || i * 2))).await;
        assert!(answers.into_iter().eq((0..100).map(|i| Some(i * 2))));
    });
}

#[test]
fn the_queue_is_bounded() {
    run(async {
        let workers = Workers::start("test", 1).unwrap();
        let queue = workers.queue();
        let (open, closed) = gate();
        let ran = Arc::new(AtomicUsize::new(0));
        let mut first = Box::pin(queue.run(closed));
        assert!(poll_immediate(&mut first).await.is_none());
        let mut others: Vec<_> = (0..QUEUE_MAX + 10)
            .map(|_| {
                let ran = Arc::clone(&ran);
                Box::pin(queue.run(move || ran.fetch_add(1, Ordering::Relaxed)))
            })
            .collect();
        for other in &mut others {
            assert!(poll_immediate(other).await.is_none());
        }
        assert!(queue.lock().jobs.len() <= QUEUE_MAX);
        drop(open);
        first.await.unwrap();
        assert!(join_all(others).await.iter().all(Option::is_some));
        assert_eq!(ran.load(Ordering::Relaxed), QUEUE_MAX + 10);
    });
}

#[test]
fn a_dropped_future_leaves_its_job_running() {
    run(async {
        let workers = Workers::start("test", 1).unwrap();
        let (tell, told) = mpsc::channel();
        let queue = workers.queue();
        let (open, closed) = gate();
        let job = move || {
            closed();
            tell.send(5).unwrap();
        };
        assert!(poll_immediate(queue.run(job)).await.is_none());
        drop(open);
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), 5);
    });
}

#[test]
fn dropping_the_workers_ends_the_running_job_and_answers_the_rest() {
    run(async {
        let workers = Workers::start("test", 1).unwrap();
        let queue = workers.queue();
        let (open, closed) = gate();
        let mut running = Box::pin(queue.run(closed));
        assert!(poll_immediate(&mut running).await.is_none());
        while !queue.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        let mut waiting = Box::pin(queue.run(|| ()));
        assert!(poll_immediate(&mut waiting).await.is_none());
        let ending = thread::spawn(move || drop(workers));
        assert_eq!(waiting.await, None);
        assert!(!ending.is_finished(), "a job still runs");
        drop(open);
        assert_eq!(running.await, Some(()));
        ending.join().unwrap();
        assert_eq!(queue.run(|| ()).await, None);
    });
}

#[test]
fn a_panic_stops_the_pool() {
    run(async {
        let workers = Workers::start("test", 2).unwrap();
        let queue = workers.queue();
        let answer: Option<()> = queue.run(|| panic!("as the test wants")).await;
        assert_eq!(answer, None);
        while !queue.lock().stopped {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.run(|| ()).await, None);
    });
}
