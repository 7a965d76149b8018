// The settings with which the tests of STOMP run: everybody may use topics and queues.

import { settings } from './longwire.mjs';

const OPEN_QUEUE = { allow_send_for_client: true, allow_send_for_anonymous: true, allow_consume_for_client: true, allow_consume_for_anonymous: true };

/** Settings of a server; over TCP it speaks STOMP on `port`, if there is one. */
export function stompSettings(changes = {}, port = undefined) {
  const listeners = port ? { stomp: { address: `127.0.0.1:${port}`, protocol: 'stomp' } } : undefined;
  return settings({ queue: OPEN_QUEUE, ...(listeners && { listeners }), ...changes });
}
