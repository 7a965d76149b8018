//! How a connection ends when its processes end it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drop_delivers_what_was_written_and_then_the_end() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    client.write_all(&pattern(20_000)).await.unwrap();
    let id = client.id;
    drop(client);
    let (all, end) = read_out(&mut server).await;
    assert!(all == pattern(20_000));
    assert_eq!(end.unwrap(), 0);
    drop(server);
    sleep(seconds(1)).await;
    let fate = net.fate(id).unwrap();
    assert!(fate.over);
    assert_eq!(fate.arrived_at_server, 20_000);
    assert_eq!(fate.first(|happening| matches!(happening, Happening::Reset(..))), None);
    assert!(fate.when(Happening::FinArrived(Side::Client)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_drop_with_unread_bytes_is_a_reset() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    client.write_all(b"unread").await.unwrap();
    server.write_all(b"hey").await.unwrap();
    sleep(milliseconds(10)).await;
    drop(server);
    sleep(milliseconds(10)).await;
    assert_eq!(net.stats().bytes_buffered, 3, "nobody can read what the server did not");
    // As measured on Linux: what had arrived, the reset once, then the end.
    assert_eq!(read_exactly(&mut client, 3).await, b"hey");
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::BrokenPipe);
    let fate = net.fate(client.id).unwrap();
    assert!(fate.when(Happening::Reset(Side::Server, Why::Unread)).is_some());
    assert!(fate.when(Happening::ResetArrived(Side::Client)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reset_takes_unread_bytes_with_it_where_a_host_is_told_so() {
    let Pair { net, mut client, server, .. } = pair().await;
    net.discards_on_reset(CLIENT, true);
    write_now(&server, b"hey").unwrap();
    sleep(milliseconds(10)).await;
    server.socket.abort_on_drop();
    drop(server);
    sleep(milliseconds(10)).await;
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_abortive_drop_throws_away_what_was_not_sent() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    client.abort_on_drop();
    let written = fill(&client);
    sleep(milliseconds(10)).await;
    let written = written + fill(&client);
    let id = client.id;
    drop(client);
    assert_eq!(net.stats().bytes_buffered, 32 * 1024, "only what has arrived is left");
    let (all, end) = read_out(&mut server).await;
    assert_eq!(kind(end), ErrorKind::ConnectionReset);
    assert!(all.len() == 32 * 1024 && all.len() < written);
    assert!(net.fate(id).unwrap().when(Happening::Reset(Side::Client, Why::Aborted)).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_a_reset_fails_with_it_even_if_it_is_a_write() {
    let Pair { mut client, server, .. } = pair().await;
    server.socket.abort_on_drop();
    drop(server);
    sleep(milliseconds(10)).await;
    timeout(seconds(1), writable(&client)).await.expect("a write would fail at once");
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::ConnectionReset);
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::BrokenPipe);
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_and_a_waiting_writer_hear_of_a_reset() {
    let Pair { mut client, server, .. } = pair().await;
    let start = Instant::now();
    fill(&client);
    sleep(milliseconds(10)).await;
    fill(&client);
    tokio::spawn(async move {
        sleep(seconds(3)).await;
        // Bytes of the client are unread here.
        drop(server);
    });
    let reading = poll_fn(|cx| client.socket.poll_read(cx, &mut [0; 9]));
    let (read, ()) = tokio::join!(reading, writable(&client));
    assert_eq!(kind(read), ErrorKind::ConnectionReset);
    assert!(start.elapsed() >= seconds(3) && start.elapsed() < milliseconds(3030));
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn writing_to_a_peer_that_has_closed_is_answered_with_a_reset_after_a_round_trip() {
    let Pair { net, client, server, .. } = pair().await;
    net.quality(SERVER, CLIENT, Quality { latency: milliseconds(50), ..Quality::default() });
    drop(server);
    // The client knows nothing of it yet.
    assert_eq!(write_now(&client, b"late").unwrap(), 4);
    sleep(milliseconds(90)).await;
    assert_eq!(write_now(&client, b"later").unwrap(), 5);
    sleep(milliseconds(20)).await;
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::BrokenPipe);
    let fate = net.fate(client.id).unwrap();
    let (sent, arrived) = (
        fate.when(Happening::Reset(Side::Server, Why::Answer)),
        fate.when(Happening::ResetArrived(Side::Client)),
    );
    assert!(arrived.unwrap() - sent.unwrap() >= milliseconds(50));
    assert_eq!(fate.arrived_at_server, 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_under_way_to_a_socket_that_closes_cost_its_own_last_words() {
    let Pair { mut client, server, .. } = pair().await;
    fill(&server);
    sleep(milliseconds(10)).await;
    let written = 32 * 1024 + fill(&server);
    // The client has not read, so half of that waits in the server's kernel.
    write_now(&client, b"crossing").unwrap();
    drop(server);
    sleep(milliseconds(10)).await;
    let (all, end) = read_out(&mut client).await;
    assert_eq!(kind(end), ErrorKind::ConnectionReset);
    assert!(all.len() < written, "{} of {written}", all.len());
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_other_end_never_closes_is_forgotten_after_a_minute() {
    let Pair { net, client, server, .. } = pair().await;
    drop(client);
    sleep(seconds(59)).await;
    let due = net.stats().due;
    sleep(seconds(2)).await;
    assert_eq!((due, net.stats().due), (1, 0));
    // Its kernel has forgotten it, so even an end is answered with a reset.
    server.socket.shutdown_write();
    sleep(seconds(1)).await;
    assert!(net.fate(server.id).unwrap().when(Happening::ResetArrived(Side::Server)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_closed_socket_tries_for_no_longer_than_orphans_may() {
    let Pair { net, mut client, server, listener } = pair().await;
    net.block(CLIENT, SERVER);
    client.write_all(b"lost").await.unwrap();
    drop((client, server, listener));
    // The server's end goes sooner, by its user timeout.
    sleep(seconds(99)).await;
    assert_eq!(net.stats().connections, 1);
    sleep(seconds(2)).await;
    assert_eq!(net.stats(), Stats::default());
}
