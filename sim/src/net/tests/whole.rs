//! The whole network under chance: replay, and nothing left behind.

use super::*;

/// What a socket had to say in the end, with what it read.
type Told = (Vec<u8>, Option<Result<usize, ErrorKind>>);

/// Many connections that talk while everything fails; returns the digest and how many bytes arrived.
async fn storm(seed: u64) -> (u64, u64) {
    let mut rng = Rng::from_seed(seed).fork("storm");
    let net = Net::new(Rng::from_seed(seed));
    net.host_quality(
        CLIENT,
        Quality { latency: milliseconds(20), jitter: milliseconds(50), window: 3000, ..Quality::default() },
    );
    let listener = listen(&net);
    let mut talks = Vec::new();
    let mut ids = Vec::new();
    for i in 0..12 {
        let ip = if i % 2 == 0 { CLIENT } else { OTHER };
        let Ok(client) = net.connect(ip, ADDRESS, seconds(5)).await else { continue };
        let Ok(server) = timeout(seconds(5), accept(&net, &*listener)).await else { continue };
        ids.push(client.id);
        talks.push(tokio::spawn(talk(client, rng.fork(&format!("client {i}")))));
        talks.push(tokio::spawn(talk(server, rng.fork(&format!("server {i}")))));
        for _ in 0..3 {
            let id = ids[rng.bits() as usize % ids.len()];
            let span = milliseconds(rng.bits() % 9000);
            let how = [Cut::Reset, Cut::Vanish, Cut::Fin][rng.bits() as usize % 3];
            let direction = [Direction::ToServer, Direction::ToClient][rng.bits() as usize % 2];
            let (from, to) = if rng.bits().is_multiple_of(2) { (SERVER, CLIENT) } else { (OTHER, SERVER) };
            match rng.bits() % 16 {
                0 => net.block(from, to),
                1 => net.partition(&[CLIENT, OTHER], &[SERVER]),
                2..5 => net.repair_all(),
                5 => net.repair(&[from], &[to]),
                6 => net.vanish(OTHER),
                7 => net.revive(OTHER),
                8 => net.reset(id),
                9..11 => net.cut_after(id, direction, rng.bits() % 5000, how),
                11 => net.stall(id, span),
                12 => net.stall_path(from, to, span),
                _ => sleep(span / 4).await,
            }
        }
    }
    net.repair_all();
    net.revive(OTHER);
    for pair in talks.chunks_mut(2) {
        let [client, server] = pair else { panic!("talks come in pairs") };
        let (client, server) = (client.await.unwrap(), server.await.unwrap());
        for told in [client, server] {
            assert!(
                pattern(told.0.len()) == told.0,
                "seed {seed}: what is read is what was written, in order"
            );
        }
    }
    drop(listener);
    sleep(HOUR).await;
    assert_eq!(net.stats(), Stats::default(), "seed {seed}");
    let fates: Vec<Fate> = ids.iter().map(|id| net.fate(*id).unwrap()).collect();
    assert!(fates.iter().all(|fate| fate.over));
    (net.digest(), fates.iter().map(|fate| fate.arrived_at_server + fate.arrived_at_client).sum())
}

/// Writes the pattern and reads whatever comes, for a while; then closes in some way.
async fn talk(mut socket: Dialled, mut rng: Rng) -> Told {
    let (mut read, mut written) = (Vec::new(), 0);
    let mut scratch = [0; 2048];
    let all = pattern(60_000);
    for _ in 0..rng.bits() % 150 {
        let count = rng.bits() as usize % 2000;
        if rng.bits().is_multiple_of(2) {
            let end = all.len().min(written + count);
            match write_now(&socket, &all[written..end]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return (read, Some(Err(error.kind()))),
            }
        } else {
            match timeout(milliseconds(rng.bits() % 300), socket.read(&mut scratch[..=count])).await {
                Ok(Ok(0)) => return (read, Some(Ok(0))),
                Ok(Ok(count)) => read.extend_from_slice(&scratch[..count]),
                Ok(Err(error)) => return (read, Some(Err(error.kind()))),
                Err(_) => {}
            }
        }
    }
    match rng.bits() % 4 {
        0 => socket.abort_on_drop(),
        1 => {
            socket.shutdown_write();
            sleep(milliseconds(rng.bits() % 5000)).await;
        }
        _ => {}
    }
    (read, None)
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_bytes_stay_in_order_and_nothing_is_left() {
    let mut total = 0;
    for seed in 0..60 {
        total += storm(seed).await.1;
    }
    assert!(total > 1_000_000, "hardly anything was said: {total}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let digests = [storm(7).await, storm(7).await, storm(8).await];
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0].0, digests[2].0);
}

#[tokio::test(start_paused = true)]
async fn the_task_of_a_network_ends_with_its_last_handle() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let unused = Net::new(Rng::from_seed(1));
    sleep(seconds(1)).await;
    drop(unused);
    sleep(seconds(1)).await;
    assert_eq!(metrics.num_alive_tasks(), before, "it was not used at all");
    let Pair { net, listener, client, server } = pair().await;
    assert_eq!(metrics.num_alive_tasks(), before + 1);
    drop((net, listener, client));
    sleep(seconds(1)).await;
    assert_eq!(metrics.num_alive_tasks(), before + 1, "a socket is left");
    drop(server);
    sleep(seconds(1)).await;
    assert_eq!(metrics.num_alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn the_record_of_a_connection_stays_until_it_is_dropped() {
    let Pair { net, client, server, .. } = pair().await;
    let (id, local) = (client.id, client.local);
    assert_eq!(net.live(), [id]);
    drop((client, server));
    sleep(seconds(1)).await;
    assert!(net.live().is_empty());
    assert_eq!(net.connection_from(local), Some(id));
    assert!(net.fate(id).is_some_and(|fate| fate.over));
    net.forget_fate(id);
    assert!(net.fate(id).is_none());
}
