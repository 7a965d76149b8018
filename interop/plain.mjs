// What the tests of the plain dialect share: links made of what every program has, which note all that comes.
//
// `openLink` runs in Node and in a page: it may only use what it is given and what both have. It never returns by itself:
// a test says when, and with what.

/**
 * Opens one link of the plain dialect: `ws`, `sse`, `stream` or one `poll`. Gives `heard` (objects; `text` and `bytes` of
 * what is no JSON), `ended` (null while it lives) and `say`, `close`.
 */
export function openLink(transport, url, query, { WebSocket, fetch }) {
  const link = { heard: [], ended: null, say: null, close: null, session: () => link.heard.find((one) => one.session)?.session };
  const address = `${url}/${transport}?${new URLSearchParams(query)}`;
  const hear = (text) => {
    try {
      link.heard.push(JSON.parse(text));
    } catch {
      link.heard.push({ text });
    }
  };
  if (transport === 'ws') {
    const socket = new WebSocket(address.replace('http', 'ws'));
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }) => (typeof data === 'string' ? hear(data) : link.heard.push({ bytes: [...new Uint8Array(data)] }));
    socket.onerror = () => {}; // `close` follows
    socket.onclose = ({ code, reason }) => (link.ended = { code, reason });
    link.say = (data) => socket.send(data);
    link.close = (...how) => socket.close(...how);
    return link;
  }
  const controller = new AbortController();
  link.close = () => controller.abort();
  link.say = async (body) => (await fetch(`${url}/send?${new URLSearchParams({ session: link.session() })}`, { method: 'POST', body })).status;
  fetch(address, { signal: controller.signal })
    .then(async (answer) => {
      link.status = answer.status;
      link.headers = Object.fromEntries(answer.headers);
      if (transport === 'poll' || !answer.ok) {
        const text = await answer.text();
        if (text !== '') hear(text);
        return;
      }
      const reader = answer.body.getReader();
      const decoder = new TextDecoder('utf-8', { fatal: true });
      for (let rest = ''; ; ) {
        const { done, value } = await reader.read();
        if (done) return;
        const parts = (rest + decoder.decode(value, { stream: true })).split(transport === 'sse' ? '\n\n' : '\n');
        rest = parts.pop();
        for (const part of parts) {
          if (transport !== 'sse') {
            if (part !== '') hear(part);
            continue;
          }
          const fields = Object.fromEntries(part.split('\n').filter((line) => !line.startsWith(':')).map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]));
          // As in a browser: what has an `event:` has no member `type`, and the id stands beside the data.
          if (fields.data !== undefined) hear(JSON.stringify({ ...(fields.event && { type: fields.event }), ...JSON.parse(fields.data), ...(fields.id && { id: fields.id }) }));
        }
      }
    })
    .catch(() => {})
    .finally(() => (link.ended ??= {}));
  return link;
}
