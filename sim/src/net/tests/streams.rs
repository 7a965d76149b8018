//! Bytes: their order, their cuts, their time, and room for them.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[tokio::test(start_paused = true)]
async fn every_byte_arrives_once_and_in_order_however_it_is_cut() {
    for seed in 0..10 {
        let net = Net::new(Rng::from_seed(seed));
        net.default_quality(Quality { jitter: milliseconds(30), window: 9000, ..Quality::default() });
        let Pair { mut client, mut server, .. } = pair_on(net).await;
        let sent = pattern(300_000);
        let expected = sent.clone();
        tokio::spawn(async move {
            let mut rng = Rng::from_seed(seed).fork("writes");
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let count = rest.len().min(1 + rng.bits() as usize % 5000);
                client.write_all(&rest[..count]).await.unwrap();
                rest = &rest[count..];
            }
        });
        let (all, end) = read_out(&mut server).await;
        assert_eq!(end.unwrap(), 0);
        assert!(all == expected, "seed {seed}: {} of {} bytes", all.len(), expected.len());
    }
}

#[tokio::test(start_paused = true)]
async fn reads_are_cut_at_any_byte() {
    let Pair { mut client, mut server, .. } = pair().await;
    let mut first_reads = std::collections::BTreeSet::new();
    for _ in 0..200 {
        client.write_all(&pattern(64)).await.unwrap();
        let mut scratch = [0; 100];
        let first = server.read(&mut scratch).await.unwrap();
        first_reads.insert(first);
        read_exactly(&mut server, 64 - first).await;
    }
    assert!(first_reads.len() > 20 && first_reads.contains(&64), "{first_reads:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_take_the_latency_and_at_most_the_jitter_more() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.quality(
        SERVER,
        CLIENT,
        Quality { latency: milliseconds(40), jitter: milliseconds(20), ..Quality::default() },
    );
    let mut spans = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let start = Instant::now();
        client.write_all(b"x").await.unwrap();
        read_exactly(&mut server, 1).await;
        let span = start.elapsed();
        assert!(span >= milliseconds(40) && span <= milliseconds(62), "{span:?}");
        spans.insert(span);
    }
    assert!(spans.len() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_limited_way_carries_no_more_than_it_can() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.host_quality(CLIENT, Quality { bytes_per_second: Some(10_000), ..Quality::default() });
    let start = Instant::now();
    tokio::spawn(async move {
        client.write_all(&pattern(200_000)).await.unwrap();
        sleep(HOUR).await;
    });
    read_exactly(&mut server, 200_000).await;
    let span = start.elapsed();
    assert!(span >= seconds(20) && span < seconds(21), "{span:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_stops_the_writer_until_it_does() {
    let Pair { net, client, mut server, .. } = pair().await;
    let at_once = fill(&client);
    assert_eq!(at_once, 32 * 1024, "the writer's half of the window");
    timeout(seconds(1), writable(&client)).await.expect("the reader's kernel takes the other half");
    let more = fill(&client);
    assert_eq!(at_once + more, 64 * 1024);
    assert_eq!(net.bytes_unread(client.id, Side::Server), 32 * 1024);
    assert!(timeout(seconds(60), writable(&client)).await.is_err(), "nobody reads");

    read_exactly(&mut server, 32 * 1024).await;
    timeout(seconds(1), writable(&client)).await.expect("there is room again");
    assert!(fill(&client) > 10_000);
    assert_eq!(net.stats().bytes_buffered, 64 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_found_no_room_waits_for_a_third() {
    let Pair { client, mut server, .. } = pair().await;
    fill(&client);
    sleep(milliseconds(100)).await;
    // The acknowledgement of the first half has come.
    writable(&client).await;
    fill(&client);
    read_exactly(&mut server, 9000).await;
    assert!(timeout(seconds(1), writable(&client)).await.is_err());
    assert_eq!(kind(write_now(&client, b"x")), ErrorKind::WouldBlock);
    read_exactly(&mut server, 6000).await;
    timeout(seconds(1), writable(&client)).await.expect("a third of the writer's buffer is free");
}

#[tokio::test(start_paused = true)]
async fn the_window_of_a_host_can_be_its_own_and_as_small_as_two_bytes() {
    let net = Net::new(Rng::from_seed(1));
    net.host_quality(CLIENT, Quality { window: 2, ..Quality::default() });
    let Pair { mut client, mut server, .. } = pair_on(net).await;
    assert_eq!(fill(&server), 1);
    tokio::spawn(async move {
        server.write_all(&pattern(501)[1..]).await.unwrap();
        sleep(HOUR).await;
    });
    assert_eq!(read_exactly(&mut client, 501).await[1..], pattern(501)[1..]);
}

#[tokio::test(start_paused = true)]
async fn a_half_close_delivers_the_bytes_and_the_end_and_leaves_the_other_half() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    let big = pattern(200_000);
    let expected = big.clone();
    let writing = tokio::spawn(async move {
        client.write_all(&big).await.unwrap();
        client.shutdown_write();
        assert_eq!(kind(write_now(&client, b"x")), ErrorKind::BrokenPipe);
        client
    });
    let (all, end) = read_out(&mut server).await;
    assert!(all == expected);
    assert_eq!(end.unwrap(), 0);
    assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0, "the end stays");
    let mut client = writing.await.unwrap();
    timeout(seconds(1), writable(&client)).await.expect("it would fail at once");
    server.write_all(b"and yet").await.unwrap();
    assert_eq!(read_exactly(&mut client, 7).await, b"and yet");
    let fate = net.fate(client.id).unwrap();
    assert!(fate.when(Happening::Fin(Side::Client)) <= fate.when(Happening::FinArrived(Side::Server)));
    assert_eq!(fate.when(Happening::Fin(Side::Server)), None);
}

#[tokio::test(start_paused = true)]
async fn reading_now_gives_what_is_there_and_never_waits() {
    let Pair { mut client, server, .. } = pair().await;
    let mut scratch = [0; 10];
    assert_eq!(kind(server.socket.read_now(&mut scratch)), ErrorKind::WouldBlock);
    client.write_all(b"a").await.unwrap();
    assert_eq!(kind(server.socket.read_now(&mut scratch)), ErrorKind::WouldBlock, "it is under way");
    sleep(milliseconds(10)).await;
    assert_eq!(server.socket.read_now(&mut scratch).unwrap(), 1);
    client.shutdown_write();
    sleep(milliseconds(10)).await;
    assert_eq!(server.socket.read_now(&mut scratch).unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_can_be_written_and_nothing_read_at_no_cost() {
    let Pair { net, client, mut server, .. } = pair().await;
    assert_eq!(write_now(&client, b"").unwrap(), 0);
    assert_eq!(client.socket.try_write_vectored(&[]).unwrap(), 0);
    assert_eq!(server.read(&mut []).await.unwrap(), 0);
    assert_eq!(net.stats().bytes_buffered, 0);
    client
        .socket
        .try_write_vectored(&[io::IoSlice::new(b"ab"), io::IoSlice::new(b""), io::IoSlice::new(b"c")])
        .unwrap();
    assert_eq!(read_exactly(&mut server, 3).await, b"abc");
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_latest_waker_of_an_operation_is_woken_and_once() {
    let Pair { mut client, mut server, .. } = pair().await;
    let counts = [Arc::new(Count::default()), Arc::new(Count::default()), Arc::new(Count::default())];
    let wakers = counts.clone().map(Waker::from);
    let mut scratch = [0; 10];
    for waker in &wakers[..2] {
        assert!(server.poll_read(&mut Context::from_waker(waker), &mut scratch).is_pending());
    }
    fill(&server);
    sleep(milliseconds(10)).await;
    fill(&server);
    let mut cx = Context::from_waker(&wakers[2]);
    assert!(matches!(server.socket.poll_write_ready(&mut cx), Poll::Pending));
    client.write_all(b"one").await.unwrap();
    client.write_all(b"two").await.unwrap();
    sleep(milliseconds(10)).await;
    let woken = |i: usize| counts[i].0.load(Ordering::Relaxed);
    assert_eq!((woken(0), woken(1), woken(2)), (0, 1, 0));
    read_exactly(&mut client, 40_000).await;
    sleep(milliseconds(10)).await;
    assert_eq!((woken(0), woken(1), woken(2)), (0, 1, 1));
}
