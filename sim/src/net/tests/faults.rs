//! What goes wrong between hosts, and how it is mended.

use super::*;

#[tokio::test(start_paused = true)]
async fn written_bytes_that_nobody_acknowledges_end_a_connection_at_its_user_timeout() {
    // The last but one leaves the way of the bytes alone and takes that of their acknowledgements.
    for fault in 0..4 {
        let Pair { net, mut client, mut server, .. } = pair().await;
        sleep(seconds(100)).await;
        match fault {
            0 => net.vanish(CLIENT),
            1 => net.block(SERVER, CLIENT),
            2 => net.block(CLIENT, SERVER),
            _ => net.cut_after(client.id, Direction::ToClient, 0, Cut::Vanish),
        }
        let start = Instant::now();
        assert_eq!(write_now(&server, b"anyone?").unwrap(), 7);
        sleep(seconds(1)).await;
        assert_eq!(write_now(&server, b"hello?").unwrap(), 6);
        if fault == 2 {
            assert_eq!(read_exactly(&mut client, 13).await, b"anyone?hello?");
        }
        assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::TimedOut);
        let span = start.elapsed();
        assert!(span >= USER_TIMEOUT && span <= USER_TIMEOUT + milliseconds(2), "{fault}: {span:?}");
        assert_eq!(kind(write_now(&server, b"x")), ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
        let timed_out = Happening::TimedOut { side: Side::Server, since: start };
        assert_eq!(net.fate(server.id).unwrap().when(timed_out), Some(start + span));
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_say_never_notices() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.partition(&[CLIENT], &[SERVER]);
    let mut scratch = [0; 9];
    assert!(timeout(HOUR, server.read(&mut scratch)).await.is_err());
    assert!(timeout(HOUR, client.read(&mut scratch)).await.is_err());
    net.repair(&[CLIENT], &[SERVER]);
    client.write_all(b"still here").await.unwrap();
    assert_eq!(read_exactly(&mut server, 10).await, b"still here");
}

#[tokio::test(start_paused = true)]
async fn a_direction_can_die_alone() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.block(SERVER, CLIENT);
    client.write_all(b"up").await.unwrap();
    assert_eq!(read_exactly(&mut server, 2).await, b"up");
    assert_eq!(write_now(&server, b"down").unwrap(), 4);
    assert!(timeout(seconds(60), client.read(&mut [0; 9])).await.is_err());
    let fate = net.fate(client.id).unwrap();
    assert!(fate.blocked_since(Direction::ToClient, Instant::now()).is_some());
    assert_eq!(fate.blocked_since(Direction::ToServer, Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn after_a_user_timeout_what_the_peer_sends_is_answered_with_a_reset() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.block(SERVER, CLIENT);
    write_now(&server, b"x").unwrap();
    assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::TimedOut);
    client.write_all(b"still talking").await.unwrap();
    // The answer cannot pass either, until the way is mended and the client tries again.
    assert!(timeout(seconds(60), client.read(&mut [0; 9])).await.is_err());
    net.repair_all();
    let reset = timeout(seconds(5), client.read(&mut [0; 9])).await.expect("the client tries again");
    assert_eq!(kind(reset), ErrorKind::ConnectionReset);
    assert!(net.fate(client.id).unwrap().when(Happening::Reset(Side::Server, Why::Answer)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_no_room_times_the_writer_out_and_one_that_reads_does_not() {
    let Pair { mut client, mut server, .. } = pair().await;
    fill(&server);
    sleep(milliseconds(10)).await;
    let start = Instant::now();
    fill(&server);
    assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::TimedOut);
    let span = start.elapsed();
    assert!(span >= USER_TIMEOUT && span <= USER_TIMEOUT + milliseconds(2), "{span:?}");
    // As measured on Linux: telling of room is speaking too.
    assert!(timeout(seconds(60), read_exactly(&mut client, 32 * 1024)).await.is_ok());
    let read = timeout(seconds(1), client.read(&mut [0; 9])).await.expect("the answer is a reset");
    assert_eq!(kind(read), ErrorKind::ConnectionReset);

    let Pair { mut client, mut server, .. } = pair().await;
    fill(&server);
    sleep(milliseconds(10)).await;
    fill(&server);
    for _ in 0..20 {
        sleep(seconds(3)).await;
        read_exactly(&mut client, 1600).await;
    }
    assert!(timeout(milliseconds(10), server.read(&mut [0; 9])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_acknowledged_may_lie_unread_for_ever() {
    let Pair { client: _client, mut server, .. } = pair().await;
    write_now(&server, b"read me some day").unwrap();
    assert!(timeout(HOUR, server.read(&mut [0; 9])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_gives_up_after_a_quarter_of_an_hour() {
    let Pair { net, mut client, server: _server, .. } = pair().await;
    net.block(CLIENT, SERVER);
    let start = Instant::now();
    client.write_all(b"x").await.unwrap();
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 15 * 60);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_mended_in_time_delivers_everything_that_was_under_way() {
    for seed in 0..20 {
        let Pair { net, mut client, mut server, .. } = pair_on(Net::new(Rng::from_seed(seed))).await;
        net.quality(SERVER, CLIENT, Quality { latency: milliseconds(30), ..Quality::default() });
        server.write_all(&pattern(30_000)[..12_000]).await.unwrap();
        sleep(milliseconds(30)).await;
        net.partition(&[SERVER], &[CLIENT]);
        server.write_all(&pattern(30_000)[12_000..]).await.unwrap();
        server.shutdown_write();
        sleep(milliseconds(4500)).await;
        net.repair(&[CLIENT], &[SERVER]);
        let start = Instant::now();
        let (all, end) = read_out(&mut client).await;
        assert!(all == pattern(30_000) && end.unwrap() == 0, "seed {seed}");
        assert!(start.elapsed() < seconds(4));
        // Nor does the acknowledgement come too late.
        sleep(seconds(60)).await;
        client.write_all(b"thanks").await.unwrap();
        assert_eq!(read_exactly(&mut server, 6).await, b"thanks");
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_lost_is_made_good_when_the_way_is_mended() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.block(CLIENT, SERVER);
    write_now(&server, b"heard").unwrap();
    assert_eq!(read_exactly(&mut client, 5).await, b"heard");
    sleep(seconds(2)).await;
    assert!(net.fate(client.id).unwrap().server_unacked_since.is_some());
    net.repair_all();
    sleep(seconds(3)).await;
    assert_eq!(net.fate(client.id).unwrap().server_unacked_since, None);
    assert!(timeout(HOUR, server.read(&mut [0; 9])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_leaves_while_the_way_is_blocked_never_arrives() {
    let Pair { net, client, mut server, .. } = pair().await;
    net.quality(CLIENT, SERVER, Quality { latency: seconds(1), ..Quality::default() });
    net.block(CLIENT, SERVER);
    client.socket.abort_on_drop();
    drop(client);
    net.repair_all();
    assert!(timeout(HOUR, server.read(&mut [0; 9])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_close_after_a_middlebox_ended_them_part_without_a_reset() {
    let Pair { net, client, server, .. } = pair().await;
    let id = client.id;
    net.cut_after(id, Direction::ToServer, 0, Cut::Fin);
    drop(client);
    sleep(seconds(1)).await;
    drop(server);
    sleep(seconds(1)).await;
    let fate = net.fate(id).unwrap();
    assert!(fate.over);
    assert_eq!(fate.first(|happening| matches!(happening, Happening::Reset(..))), None, "{fate:?}");
}

#[tokio::test(start_paused = true)]
async fn an_end_survives_an_outage_and_a_reset_does_not() {
    for aborts in [false, true] {
        let Pair { net, mut client, mut server, .. } = pair().await;
        net.block(CLIENT, SERVER);
        if aborts {
            client.abort_on_drop();
        }
        let id = client.id;
        drop(client);
        sleep(seconds(2)).await;
        net.repair_all();
        let read = timeout(HOUR, server.read(&mut [0; 9])).await;
        assert_eq!(read.is_err(), aborts);
        // Whoever then speaks of the connection learns of it.
        write_now(&server, b"x").unwrap();
        sleep(milliseconds(10)).await;
        let expected = if aborts { ErrorKind::ConnectionReset } else { ErrorKind::BrokenPipe };
        assert_eq!(kind(write_now(&server, b"x")), expected);
        assert!(net.fate(id).unwrap().when(Happening::ResetArrived(Side::Server)).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_middlebox_can_reset_both_ends() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.reset(client.id);
    net.reset(client.id);
    assert_eq!(kind(client.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    assert_eq!(kind(server.read(&mut [0; 9]).await), ErrorKind::ConnectionReset);
    let fate = net.fate(client.id).unwrap();
    assert_eq!(fate.happenings.len(), 5, "{fate:?}");
    assert_eq!(fate.first(|happening| matches!(happening, Happening::Reset(..))), None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_can_be_cut_at_any_byte() {
    for how in [Cut::Reset, Cut::Vanish, Cut::Fin] {
        for bytes in [0, 1, 777, 1448, 1449, 5000, 9_999, 10_000] {
            let Pair { net, client, mut server, .. } = pair().await;
            write_now(&client, b"before").unwrap();
            read_exactly(&mut server, 6).await;
            net.cut_after(client.id, Direction::ToServer, bytes, how);
            let _ = write_now(&client, &pattern(10_000));
            let end = timeout(seconds(60), async {
                let (all, end) = read_out(&mut server).await;
                (all, end.map_err(|error| error.kind()))
            });
            match end.await {
                Ok((all, end)) => {
                    assert!(all == pattern(10_000)[..bytes as usize], "{how:?} {bytes}: {}", all.len());
                    let expected = if how == Cut::Fin { Ok(0) } else { Err(ErrorKind::ConnectionReset) };
                    assert_eq!(end, expected);
                }
                Err(_) => assert_eq!(how, Cut::Vanish),
            }
            let fate = net.fate(client.id).unwrap();
            assert_eq!(fate.arrived_at_server, 6 + bytes);
            assert!(fate.when(Happening::Cut(Direction::ToServer, how)).is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_to_a_cut_hears_what_the_cut_is_like() {
    for how in [Cut::Reset, Cut::Vanish, Cut::Fin] {
        let Pair { net, mut client, server, .. } = pair().await;
        net.cut_after(client.id, Direction::ToServer, 4, how);
        client.write_all(b"four").await.unwrap();
        let read = timeout(seconds(60), client.read(&mut [0; 9])).await;
        let read = read.ok().map(|read| read.map_err(|error| error.kind()));
        let expected = match how {
            Cut::Reset => Some(Err(ErrorKind::ConnectionReset)),
            Cut::Vanish => None,
            Cut::Fin => Some(Ok(0)),
        };
        assert_eq!(read, expected, "{how:?}");
        if how == Cut::Fin {
            for socket in [&client, &server] {
                write_now(socket, b"more").unwrap();
                sleep(milliseconds(10)).await;
                assert_eq!(kind(write_now(socket, b"more")), ErrorKind::BrokenPipe);
            }
        }
        drop((client, server));
        sleep(HOUR).await;
        assert_eq!(net.stats(), Stats::default(), "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_connection_goes_on_where_it_was_if_it_is_remembered_in_time() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.cut_after(client.id, Direction::ToServer, 1000, Cut::Vanish);
    client.write_all(&pattern(3000)).await.unwrap();
    sleep(seconds(60)).await;
    net.repair(&[SERVER], &[CLIENT]);
    assert!(read_exactly(&mut server, 3000).await == pattern(3000));
    assert!(net.fate(client.id).unwrap().when(Happening::CutRepaired).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stall_delays_and_loses_nothing() {
    for whole_path in [false, true] {
        let Pair { net, mut client, mut server, .. } = pair().await;
        client.write_all(&pattern(2000)[..1000]).await.unwrap();
        if whole_path {
            net.stall_path(CLIENT, SERVER, seconds(7));
            net.stall_path(CLIENT, SERVER, seconds(2));
        } else {
            net.stall(client.id, seconds(7));
        }
        client.write_all(&pattern(2000)[1000..]).await.unwrap();
        write_now(&server, b"back").unwrap();
        let start = Instant::now();
        // The server's acknowledgements are stalled too, which is what its user timeout is for.
        assert_eq!(timeout(seconds(1), client.read(&mut [0; 4])).await.is_ok(), whole_path);
        if whole_path {
            sleep(seconds(5)).await;
            assert_eq!(kind(write_now(&server, b"x")), ErrorKind::TimedOut);
            continue;
        }
        sleep(seconds(3)).await;
        net.repair_all();
        assert!(read_exactly(&mut server, 2000).await == pattern(2000));
        assert!(start.elapsed() < milliseconds(4100), "lifted early");
        assert_eq!(read_exactly(&mut client, 4).await, b"back");
        sleep(milliseconds(10)).await;
        net.stall(client.id, seconds(3));
        net.stall(client.id, seconds(2));
        write_now(&server, b"again").unwrap();
        let start = Instant::now();
        assert_eq!(read_exactly(&mut client, 5).await, b"again");
        assert_eq!(start.elapsed().as_millis() / 10, 300, "the longer one counts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_separates_two_groups_and_nobody_else() {
    let net = Net::new(Rng::from_seed(1));
    let listener = listen(&net);
    let mut pairs = Vec::new();
    for ip in [CLIENT, OTHER] {
        let client = net.connect(ip, ADDRESS, seconds(1)).await.unwrap();
        pairs.push((client, accept(&net, &*listener).await));
    }
    net.partition(&[SERVER], &[OTHER]);
    net.partition(&[SERVER], &[OTHER]);
    for (client, _) in &mut pairs {
        client.write_all(b"hi").await.unwrap();
    }
    sleep(seconds(1)).await;
    assert_eq!(net.bytes_unread(pairs[0].0.id, Side::Server), 2);
    assert_eq!(net.bytes_unread(pairs[1].0.id, Side::Server), 0);
    let blocked = |id| net.fate(id).unwrap().happenings.len();
    assert_eq!((blocked(pairs[0].0.id), blocked(pairs[1].0.id)), (3, 5));
    net.repair(&[CLIENT], &[SERVER]);
    sleep(seconds(4)).await;
    assert_eq!(net.bytes_unread(pairs[1].0.id, Side::Server), 0, "another way was mended");
    net.repair(&[OTHER], &[SERVER]);
    assert_eq!(read_exactly(&mut pairs[1].1, 2).await, b"hi");
}
