//! Hosts that lose power, and processes that are killed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_host_that_vanishes_says_nothing_and_hears_nothing() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    write_now(&client, b"last words").unwrap();
    sleep(milliseconds(10)).await;
    write_now(&server, b"unheard").unwrap();
    sleep(milliseconds(10)).await;
    net.vanish(CLIENT);
    net.vanish(CLIENT);
    assert_eq!(read_exactly(&mut server, 10).await, b"last words");
    assert!(timeout(HOUR, client.read(&mut [0; 9])).await.is_err(), "dead to itself too");
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::WouldBlock);
    assert!(timeout(seconds(1), writable(&client)).await.is_err());
    let id = client.id;
    drop(client);
    assert!(timeout(HOUR, server.read(&mut [0; 9])).await.is_err(), "no end and no reset");
    let fate = net.fate(id).unwrap();
    let vanished = |(_, happening): &&(Instant, Happening)| *happening == Happening::Vanished(Side::Client);
    assert_eq!(fate.happenings.iter().filter(vanished).count(), 1);
    drop(server);
    sleep(seconds(10)).await;
    assert_eq!(net.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_comes_back_resets_who_speaks_of_the_past() {
    let Pair { net, client, mut server, .. } = pair().await;
    net.vanish(CLIENT);
    write_now(&server, b"are you").unwrap();
    sleep(seconds(2)).await;
    net.revive(CLIENT);
    net.revive(CLIENT);
    let start = Instant::now();
    assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert!(start.elapsed() < seconds(3));
    assert_eq!(kind(client.socket.read_now(&mut [0; 9])), ErrorKind::WouldBlock, "of another life");
    let fate = net.fate(client.id).unwrap();
    assert!(fate.when(Happening::Revived(Side::Client)) < fate.when(Happening::ResetArrived(Side::Server)));

    drop((client, server));
    assert_eq!(net.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_of_a_host_that_came_back_learns_of_it_when_it_speaks() {
    let Pair { net, client: _client, mut server, .. } = pair().await;
    net.vanish(CLIENT);
    net.revive(CLIENT);
    assert!(timeout(HOUR, server.read(&mut [0; 9])).await.is_err());
    write_now(&server, b"x").unwrap();
    assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_vanishes_listens_again_only_after_it_is_back() {
    let Pair { net, listener, mut client, server } = pair().await;
    let waiting = net.connect(OTHER, ADDRESS, seconds(1)).await.unwrap();
    sleep(milliseconds(10)).await;
    net.vanish(SERVER);
    assert!(net.host(SERVER).listen(ADDRESS, USER_TIMEOUT).is_err());
    net.revive(SERVER);
    assert_eq!(net.stats().listeners, 0);
    let renewed = listen(&net);
    drop(listener);
    assert!(net.connect(CLIENT, ADDRESS, seconds(1)).await.is_ok());
    client.write_all(b"remember me").await.unwrap();
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    drop((client, server, waiting, renewed));
    sleep(seconds(1)).await;
    assert_eq!(net.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn the_kernel_of_a_killed_process_closes_its_sockets() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let mut ended = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    let first = accept(&net, &*listener).await;
    let mut reset = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    let second = accept(&net, &*listener).await;
    let mut queued = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    write_now(&first, b"bye").unwrap();
    write_now(&reset, b"unread").unwrap();
    sleep(milliseconds(10)).await;
    net.kill_process(SERVER);
    net.kill_process(SERVER);
    let (all, end) = read_out(&mut ended).await;
    assert_eq!((&all[..], end.unwrap()), (&b"bye"[..], 0));
    assert_eq!(kind(reset.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert_eq!(kind(queued.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    // Its tasks may go on for a moment; nothing comes of it.
    assert_eq!(kind(write_now(&first, b"x")), ErrorKind::WouldBlock);
    assert_eq!(kind(second.socket.read_now(&mut [0; 9])), ErrorKind::WouldBlock);
    assert_eq!(net.stats().listeners, 0);
    let fate = net.fate(first.id).unwrap();
    assert!(fate.when(Happening::Killed(Side::Server)).is_some());
    assert!(net.fate(second.id).unwrap().when(Happening::Reset(Side::Server, Why::Unread)).is_some());
    drop((ended, reset, queued));
    sleep(seconds(1)).await;
    assert_eq!(net.stats(), Stats::default());
    assert!(timeout(seconds(1), writable(&first)).await.is_err());
    drop((first, second, listener));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_does_not_outlive_the_power_of_the_server() {
    let net = Net::new(Rng::from_seed(1));
    net.default_quality(Quality { latency: milliseconds(50), ..Quality::default() });
    let listener = listen(&net);
    let mut client = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    net.vanish(SERVER);
    net.revive(SERVER);
    let renewed = listen(&net);
    let read = timeout(seconds(1), client.read(&mut [0; 9])).await.expect("it is answered");
    assert_eq!(kind(read), ErrorKind::ConnectionReset);
    assert!(timeout(seconds(1), accept(&net, &*renewed)).await.is_err());
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_to_connect_does_not_outlive_the_power_of_the_client() {
    let net = Net::new(Rng::from_seed(1));
    let _listener = listen(&net);
    let attempt = tokio::spawn({
        let net = net.clone();
        async move { net.connect(CLIENT, ADDRESS, seconds(10)).await.map(|dialled| dialled.id) }
    });
    tokio::task::yield_now().await;
    assert_eq!(net.stats().dialling, 1);
    net.vanish(CLIENT);
    net.revive(CLIENT);
    assert_eq!(kind(attempt.await.unwrap()), ErrorKind::TimedOut);
}
