//! Publishes each line of its input, which has to be JSON, and says what became of it:
//! `sensor | publisher ws://127.0.0.1:8000 readings`.
//!
//! While there is no connection lines wait in the outbox, up to its bound; then the oldest gives way, and is named. What
//! was under way when a connection broke may have arrived or not: that, too, is said, and nothing is sent twice.

use longwire_client::realtime::{Client, ClientEvent};
use longwire_client::{Error, Options, Outbox, WhenFull};
use tokio::io::AsyncBufReadExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("which server?")?;
    let channel = arguments.next().ok_or("which channel?")?;

    let outbox = Outbox { max_sends: 1000, when_full: WhenFull::DropOldest, ..Outbox::default() };
    let client = Client::builder(&url).options(Options { outbox, ..Options::default() }).build()?;
    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let ClientEvent::Transition(transition) = event {
                println!("-- {transition}");
            }
        }
    });

    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut publishing = tokio::task::JoinSet::new();
    while let Some(line) = lines.next_line().await? {
        let (client, channel) = (client.clone(), channel.clone());
        publishing.spawn(async move {
            match client.publish(&channel, line.clone()).await {
                Ok(_) => println!("confirmed {line}"),
                Err(Error::Unconfirmed) => println!("perhaps {line}"),
                Err(error) => println!("lost {line}: {error}"),
            }
        });
        while publishing.try_join_next().is_some() {}
    }
    while publishing.join_next().await.is_some() {}
    client.close().await;
    Ok(())
}
