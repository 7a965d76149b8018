//! Does jobs from a queue, for ever: `worker stomp://guest:guest@127.0.0.1:61613 /queue/jobs`.
//!
//! A job that was not acknowledged when the connection broke comes again: do it twice, or know it by its header.

use longwire_client::stomp::{AckMode, Client};

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
    while let Some(job) = jobs.message().await {
        println!("done: {}", String::from_utf8_lossy(job.body()));
        if let Err(error) = job.ack().await {
            eprintln!("{error}");
        }
    }
    // The client comes back after every break; it ends here when the server does not want it.
    client.connected().await.map_err(|error| error.to_string().into())
}
