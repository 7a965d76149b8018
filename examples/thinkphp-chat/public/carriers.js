// The three ways to longwire, each with what every browser has. A carrier lives until it is lost or ended:
// it is given `address(path, query)`, calls `hear(message, id)` with all that comes, and at its end `lose(isForGood)`.
export const carriers = {
  websocket(address, hear, lose) {
    const socket = new WebSocket(address('ws').replace(/^http/, 'ws'))
    socket.onmessage = ({ data }) => hear(JSON.parse(data))
    socket.onclose = ({ code }) => lose((code >= 3500 && code < 4000) || code >= 4500)
    return { say: (text) => socket.send(text), ping: () => socket.send('ping'), end: () => socket.close(4000) }
  },

  sse(address, hear, lose) {
    const source = new EventSource(address('sse'), { withCredentials: true })
    for (const type of ['message', 'subscribed', 'recovered', 'subscribe', 'join', 'leave', 'disconnect'])
      source.addEventListener(type, ({ data, lastEventId }) => hear({ type, ...JSON.parse(data) }, lastEventId))
    source.onerror = () => lose()
    // The answer to a ping comes down the stream: what longwire itself sends there is not shown to pages.
    const send = (body) => fetch(address('send'), { method: 'POST', body, credentials: 'include' })
    return { ping: () => send('ping').catch(() => {}), end: () => source.close() }
  },

  poll(address, hear, lose) {
    const leaving = new AbortController()
    const ask = async (wait) => {
      const signal = AbortSignal.any([leaving.signal, AbortSignal.timeout(40_000)])
      const answer = await fetch(address('poll', wait), { credentials: 'include', signal })
      if (!answer.ok) return lose([401, 403].includes(answer.status))
      // 204: nothing came in the time that it waits.
      const { publications = [], since, ...welcome } = answer.status === 204 ? { isStill: true } : await answer.json()
      if (leaving.signal.aborted) return
      hear(welcome, since)
      publications.forEach((publication) => hear(publication))
      return ask()
    }
    // The first shows that it is a way, and is not waited for.
    ask({ wait: 1 }).catch(() => lose())
    return { ping() {}, end: () => leaving.abort() }
  },
}
