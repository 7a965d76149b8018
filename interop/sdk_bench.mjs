// What the cases of centrifuge-js run on: one server, one proxy before it and one backend behind it.

import { answerRpc, Backend } from './backend.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { OPEN_CHANNEL, settings, startLongwire, token } from './longwire.mjs';

/** Every way in which centrifuge-js speaks to a server. SSE carries text only. */
export const COMBINATIONS = [
  ['websocket', 'json'],
  ['websocket', 'protobuf'],
  ['http_stream', 'json'],
  ['http_stream', 'protobuf'],
  ['sse', 'json'],
];

/** Starts the three. `call` is what a `Bench` asks for. */
export async function startBench(server = {}) {
  const backend = await Backend.start({ '/rpc': answerRpc });
  const offered = { allowed_delta_types: ['fossil'], allow_tags_filter: true, allow_user_limited_channels: true };
  const longwire = await startLongwire(
    settings({
      server: { drain_over: '1s', drain_deadline: '3s', ...server },
      client: { allow_anonymous: true, expired_close_delay: '3s', commands_per_second: 1000, command_burst: 1000 },
      channel: offered,
      namespaces: {
        small: { ...OPEN_CHANNEL, ...offered, history_size: 5 },
        cache: { ...OPEN_CHANNEL, force_recovery_mode: 'cache' },
        wish: { ...OPEN_CHANNEL, force_recovery: false, allow_positioning: true, allow_recovery: true },
      },
      webhook: { rpc: { endpoint: `${backend.url}/rpc`, timeout: '3s' } },
    }),
  );
  const proxy = await FaultProxy.start(longwire.port);
  const deeds = {
    api: (method, request) => longwire.call(method, request),
    token: (claims) => token(claims),
    refuse: () => proxy.refuse(),
    allow: () => proxy.refuse(false),
    reset: () => proxy.reset(),
    finish: () => proxy.finish(),
    swallow: () => proxy.swallow(),
  };
  return {
    backend,
    longwire,
    proxy,
    call: async (name, ...parameters) => deeds[name](...parameters),
    stop: async () => {
      await proxy.stop();
      await longwire.stop();
      backend.stop();
    },
  };
}
