//! Shows prices as they change, whatever happens to the connection: `ticker ws://127.0.0.1:8000 prices`.
//!
//! Publications are `{"symbol": "LWR", "price": 1.25}`. After a break the missed ones follow, in a channel with history;
//! where they cannot be had, the ticker is told so and asks for the state anew.

use longwire_client::realtime::{Client, ClientEvent, Event, HistoryQuery, Publication};
use serde::Deserialize;

#[derive(Deserialize)]
struct Price<'a> {
    symbol: &'a str,
    /// As it was written: a price is not a binary fraction.
    #[serde(borrow)]
    price: &'a serde_json::value::RawValue,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("which server?")?;
    let channel = arguments.next().ok_or("which channel?")?;

    let client = Client::builder(&url).build()?;
    let mut steps = client.events();
    tokio::spawn(async move {
        while let Some(event) = steps.next().await {
            if let ClientEvent::Transition(step) = event {
                println!("-- {step}");
            }
        }
    });
    let mut prices = client.subscribe(&channel)?;
    while let Some(event) = prices.next().await {
        match event {
            Event::Subscribed(_) => println!("subscribed to {channel}"),
            Event::Publication(publication) => show(&publication),
            Event::Recovered { publications: 0 } => println!("nothing was missed"),
            Event::Recovered { publications } => {
                println!("nothing was missed: {publications} follow");
            }
            Event::NotRecovered { .. } => {
                println!("something was missed; the last ten are");
                let last = client.history(&channel, HistoryQuery::limit(10).reverse()).await?;
                last.publications.iter().rev().for_each(show);
            }
            Event::Unsubscribed { reason, .. } => println!("no prices any more: {reason}"),
            _ => {}
        }
    }
    client.connected().await.map_err(|error| error.to_string().into())
}

fn show(publication: &Publication) {
    match serde_json::from_slice::<Price>(&publication.data) {
        Ok(price) => println!("{} {}", price.symbol, price.price),
        Err(error) => println!("not a price: {error}"),
    }
}
