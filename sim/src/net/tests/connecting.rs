//! How a connection begins, or does not.

use super::*;

async fn dial(net: &Net, wait: Duration) -> (io::Result<Dialled>, Duration) {
    let start = Instant::now();
    let result = net.connect(CLIENT, ADDRESS, wait).await;
    (result, start.elapsed())
}

fn failure(result: io::Result<Dialled>) -> ErrorKind {
    result.map(|dialled| dialled.id).expect_err("it fails").kind()
}

#[tokio::test(start_paused = true)]
async fn connecting_takes_a_round_trip() {
    let net = Net::new(Rng::from_seed(1));
    net.default_quality(Quality { latency: milliseconds(70), jitter: Duration::ZERO, ..Quality::default() });
    let listener = listen(&net);
    let (client, span) = dial(&net, seconds(10)).await;
    assert_eq!(span, milliseconds(140));
    let start = Instant::now();
    let server = accept(&net, &*listener).await;
    assert_eq!(start.elapsed(), milliseconds(70), "the last step of the handshake");
    let client = client.unwrap();
    assert_eq!(server.id, client.id);
    let fate = net.fate(server.id).unwrap();
    let happenings: Vec<Happening> = fate.happenings.iter().map(|(_, happening)| *happening).collect();
    assert_eq!(happenings, [Happening::Dialled, Happening::Queued, Happening::Accepted]);
}

#[tokio::test(start_paused = true)]
async fn every_connection_has_an_address_of_its_own_that_the_server_sees() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let mut last = None;
    for _ in 0..20 {
        let client = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
        let server = accept(&net, &*listener).await;
        assert_eq!(server.local, client.local);
        assert_eq!(client.local.ip(), CLIENT);
        assert!(Some(client.local.port()) > last, "ports rise");
        last = Some(client.local.port());
    }
    let other = net.connect(OTHER, ADDRESS, seconds(1)).await.unwrap();
    assert_eq!(other.local.ip(), OTHER);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_listens_connecting_is_refused_at_once() {
    let net = Net::new(Rng::from_seed(1));
    let (result, span) = dial(&net, seconds(10)).await;
    assert_eq!(failure(result), ErrorKind::ConnectionRefused);
    assert!(span < milliseconds(10));

    drop(listen(&net));
    assert_eq!(failure(dial(&net, seconds(10)).await.0), ErrorKind::ConnectionRefused);

    let listener = listen(&net);
    net.kill_process(SERVER);
    assert_eq!(failure(dial(&net, seconds(10)).await.0), ErrorKind::ConnectionRefused);
    let restarted = listen(&net);
    drop(listener);
    assert!(dial(&net, seconds(10)).await.0.is_ok(), "the old listener took nothing with it");
    drop(restarted);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_passes_connecting_times_out_when_it_should() {
    for fault in 0..4 {
        let net = Net::new(Rng::from_seed(1));
        let listener = listen(&net);
        match fault {
            0 => net.block(CLIENT, SERVER),
            1 => net.block(SERVER, CLIENT),
            2 => net.vanish(SERVER),
            _ => net.vanish(CLIENT),
        }
        let (result, span) = dial(&net, seconds(10)).await;
        assert_eq!(failure(result), ErrorKind::TimedOut, "{fault}");
        assert_eq!(span, seconds(10));
        drop(listener);
        assert_eq!(net.stats(), Stats::default());
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_lost_is_made_again() {
    let net = Net::new(Rng::from_seed(1));
    let _listener = listen(&net);
    net.block(SERVER, CLIENT);
    tokio::spawn({
        let net = net.clone();
        async move {
            sleep(milliseconds(1500)).await;
            net.repair(&[CLIENT], &[SERVER]);
        }
    });
    let (result, span) = dial(&net, seconds(10)).await;
    assert!(result.is_ok());
    assert!(span >= seconds(3) && span < milliseconds(3010), "the third attempt is after 3 s, not {span:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_keeps_the_next_one_waiting() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let mut waiting = Vec::new();
    for _ in 0..128 {
        waiting.push(net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap());
        sleep(milliseconds(5)).await;
    }
    assert_eq!(failure(dial(&net, milliseconds(900)).await.0), ErrorKind::TimedOut);
    drop(accept(&net, &*listener).await);
    assert!(dial(&net, milliseconds(900)).await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_was_never_accepted_is_reset_with_the_listener() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let mut client = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    sleep(milliseconds(10)).await;
    drop(listener);
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    drop(client);
    assert_eq!(net.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn who_arrives_when_the_listener_has_just_gone_is_reset() {
    let net = Net::new(Rng::from_seed(1));
    net.default_quality(Quality { latency: milliseconds(50), ..Quality::default() });
    let listener = listen(&net);
    let mut client = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
    drop(listener);
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert_eq!(net.fate(client.id).unwrap().when(Happening::Queued), None);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_before_being_accepted_is_accepted_all_the_same() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    for aborts in [false, true] {
        let mut client = net.connect(CLIENT, ADDRESS, seconds(1)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        if aborts {
            client.abort_on_drop();
        }
        drop(client);
        let mut server = accept(&net, &*listener).await;
        let (all, end) = read_out(&mut server).await;
        assert_eq!(all, b"hello");
        assert_eq!(
            end.map_err(|error| error.kind()),
            if aborts { Err(ErrorKind::ConnectionReset) } else { Ok(0) }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_leaves_nothing() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let attempt = net.connect(CLIENT, ADDRESS, seconds(10));
    assert!(timeout(Duration::from_micros(1), attempt).await.is_err());
    assert_eq!(net.stats().dialling, 0);
    sleep(seconds(1)).await;
    drop(listener);
    assert_eq!(net.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn an_address_is_listened_on_once_and_only_by_its_host() {
    let net = Net::new(Rng::from_seed(1));
    let host = net.host(SERVER);
    let listener = listen(&net);
    let again = host.listen(ADDRESS, USER_TIMEOUT).map(|_| ());
    assert_eq!(kind(again), ErrorKind::AddrInUse);
    let foreign = host.listen(SocketAddr::new(OTHER, 1), USER_TIMEOUT).map(|_| ());
    assert_eq!(kind(foreign), ErrorKind::AddrNotAvailable);
    let any = host.listen("0.0.0.0:0".parse().unwrap(), USER_TIMEOUT).unwrap();
    assert!(any.address().ip().is_unspecified() && any.address().port() > 0);
    let to = SocketAddr::new(SERVER, any.address().port());
    assert!(net.connect(CLIENT, to, seconds(1)).await.is_ok());
    drop(listener);
    assert_eq!(listen(&net).address(), ADDRESS);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_there_first_is_in_the_record() {
    let net = Net::new(Rng::from_seed(1));
    let _listener = listen(&net);
    let dial = net.handle.with(|state| state.begin_dial(CLIENT, ADDRESS));
    net.handle.with(|state| state.send_syn(dial));
    sleep(milliseconds(10)).await;
    // The answer has arrived, and nobody has taken it.
    net.block(SERVER, CLIENT);
    let taken = poll_fn(|cx| net.handle.with(|state| state.poll_dial(dial, HOUR, cx.waker()))).await;
    let (id, _) = taken.expect("somebody listens");
    let fate = net.fate(id).unwrap();
    assert!(fate.blocked_since(Direction::ToClient, Instant::now()).is_some());
    assert_eq!(fate.blocked_since(Direction::ToServer, Instant::now()), None);
}
