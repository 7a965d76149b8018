//! Does jobs from a queue, for ever: `worker stomp://guest:guest@127.0.0.1:61613 /queue/jobs`.
//!
//! A job that was not acknowledged when the connection broke comes again: do it twice, or know it by its header. The
//! client comes back after every break; it ends when the server does not want it, or does not let it have the queue.

use longwire_client::stomp::{AckMode, Client, Event};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("which server?")?;
    let queue = arguments.next().ok_or("which queue?")?;

    let client = Client::builder(&url).build()?;
    let mut steps = client.events();
    tokio::spawn(async move {
        while let Some(step) = steps.next().await {
            println!("-- {step}");
        }
    });
    let mut jobs = client.subscribe(&queue).ack(AckMode::ClientIndividual).prefetch(10).start()?;
    while let Some(event) = jobs.next().await {
        let job = match event {
            Event::Message(job) => job,
            Event::Ended(error) => return Err(error.to_string().into()),
            _ => continue,
        };
        println!("done: {}", String::from_utf8_lossy(job.body()));
        job.ack().await.unwrap_or_else(|error| eprintln!("{error}"));
    }
    Ok(())
}
